use super::*;
use crate::proxy::FaultProxy;
use crate::upstream::{Behaviour, Upstream};

#[tokio::test]
async fn counts_a_clean_run() {
    let upstream = Upstream::start();
    let load = Plan::new(upstream.url("/ip")).kept(2).pause(Duration::ZERO).start();
    load.more(500).await;
    let report = load.stop().await;
    report.assert_clean(500);
    assert_eq!(report.bodies.values().sum::<u64>(), report.requests);
    assert_eq!(upstream.requests(), report.requests);
}

#[tokio::test]
async fn notices_a_wrong_answer_a_reset_and_a_refused_connection() {
    let upstream = Upstream::start();
    let proxy = FaultProxy::start(upstream.address());
    let load = Plan::new(proxy.url("/ip")).kept(1).start();
    load.more(20).await;
    assert_eq!(load.failed(), 0);

    upstream.behave(Behaviour::Status(503));
    load.more(5).await;
    upstream.behave(Behaviour::Answer);
    let wrong = load.failed();
    assert!(wrong > 0);

    proxy.reset();
    load.more(20).await;
    let reset = load.failed();
    assert!(reset > wrong, "a kept connection that was reset is noticed");

    proxy.kill();
    load.more(20).await;
    let report = load.stop().await;
    assert!(report.failures.iter().any(|failure| failure.what.contains("no connection")), "{report}");
    assert!(report.failures.iter().any(|failure| failure.kept), "{report}");
}
