//! Certificates that change while they are shown.

use std::time::Duration;

use testkit::certs::Ca;
use testkit::http::{Client, Options};
use testkit::load::Plan;

use crate::{Node, asking, ssl, ssl_with};

#[tokio::test]
async fn no_request_notices() {
    let (node, ca, ours) = (Node::start().await, Ca::new("keel"), Ca::new("ours"));
    let names = ["shop.test", "bank.test"];
    let one = |name: &str| ssl(&ca.server(&[name]), &[name]);
    let two = |name: &str| ssl_with(&ca.server(&[name]), &[name], asking(&ours));
    node.has(&[("ssls/1", one(names[0])), ("ssls/2", two(names[1]))]).await;
    let options =
        |name: &str| Options { ca: Some(ca.pem()), client: Some(ours.client("us")), ..node.as_name(name) };
    let loads = names.map(|name| {
        let plan = Plan::new(format!("https://{name}/ip")).options(options(name)).kept(2).fresh(20);
        plan.pause(Duration::from_millis(20)).start()
    });
    let mut kept = Client::connect_with("https://shop.test/", &options(names[0])).await.unwrap();
    let first = kept.certificate.clone();
    for _ in 0..10 {
        node.has(&[("ssls/1", one(names[0])), ("ssls/2", two(names[1]))]).await;
        assert_eq!(kept.get("/ip").await.unwrap().status, 200, "on the connection of before");
        for load in &loads {
            load.more(20).await;
        }
    }
    let fresh = Client::connect_with("https://shop.test/", &options(names[0])).await.unwrap();
    assert_ne!(fresh.certificate, first, "new handshakes see the new one");
    for load in loads {
        load.stop().await.assert_clean(200);
    }
}
