//! Which certificate is shown, and how it is spoken with.

use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::http::Client;

use crate::{Node, ssl, ssl_with};

#[tokio::test]
async fn the_certificate_for_a_name() {
    let node = Node::with(json!({ "apisix": { "ssl": { "fallback_sni": "Fall.back.test" } } })).await;
    let ca = Ca::new("keel");
    let table: [(&str, &[&str]); 6] = [
        ("exact", &["www.Shop.test"]),
        ("wild", &["*.shop.test"]),
        ("deep", &["*.deep.shop.test"]),
        ("several", &["one.test", "*.two.test"]),
        ("fallback", &["fall.back.test"]),
        ("off", &["off.test"]),
    ];
    let pairs: Vec<_> = table.iter().map(|(_, names)| ca.server(names)).collect();
    for ((id, names), pair) in table.iter().zip(&pairs) {
        node.put(&format!("ssls/{id}"), &ssl(pair, names)).await;
    }
    let off = ssl_with(&pairs[5], &["off.test"], json!({ "status": 0 }));
    // Of two for one name the smaller id is shown, whichever came last.
    node.has(&[("ssls/off", off), ("ssls/wild2", ssl(&pairs[3], &["*.shop.test"]))]).await;
    let shown = async |name: &str| {
        let client = Client::connect_with("https://127.0.0.1/", &node.as_name(name)).await.ok()?;
        let shown = client.certificate?;
        let der = |pem: &str| pki::certificates(pem.as_bytes()).unwrap()[0].to_vec();
        let at = pairs.iter().position(|pair| der(&pair.cert) == shown).expect("one of them");
        Some(table[at].0)
    };
    for (name, id) in [
        ("www.shop.test", Some("exact")),
        ("WWW.SHOP.TEST", Some("exact")),
        ("api.shop.test", Some("wild")),
        ("shop.test", None),
        ("a.b.shop.test", None),
        ("x.deep.shop.test", Some("deep")),
        ("one.test", Some("several")),
        ("x.two.test", Some("several")),
        ("off.test", None),
        ("other.test", None),
        // An address is no name.
        ("127.0.0.1", Some("fallback")),
    ] {
        assert_eq!(shown(name).await, id, "{name}");
    }
    let refused = node.s_client("x", &["-servername", "other.test"]);
    assert!(refused.contains("alert"), "it is told, not hung up on: {refused}");
    // A certificate for all names is for those that nobody else is for.
    node.has(&[("ssls/all", ssl(&pairs[4], &["*"]))]).await;
    for (name, id) in [("a.b.other.test", "fallback"), ("www.shop.test", "exact"), ("api.shop.test", "wild")]
    {
        assert_eq!(shown(name).await, Some(id), "{name}");
    }
}

#[tokio::test]
async fn a_key_of_each_kind_for_those_who_can_verify_it() {
    let (node, ca) = (Node::start().await, Ca::new("keel"));
    let (rsa, ecdsa) = (ca.rsa_server(&["shop.test"]), ca.server(&["shop.test"]));
    let both = json!({ "certs": [ecdsa.cert], "keys": [ecdsa.key] });
    node.has(&[("ssls/1", ssl_with(&rsa, &["shop.test"], both))]).await;
    for (args, kind) in [
        (&["-tls1_3"][..], "ECDSA"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "RSA-PSS"),
        (&["-tls1_2"], "ECDSA"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA-PSS"),
        (&["-tls1_2", "-sigalgs", "RSA+SHA256"], "RSA"),
    ] {
        let seen = node.s_client("shop.test", &[&["-servername", "shop.test"], args].concat());
        assert!(seen.contains(&format!("Peer signature type: {kind}\n")), "{args:?}: {seen}");
        assert!(seen.contains("HTTP/1.1 200"), "{args:?}: {seen}");
    }
}

#[tokio::test]
async fn versions_of_the_process_and_of_certificates() {
    let settings = json!({ "apisix": { "ssl": {
        "ssl_protocols": "TLSv1.3",
        "ssl_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA",
    } } });
    let (mut node, ca) = (Node::with(settings).await, Ca::new("keel"));
    let own = |name: &str, versions: &[&str]| {
        let more = if versions.is_empty() { json!({}) } else { json!({ "ssl_protocols": versions }) };
        ssl_with(&ca.server(&[name]), &[name], more)
    };
    node.has(&[
        ("ssls/1", own("plain.test", &[])),
        ("ssls/2", own("old.test", &["TLSv1.1", "TLSv1.2"])),
        ("ssls/3", own("both.test", &["TLSv1.2", "TLSv1.3"])),
    ])
    .await;
    for (name, version, spoken) in [
        ("plain.test", "-tls1_3", Some("TLSv1.3")),
        ("plain.test", "-tls1_2", None),
        ("old.test", "-tls1_3", None),
        ("old.test", "-tls1_2", Some("TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384")),
        ("both.test", "-tls1_3", Some("TLSv1.3")),
        ("both.test", "-tls1_2", Some("TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384")),
    ] {
        let ours = ["-servername", name, version, "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ALL"];
        let seen = node.s_client(name, &ours);
        match spoken {
            Some(spoken) => assert!(seen.contains(&format!("New, {spoken}")), "{name} {version}: {seen}"),
            None => assert!(seen.contains("protocol version"), "{name} {version}: {seen}"),
        }
    }
    let seen = node.s_client(
        "both.test",
        &["-servername", "both.test", "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    );
    assert!(seen.contains("handshake failure"), "not one of the list: {seen}");
    let log = node.gateway.process().log();
    assert!(log.contains("apisix.ssl.ssl_ciphers: there is no AES128-SHA"), "{log}");
    // What can't be spoken at all is refused where it is written.
    let refused = node.admin(http::Method::PUT, "ssls/4", &own("x.test", &["TLSv1.1"])).await;
    let message: Value = refused.json();
    assert_eq!(
        (refused.status, &message["error_msg"]),
        (400, &json!("ssl_protocols has none of TLSv1.2, TLSv1.3"))
    );
}
