//! Sessions are resumed under the terms they were made under, and no others.

use serde_json::{Value, json};
use testkit::certs::Ca;

use crate::{Node, asking, ssl, ssl_with};

/// Whether a session made for one name is resumed for the other, with what is to happen between.
async fn resumes(node: &Node, version: &str, names: (&str, &str), between: Option<(&str, Value)>) -> bool {
    let file = node.home().join("session");
    let file = file.to_str().unwrap();
    let client = node.home().join("client.pem");
    let key = node.home().join("client.key");
    let shown = ["-cert", client.to_str().unwrap(), "-key", key.to_str().unwrap(), version, "-servername"];
    let (first, second) = names;
    let seen = node.s_client(first, &[&shown[..], &[first, "-sess_out", file]].concat());
    assert!(seen.contains("New, TLSv1"), "{seen}");
    assert!(seen.contains("HTTP/1.1 200"), "{seen}");
    if let Some(change) = between {
        node.has(&[change]).await;
    }
    let seen = node.s_client(second, &[&shown[..], &[second, "-sess_in", file]].concat());
    assert!(seen.contains("HTTP/1.1 200"), "resumed or not, it is served: {seen}");
    seen.contains("Reused, TLSv1")
}

#[tokio::test]
async fn by_what_we_remember_and_by_tickets() {
    let (ca, ours, others) = (Ca::new("keel"), Ca::new("ours"), Ca::new("others"));
    let pair = ca.server(&["shop.test", "bank.test", "open.test"]);
    let both = format!("{}{}", ours.pem(), others.pem());
    for tickets in [false, true] {
        let settings = json!({
            "nginx_config": { "worker_processes": 2 },
            "apisix": { "ssl": { "ssl_session_tickets": tickets } },
        });
        let mut node = Node::with(settings).await;
        ours.client("us").write(node.home(), "client");
        let shop = ssl_with(&pair, &["shop.test"], asking(&ours));
        let bank = ssl_with(&pair, &["bank.test"], json!({ "client": { "ca": both } }));
        node.has(&[("ssls/1", shop.clone()), ("ssls/2", bank), ("ssls/3", ssl(&pair, &["open.test"]))]).await;
        for version in ["-tls1_2", "-tls1_3"] {
            // On either worker, again and again.
            for _ in 0..2 {
                assert!(resumes(&node, version, ("open.test", "open.test"), None).await, "{version}");
                assert!(resumes(&node, version, ("shop.test", "shop.test"), None).await, "{version}");
            }
            for names in [("open.test", "shop.test"), ("shop.test", "bank.test"), ("shop.test", "open.test")]
            {
                assert!(!resumes(&node, version, names, None).await, "{version} {names:?}");
            }
            // Another certificate under the same terms changes nothing; other terms do.
            let again = ("ssls/1", ssl_with(&ca.server(&["shop.test"]), &["shop.test"], asking(&ours)));
            assert!(resumes(&node, version, ("shop.test", "shop.test"), Some(again)).await, "{version}");
            let stricter = ssl_with(&pair, &["shop.test"], json!({ "client": { "ca": both } }));
            let changed = Some(("ssls/1", stricter));
            assert!(!resumes(&node, version, ("shop.test", "shop.test"), changed).await, "{version}");
            let asks = Some(("ssls/3", ssl_with(&pair, &["open.test"], asking(&ours))));
            assert!(!resumes(&node, version, ("open.test", "open.test"), asks).await, "{version}");
            node.has(&[("ssls/1", shop.clone()), ("ssls/3", ssl(&pair, &["open.test"]))]).await;
        }
        survives_a_reload(&mut node).await;
    }
}

/// A reload that is about something else loses no session.
async fn survives_a_reload(node: &mut Node) {
    let file = node.home().join("kept");
    let args = ["-servername", "open.test", "-tls1_3"];
    let seen = node.s_client("open.test", &[&args[..], &["-sess_out", file.to_str().unwrap()]].concat());
    assert!(seen.contains("New, TLSv1.3"), "{seen}");
    node.gateway.merge_config(json!({ "nginx_config": { "worker_processes": 1 } }));
    let reload = node.command(&["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    let seen = node.s_client("open.test", &[&args[..], &["-sess_in", file.to_str().unwrap()]].concat());
    assert!(seen.contains("Reused, TLSv1.3"), "{seen}");
}
