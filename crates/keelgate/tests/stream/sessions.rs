//! Ends, resets, silence, TLS and the PROXY protocol.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::certs::Ca;
use testkit::echo::{Echo, Line, say, say_tls};
use testkit::http::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::*;

#[tokio::test]
async fn every_byte_comes_through_and_each_side_ends_alone() {
    let echo = Echo::tcp();
    let node = Node::start().await;
    node.has(&[("stream_routes/1", json!({ "upstream": to(&[&echo]) }))]).await;
    // More than all buffers on the way hold: the client must be held up, and nothing may be lost.
    let much = "0123456789abcdef".repeat(1 << 18);
    let (mut reading, mut writing) = tokio::net::TcpStream::connect(node.tcp).await.unwrap().into_split();
    let sending = much.clone();
    let sender = tokio::spawn(async move {
        writing.write_all(sending.as_bytes()).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    let mut heard = String::new();
    reading.read_to_string(&mut heard).await.unwrap();
    sender.await.unwrap();
    assert!(heard == answer(&echo, &much), "{} bytes of {}", heard.len(), much.len());
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let listener = TcpListener::bind(ports::address()).await.unwrap();
    let node = Node::start().await;
    let upstream =
        json!({ "type": "roundrobin", "nodes": { listener.local_addr().unwrap().to_string(): 1 } });
    node.has(&[("stream_routes/1", json!({ "upstream": upstream }))]).await;
    for who in ["client", "node"] {
        let mut line = Line::open(node.tcp).await.unwrap();
        line.0.write_all(b"hello").await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        let (breaks, mut feels) = if who == "client" { (line.0, far) } else { (far, line.0) };
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        let felt = tokio::time::timeout(SOON, feels.read(&mut [0; 1])).await.expect("the end comes");
        assert_eq!(felt.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "the {who} broke it");
    }
}

#[tokio::test]
async fn a_session_that_is_silent_for_too_long_ends() {
    let echo = Echo::tcp();
    let node = Node::start().await;
    let timeout = json!({ "timeout": { "connect": 2, "send": 2, "read": 2 } });
    node.has(&[("stream_routes/1", json!({ "upstream": to_with(&[&echo], timeout) }))]).await;
    let mut line = Line::open(node.tcp).await.unwrap();
    line.expect(&format!("{}|", echo.port())).await.unwrap();
    let began = Instant::now();
    // As long as it is not silent, the limit says nothing.
    while began.elapsed() < Duration::from_millis(2500) {
        line.hears("still there?").await.unwrap();
    }
    let silent = Instant::now();
    let mut rest = String::new();
    tokio::time::timeout(SOON, line.0.read_to_string(&mut rest)).await.expect("the end comes").unwrap();
    assert!(silent.elapsed() >= Duration::from_millis(1900), "{:?}", silent.elapsed());
}

#[tokio::test]
async fn nodes_are_spoken_to_over_tls() {
    let (ca, other) = (Ca::new("nodes"), Ca::new("others"));
    let echo = Echo::tls(ca.server(&["a.test", "127.0.0.1"]).server_config());
    let strict = Echo::tls(ca.server(&["a.test"]).server_config_for(&other));
    let node = Node::start().await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = ca.write(folder.path(), "ca");
    drop(node);
    let conf = json!({ "apisix": { "ssl": { "ssl_trusted_certificate": trusted } } });
    let node = Node::with(conf).await;
    let pair = Ca::new("front").server(&["a.test", "b.test"]);
    let tls = |echo: &Echo, more: Value| {
        let mut upstream = to_with(&[echo], json!({ "scheme": "tls" }));
        merge(&mut upstream, more);
        upstream
    };
    let verified = tls(&echo, json!({ "tls": { "verify": true } }));
    node.has(&[
        ("ssls/1", json!({ "cert": pair.cert, "key": pair.key, "snis": ["a.test", "b.test"] })),
        ("stream_routes/1", json!({ "sni": "*.test", "upstream": verified })),
        ("stream_routes/2", json!({ "upstream": tls(&echo, json!({})) })),
    ])
    .await;
    let said = async |name| say_tls(node.tls, name, &Options::default(), "x").await.unwrap_or_default();
    let port = echo.port();
    // The client's name goes on, and is what the node's certificate must be for.
    assert_eq!(said("a.test").await, format!("{port}|a.test|x|end"));
    assert_eq!(said("b.test").await, "");
    assert_eq!(say(node.tcp, "y").await.unwrap(), format!("{port}|apisix_backend|y|end"));

    // A node that asks who we are.
    let own = other.client("keel");
    let shown = json!({ "tls": { "client_cert": own.cert, "client_key": own.key } });
    node.has(&[("stream_routes/2", json!({ "upstream": tls(&strict, shown) }))]).await;
    assert_eq!(say(node.tcp, "z").await.unwrap(), format!("{}|apisix_backend|z|end", strict.port()));
}

#[tokio::test]
async fn clients_show_certificates_where_they_must() {
    let (echo, clients) = (Echo::tcp(), Ca::new("clients"));
    let node = Node::start().await;
    let pair = Ca::new("front").server(&["a.test"]);
    let asking =
        json!({ "cert": pair.cert, "key": pair.key, "snis": ["a.test"], "client": { "ca": clients.pem() } });
    node.has(&[("ssls/1", asking), ("stream_routes/1", json!({ "upstream": to(&[&echo]) }))]).await;
    let with = |client| Options { client, ..Options::default() };
    let known = say_tls(node.tls, "a.test", &with(Some(clients.client("jack"))), "x").await;
    assert_eq!(known.unwrap(), answer(&echo, "x"));
    let strange = Some(Ca::new("strangers").client("jack"));
    for options in [with(None), with(strange)] {
        let said = say_tls(node.tls, "a.test", &options, "x").await;
        assert_eq!(said.unwrap_or_default(), "");
    }
}

#[tokio::test]
async fn the_proxy_protocol_is_heard_and_spoken() {
    let echo = Echo::tcp();
    let [both, hears, speaks] = std::array::from_fn(|_| ports::address());
    let tcp = json!([
        { "addr": both.to_string() },
        { "addr": hears.to_string(), "proxy_protocol_to_upstream": false },
        { "addr": speaks.to_string(), "proxy_protocol": false },
    ]);
    let mut node = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate")).with(json!({
        "apisix": {
            "proxy_mode": "stream", "stream_proxy": { "tcp": tcp },
            "proxy_protocol": { "enable_tcp_pp": true, "enable_tcp_pp_to_upstream": true },
        },
        "nginx_config": { "stream": { "real_ip_from": ["127.0.0.0/8"] } },
    }));
    node.start().await;
    // First, so that it is in force when the other one is.
    node.put("stream_routes/2", &json!({ "server_port": speaks.port(), "upstream": to(&[&echo]) })).await;
    let route = json!({ "remote_addr": "10.9.8.7", "upstream": to(&[&echo]) });
    node.put("stream_routes/1", &route).await;
    let header = format!("PROXY TCP4 10.9.8.7 10.0.0.1 4711 {}\r\n", both.port());
    let rebuilt = format!("PROXY TCP4 10.9.8.7 127.0.0.1 4711 {}\r\n", both.port());
    eventually(SOON, "the route in force", async || {
        let said = say(both, &format!("{header}hello")).await.unwrap_or_default();
        expect(said == answer(&echo, &format!("{rebuilt}hello")), said)
    })
    .await;
    assert_eq!(say(hears, &format!("{header}hello")).await.unwrap(), answer(&echo, "hello"));
    assert_eq!(say(hears, "there is no header here").await.unwrap_or_default(), "");
    let said = say(speaks, "hello").await.unwrap();
    let line = said.strip_prefix(&format!("{}|", echo.port())).unwrap().split("\r\n").next().unwrap();
    assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{said}");
    // Streams alone: nothing listens for HTTP.
    assert!(node.get("/").await.is_err());
}
