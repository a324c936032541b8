//! OCSP, with OpenSSL's responder.

use std::fs;
use std::process::Command;

use serde_json::json;
use testkit::certs::Ca;
use testkit::gateway::SOON;
use testkit::ports;
use testkit::process::Process;
use testkit::wait::{eventually, expect};

use crate::{Node, ssl, ssl_with};

#[tokio::test]
async fn what_the_issuer_says_is_shown_along() {
    let (mut node, ca) = (Node::start().await, Ca::new("keel"));
    let port = ports::free();
    let url = format!("http://127.0.0.1:{port}/ocsp");
    let names = ["good.test", "gone.test", "shown.test", "quiet.test"];
    let of = |at: u16| {
        let name = names[usize::from(at)];
        ca.server_with_responder(&[name], 0x1000 + at, &url).followed_by(&ca)
    };
    let on = |more| ssl_with(&of(1), &["gone.test"], json!({ "ocsp_stapling": more }));
    let responder = responder(&node, &ca, port);
    let mark = node.gateway.process().mark();
    let stapled = json!({ "ocsp_stapling": { "enabled": true } });
    let mut shown = on(json!({ "enabled": true, "skip_verify": true }));
    shown["snis"] = json!(["shown.test"]);
    node.has(&[
        ("ssls/1", ssl_with(&of(0), &["good.test"], stapled.clone())),
        ("ssls/2", on(json!({ "enabled": true }))),
        ("ssls/3", shown),
        ("ssls/4", ssl(&of(3), &["quiet.test"])),
        ("ssls/5", ssl_with(&ca.server(&["bare.test"]), &["bare.test"], stapled)),
    ])
    .await;
    let status = |name: &str| node.s_client(name, &["-servername", name, "-status"]);
    for (name, said) in [("good.test", "Cert Status: good"), ("shown.test", "Cert Status: revoked")] {
        eventually(SOON, said, async || {
            let seen = status(name);
            expect(seen.contains(said) && seen.contains("HTTP/1.1 200"), seen)
        })
        .await;
    }
    // Nobody asked for, nobody to ask, and what it is better not to say.
    for name in ["gone.test", "quiet.test", "bare.test"] {
        let seen = status(name);
        assert!(seen.contains("OCSP response: no response sent") && seen.contains("HTTP/1.1 200"), "{seen}");
    }
    drop(responder);
    // With the responder gone, what it last said is good for as long as it said; a rewrite does not ask again.
    node.has(&[("ssls/1", ssl_with(&of(0), &["good.test"], json!({})))]).await;
    assert!(status("good.test").contains("no response sent"), "a certificate of its own");
    assert!(status("shown.test").contains("Cert Status: revoked"));
    let log = node.gateway.process().log_since(mark);
    assert!(log.contains("no fresh OCSP response") && log.contains("revoked"), "{log}");
    assert!(log.contains("the issuer's certificate does not follow the certificate"), "{log}");
}

/// All it knows: one certificate is good, one is revoked.
fn responder(node: &Node, ca: &Ca, port: u16) -> Process {
    let files = ca.pair().write(node.home(), "issuer");
    let index = node.home().join("index.txt");
    let lines = "V\t491231000000Z\t\t1000\tunknown\t/CN=good\nR\t491231000000Z\t240101000000Z\t1001\tunknown\t/CN=gone\n";
    fs::write(&index, lines).unwrap();
    let mut command = Command::new("openssl");
    command.args(["ocsp", "-port", &port.to_string(), "-nmin", "5", "-index"]).arg(&index);
    command.arg("-CA").arg(&files.cert).arg("-rsigner").arg(&files.cert).arg("-rkey").arg(&files.key);
    Process::start("openssl ocsp", &command, &node.home().join("ocsp.log"))
}
