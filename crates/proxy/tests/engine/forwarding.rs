//! What a request looks like on the other side, and a response on the way back.

use bytes::Bytes;
use http::{Method, Request};
use serde_json::json;
use testkit::{
    http::{Client, full, streamed},
    upstream::Upstream,
};

use crate::{Canned, Gateway, route};

#[tokio::test]
async fn the_upstream_is_told_who_asked_and_how() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    let headers = [
        ("x-own", "1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "gopher"),
        ("x-real-ip", "10.0.0.2"),
        ("forwarded", "for=10.0.0.3"),
        ("connection", "keep-alive, x-secret"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
    ];
    let response = client.send(Method::GET, "/get?a=%2F&b", &headers, "").await.unwrap();
    assert_eq!(response.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.uri, "/get?a=%2F&b");
    let address = gateway.address.to_string();
    let port = gateway.address.port().to_string();
    for (name, value) in [
        ("host", &*address),
        ("x-own", "1"),
        ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", &address),
        ("x-forwarded-port", &port),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    for name in
        ["forwarded", "connection", "x-secret", "keep-alive", "te", "proxy-connection", "upgrade", "via"]
    {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_trusted_peer_is_believed() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    let headers = [("x-forwarded-proto", "https"), ("x-forwarded-for", "10.0.0.1")];
    client.send(Method::GET, "/get", &headers, "").await.unwrap();
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-forwarded-for"), "10.0.0.1, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-host"), gateway.address.to_string());
}

#[tokio::test]
async fn host_is_the_clients_the_nodes_or_another() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::to(&upstream.node());
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    let node = upstream.node();
    for (extra, host) in [
        (json!({}), "shop.test"),
        (json!({ "pass_host": "node" }), &*node),
        (json!({ "pass_host": "rewrite", "upstream_host": "other.test:81" }), "other.test:81"),
    ] {
        let mut value = json!({ "type": "roundrobin", "nodes": { &node: 1 } });
        for (name, field) in extra.as_object().unwrap() {
            value[name] = field.clone();
        }
        gateway.change(&[("routes/1", json!({ "uri": "/*", "upstream": value }))]);
        client.send(Method::GET, "/get", &[("host", "shop.test")], "").await.unwrap();
        assert_eq!(upstream.last().header("host"), host);
        assert_eq!(upstream.last().header("x-forwarded-host"), "shop.test");
    }
}

#[tokio::test]
async fn bodies_go_through_whatever_their_size_and_framing() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    for size in [0, 1, 8191, 8192, 65_536, 100_000, 3_000_000] {
        let response = client.get(&format!("/bytes/{size}")).await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, size));
        let body = vec![b'x'; size];
        let response = client.send(Method::POST, "/echo", &[], body.clone()).await.unwrap();
        assert!(response.body == body, "{size}: {}", response.body.len());
    }
    let response = client.get("/stream/20?ms=1").await.unwrap();
    assert_eq!(response.text().lines().count(), 20);
    assert_eq!(upstream.open(), 1, "one connection serves them all");
}

#[tokio::test]
async fn a_body_streams_both_ways_at_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    let (sender, body) = streamed();
    let request = Request::post(gateway.url("/echo")).body(body).unwrap();
    sender.send(Bytes::from_static(b"ping")).await.unwrap();
    let response = client.send_stream(request).await.unwrap();
    let mut body = response.into_body();
    let first = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "ping");
    sender.send(Bytes::from_static(b"pong")).await.unwrap();
    let second = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "pong");
    drop(sender);
    assert!(http_body_util::BodyExt::frame(&mut body).await.is_none());
    let _ = full(Bytes::new());
}

#[test]
fn chunks_become_a_body_by_length_or_by_the_end_for_old_clients() {
    let canned = Canned::start(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n\
          5\r\nhello\r\n0\r\n\r\n",
    );
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.until("\r\n\r\n");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(!head.to_lowercase().contains("x-hop") && !head.contains("connection"), "{head}");
    assert_eq!(wire.until("0\r\n\r\n"), "5\r\nhello\r\n0\r\n\r\n");
    wire.say("GET / HTTP/1.0\r\n\r\n");
    let rest = wire.rest();
    assert!(rest.ends_with("\r\n\r\nhello") && !rest.contains("chunked"), "{rest}");
}

#[test]
fn answers_without_a_body_have_none() {
    let canned = Canned::start(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"1\"\r\n\r\n");
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    for method in ["GET", "HEAD"] {
        wire.say(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = wire.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 304") && head.contains("etag: \"1\""), "{head}");
    }
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    wire.say("HEAD /bytes/10 HTTP/1.1\r\nHost: a\r\n\r\nGET /status/204 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(wire.until("\r\n\r\n").contains("content-length: 10\r\n"));
    assert!(wire.until("\r\n\r\n").starts_with("HTTP/1.1 204"));
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    wire.say("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(wire.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    wire.say("hi");
    assert!(wire.until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert_eq!(wire.until("hi"), "hi");
}

#[test]
fn interim_answers_are_passed_over() {
    let canned = Canned::start(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = wire.rest();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let head = canned.head();
    assert!(head.starts_with("GET / HTTP/1.1\r\nhost: a\r\n"), "{head}");
}

#[test]
fn requests_one_after_the_other_without_waiting_are_answered_in_order() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    let request = |n: usize| format!("GET /anything/{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.say(&(1..=20).map(request).collect::<String>());
    for n in 1..=20 {
        assert!(wire.until(&format!("/anything/{n}\"")).contains("HTTP/1.1 200"), "{n}");
    }
}

#[test]
fn what_two_parties_could_read_differently_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ] {
        let mut wire = gateway.wire();
        wire.say(request);
        let answer = wire.until("\r\n");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer:?}");
    }
    assert_eq!(upstream.requests(), 0);
    // Length and chunks together: read as chunks, and the length goes no further.
    let mut wire = gateway.wire();
    wire.say("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    wire.until("hi");
    assert!(!upstream.last().headers.contains_key("content-length"));
}
