//! Clients that must show certificates.

use serde_json::json;
use testkit::certs::{Ca, Pair};
use testkit::http::{Client, Options};

use crate::{Node, asking, get, ssl, ssl_with};

fn showing(options: &Options, pair: &Pair) -> Options {
    Options { client: Some(pair.clone()), ..options.clone() }
}

async fn node_that_tells() -> Node {
    Node::with(json!({ "nginx_config": { "error_log_level": "info" } })).await
}

#[tokio::test]
async fn who_has_none_or_a_foreign_one_is_turned_away() {
    let (mut node, ca, ours, foreign) =
        (node_that_tells().await, Ca::new("keel"), Ca::new("ours"), Ca::new("foreign"));
    let middle = ours.intermediate("middle");
    let last = middle.intermediate("last");
    let pair = ca.server(&["shop.test", "deep.test"]);
    let mut deep = asking(&ours);
    deep["client"]["depth"] = json!(2);
    node.has(&[
        ("ssls/1", ssl_with(&pair, &["shop.test"], asking(&ours))),
        ("ssls/2", ssl_with(&pair, &["deep.test"], deep)),
    ])
    .await;
    let near = middle.client("near").followed_by(&middle);
    let far = last.client("far").followed_by(&last).followed_by(&middle);
    for http2 in [false, true] {
        let ask = async |name: &str, client: Option<&Pair>| {
            let options = Options { http2, client: client.cloned(), ..node.as_name(name) };
            get(&options, &format!("https://{name}/ip")).await.map(|answer| answer.status).ok()
        };
        for name in ["shop.test", "deep.test"] {
            assert_eq!(ask(name, None).await, None, "no certificate");
            assert_eq!(ask(name, Some(&foreign.client("us"))).await, None, "another authority's");
            assert_eq!(ask(name, Some(&ours.server(&["us"]))).await, None, "a server's");
            assert_eq!(ask(name, Some(&ours.client("us"))).await, Some(200));
            assert_eq!(ask(name, Some(&near)).await, Some(200), "one between");
        }
        assert_eq!(ask("shop.test", Some(&far)).await, None, "two between are one too many by default");
        assert_eq!(ask("deep.test", Some(&far)).await, Some(200));
    }
    // An operator who looks finds out who was turned away, and why.
    let log = node.gateway.process().log();
    let told = |text: &str| log.lines().any(|line| line.contains(text) && line.contains("shop.test"));
    for reason in ["peer sent no certificates", "invalid peer certificate: UnknownIssuer"] {
        assert!(told(reason), "{reason}: {log}");
    }
}

#[tokio::test]
async fn uris_that_need_none() {
    let (node, ca, ours) = (Node::start().await, Ca::new("keel"), Ca::new("ours"));
    let mut client = asking(&ours);
    client["client"]["skip_mtls_uri_regex"] = json!(["^/anything/[0-9]+$", "^/ip"]);
    node.has(&[("ssls/1", ssl_with(&ca.server(&["shop.test"]), &["shop.test"], client))]).await;
    let nobody = node.as_name("shop.test");
    let friend = showing(&nobody, &ours.client("friend"));
    let foe = showing(&nobody, &Ca::new("foreign").client("foe"));
    for (path, without) in
        [("/ip", 200), ("/anything/1", 200), ("/anything/x", 400), ("/headers", 400), ("/anything/%31", 200)]
    {
        for (options, status) in [(&nobody, without), (&foe, without), (&friend, 200)] {
            let answer = get(options, &format!("https://shop.test{path}")).await.unwrap();
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert!(status != 400 || answer.text().contains("400 Bad Request"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_was_proved_to_one_name_is_proved_to_no_other() {
    let (node, ca, ours, others) = (Node::start().await, Ca::new("keel"), Ca::new("ours"), Ca::new("others"));
    let pair = ca.server(&["shop.test", "bank.test", "open.test"]);
    node.has(&[
        ("ssls/1", ssl_with(&pair, &["shop.test"], asking(&ours))),
        ("ssls/2", ssl_with(&pair, &["*.bank.test"], asking(&others))),
        ("ssls/3", ssl(&pair, &["open.test"])),
    ])
    .await;
    let friend = ours.client("friend");
    for http2 in [false, true] {
        for (name, host, status) in [
            ("shop.test", "shop.test", 200),
            ("shop.test", "SHOP.test:9443", 200),
            ("shop.test", "a.bank.test", 400),
            ("open.test", "open.test", 200),
            ("open.test", "nobody.test", 200),
            ("open.test", "shop.test", 400),
            ("open.test", "a.bank.test", 400),
            // One that asks for nothing lets in whoever has shown more.
            ("shop.test", "open.test", 200),
        ] {
            let options = Options { http2, ..showing(&node.as_name(name), &friend) };
            let mut client = Client::connect_with("https://x.test/", &options).await.unwrap();
            let answer = client.send(http::Method::GET, "/ip", &[("host", host)], "").await.unwrap();
            assert_eq!(answer.status, status, "{name} {host}");
        }
    }
    // Without TLS nothing was asked for, and APISIX asks for nothing later.
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
}

#[tokio::test]
async fn upstreams_hear_who_it_is() {
    let (node, ca, ours) = (Node::start().await, Ca::new("keel"), Ca::new("ours"));
    let mut client = asking(&ours);
    client["client"]["skip_mtls_uri_regex"] = json!(["."]);
    let names = [
        "protocol",
        "cipher",
        "server_name",
        "session_reused",
        "client_verify",
        "client_s_dn",
        "client_i_dn",
        "client_serial",
        "client_fingerprint",
        "client_escaped_cert",
    ];
    let headers: serde_json::Map<_, _> = names
        .iter()
        .map(|name| (format!("x-{}", name.replace('_', "-")), json!(format!("$ssl_{name}"))))
        .collect();
    let rewrite = json!({
        "uri": "/headers",
        "plugins": { "proxy-rewrite": { "headers": { "set": headers } } },
        "upstream": crate::to(&node.upstream),
    });
    node.has(&[
        ("routes/1", rewrite),
        ("ssls/1", ssl_with(&ca.server(&["shop.test"]), &["shop.test"], client)),
    ])
    .await;
    let friend = ours.client("friend");
    let anyone = node.as_name("shop.test");
    let ask = async |options: &Options| {
        let answer = get(options, "https://shop.test/headers").await.unwrap();
        assert_eq!(answer.status, 200);
        node.upstream.last()
    };
    let seen = ask(&showing(&anyone, &friend)).await;
    let header = |name: &str| seen.header(name).to_owned();
    assert_eq!((&*header("x-protocol"), &*header("x-cipher")), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"));
    assert_eq!((&*header("x-server-name"), &*header("x-session-reused")), ("shop.test", "."));
    assert_eq!((&*header("x-client-verify"), &*header("x-client-s-dn")), ("SUCCESS", "CN=friend"));
    assert_eq!(header("x-client-i-dn"), "CN=ours");
    let file = friend.write(node.home(), "friend").cert;
    let openssl = |args: &[&str]| {
        let output =
            std::process::Command::new("openssl").arg("x509").args(args).arg("-in").arg(&file).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(format!("serial={}", header("x-client-serial")), openssl(&["-noout", "-serial"]));
    let fingerprint = openssl(&["-noout", "-fingerprint", "-sha1"]).to_lowercase().replace(':', "");
    assert!(fingerprint.ends_with(&header("x-client-fingerprint")), "{fingerprint}");
    assert!(header("x-client-escaped-cert").starts_with("-----BEGIN%20CERTIFICATE-----%0AMI"));

    let seen = ask(&anyone).await;
    assert_eq!((seen.header("x-client-verify"), seen.header("x-client-s-dn")), ("NONE", ""));
    let seen = ask(&showing(&anyone, &Ca::new("foreign").client("foe"))).await;
    let verify = "FAILED:unable to get local issuer certificate";
    assert_eq!((seen.header("x-client-verify"), seen.header("x-client-s-dn")), (verify, "CN=foe"));
}
