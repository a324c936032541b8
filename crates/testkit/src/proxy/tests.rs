use super::*;
use crate::http::{Client, get};
use crate::upstream::Upstream;
use std::time::Instant;

fn pair() -> (Upstream, FaultProxy) {
    let upstream = Upstream::start();
    let proxy = FaultProxy::start(upstream.address());
    (upstream, proxy)
}

#[tokio::test]
async fn is_not_there_when_nothing_is_wrong() {
    let (_upstream, proxy) = pair();
    assert_eq!(get(&proxy.url("/bytes/1000000")).await.unwrap().body.len(), 1_000_000);
    assert_eq!(proxy.connections(), 1);
    assert!(proxy.responded_bytes() > 1_000_000);
    assert!(proxy.requested_bytes() > 0);
}

#[tokio::test]
async fn delays_and_throttles() {
    let (_upstream, proxy) = pair();
    proxy.set(Faults { delay: Duration::from_millis(60), ..Faults::default() });
    let start = Instant::now();
    get(&proxy.url("/ip")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(120), "{:?}", start.elapsed());
    proxy.set(Faults { bytes_per_second: Some(100_000), ..Faults::default() });
    let start = Instant::now();
    get(&proxy.url("/bytes/20000")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_black_hole_swallows_until_it_is_healed() {
    let (_upstream, proxy) = pair();
    let mut kept = Client::connect(&proxy.url("/")).await.unwrap();
    kept.get("/ip").await.unwrap();
    proxy.black_hole();
    let lost = tokio::spawn(async move { kept.get("/ip").await });
    let fresh = tokio::time::timeout(Duration::from_millis(200), get(&proxy.url("/ip"))).await;
    assert!(fresh.is_err(), "nothing comes back");
    assert!(!lost.is_finished());
    proxy.heal();
    assert_eq!(lost.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn refusing_leaves_open_connections_alone_and_killing_does_not() {
    let (_upstream, proxy) = pair();
    let mut kept = Client::connect(&proxy.url("/")).await.unwrap();
    kept.get("/ip").await.unwrap();
    proxy.set(Faults { refuse: true, ..Faults::default() });
    assert!(get(&proxy.url("/ip")).await.is_err());
    assert_eq!(kept.get("/ip").await.unwrap().status, 200);
    proxy.kill();
    assert!(kept.get("/ip").await.is_err());
    proxy.heal();
    assert_eq!(get(&proxy.url("/ip")).await.unwrap().status, 200);
}

#[tokio::test]
async fn cuts_either_direction_after_so_many_bytes() {
    let (upstream, proxy) = pair();
    proxy.set(Faults { cut_response_after: Some(5000), ..Faults::default() });
    let error = get(&proxy.url("/bytes/100000")).await.unwrap_err();
    assert!(format!("{error:#}").contains("broke off"), "{error:#}");
    assert_eq!(proxy.responded_bytes(), 5000);
    let before = upstream.requests();
    proxy.set(Faults { cut_request_after: Some(3), ..Faults::default() });
    assert!(get(&proxy.url("/ip")).await.is_err());
    assert_eq!(upstream.requests(), before, "three bytes are no request");
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (_upstream, proxy) = pair();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"GET /delay/5 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    crate::wait::eventually(Duration::from_secs(5), "the request to be through", async || {
        if proxy.requested_bytes() > 0 { Ok(()) } else { Err(()) }
    })
    .await;
    proxy.reset();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
