//! HTTP/3 from clients.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use testkit::{
    certs::Ca,
    http3::Client,
    upstream::{Behaviour, Upstream},
    wait::{eventually, expect},
};

use crate::{Gateway, route};

const SOON: Duration = Duration::from_secs(10);

fn ssl(ca: &Ca, name: &str) -> Value {
    let pair = ca.server(&[name]);
    json!({ "cert": pair.cert, "key": pair.key, "snis": [name] })
}

/// A gateway with a route for everything and a certificate for `a.test`, and where it speaks QUIC.
fn gateway(upstream: &Upstream, ca: &Ca) -> (Gateway, SocketAddr) {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    let resources = [route(&upstream.node()), ("ssls/1", ssl(ca, "a.test"))];
    (Gateway::with(&resources, |config| config.quic.push(address)), address)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_through_as_with_the_other_versions() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (_gateway, address) = gateway(&upstream, &ca);
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    let answer = client.get("/get?a=1").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(!answer.header("date").is_empty() && !answer.headers.contains_key("connection"));
    let seen = upstream.last();
    for (name, value) in [
        ("host", "a.test"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-port", &*address.port().to_string()),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(!seen.headers.contains_key("transfer-encoding"), "a request without a body has none");
    for size in [0, 1, 100_000, 3_000_000] {
        let answer = client.get(&format!("/bytes/{size}")).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, size));
        let body = Bytes::from(vec![b'k'; size]);
        let echo = client.send(Method::POST, "/echo", body.clone()).await.unwrap();
        assert!(echo.body == body, "{size}: {}", echo.body.len());
    }
    assert_eq!(client.send(Method::HEAD, "/bytes/5", Bytes::new()).await.unwrap().body.len(), 0);
    assert_eq!(client.get("/a/../../b").await.unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_malformed_is_no_request() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (_gateway, address) = gateway(&upstream, &ca);
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    for fields in [
        &[("content-length", "3"), ("content-length", "4")][..],
        &[("content-length", "+3")],
        &[("content-length", "")],
        &[("connection", "close")],
        &[("keep-alive", "x")],
        &[("proxy-connection", "x")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
    ] {
        let mut request = http::Request::post("https://a.test/anything").body(()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let mut exchange = client.begin_with(request).await.unwrap();
        // The library ends the connection over the end of a stream whose other side wants nothing more.
        if exchange.write("abc").await.is_ok() {
            let _ = exchange.end().await;
        }
        assert!(exchange.head().await.is_err(), "{fields:?}");
    }
    assert_eq!(upstream.requests(), 0);
    // It costs its request alone.
    let mut request = http::Request::post("https://a.test/anything").body(()).unwrap();
    for (name, value) in [("content-length", "3"), ("content-length", "3"), ("te", "trailers")] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let mut exchange = client.begin_with(request).await.unwrap();
    exchange.write("abc").await.unwrap();
    exchange.end().await.unwrap();
    assert_eq!(exchange.head().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_a_response_loses_it() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    let resources = [route(&upstream.node()), ("ssls/1", ssl(&ca, "a.test"))];
    let _gateway = Gateway::with(&resources, |config| {
        config.quic.push(address);
        config.timeouts.send = Duration::from_millis(50);
    });
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    let mut exchange = client.begin(Method::GET, "/bytes/90000000").await.unwrap();
    exchange.end().await.unwrap();
    assert_eq!(exchange.head().await.unwrap().status(), 200);
    eventually(SOON, "the upstream's connection to be closed", async || {
        expect(upstream.open() == 0, upstream.open())
    })
    .await;
    assert_eq!(client.get("/get").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_streams_both_ways_at_once() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (_gateway, address) = gateway(&upstream, &ca);
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    let mut exchange = client.begin(Method::POST, "/echo").await.unwrap();
    exchange.write("one").await.unwrap();
    assert_eq!(exchange.head().await.unwrap().status(), 200);
    assert_eq!(exchange.read().await.unwrap().unwrap(), "one");
    exchange.write("two").await.unwrap();
    assert_eq!(exchange.read().await.unwrap().unwrap(), "two");
    exchange.end().await.unwrap();
    assert!(exchange.read().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_the_plans_unless_they_ask_for_more() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (mut gateway, address) = gateway(&upstream, &ca);
    let connect = async |name: &str| Client::connect(address, name, &ca.pem()).await;
    assert!(connect("b.test").await.is_err());
    gateway.change(&[("ssls/2", ssl(&ca, "b.test"))]);
    let mut client = connect("b.test").await.unwrap();
    assert_eq!(client.get("/get").await.unwrap().status, 200);
    let mut asking = ssl(&ca, "b.test");
    asking["client"] = json!({ "ca": ca.pem() });
    gateway.change(&[("ssls/2", asking)]);
    assert!(connect("b.test").await.is_err(), "who asks clients for certificates is not there without");
    connect("a.test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_outlive_reloads_and_end_with_their_requests() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (mut gateway, address) = gateway(&upstream, &ca);
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    for workers in [4, 1, 2] {
        let mut config = gateway.config.clone();
        config.workers = workers;
        gateway.reconfigure(config).unwrap();
        assert_eq!(client.get("/get").await.unwrap().status, 200);
    }
    // No longer listened for: who is there stays, and nobody else comes.
    let mut config = gateway.config.clone();
    config.quic.clear();
    gateway.reconfigure(config).unwrap();
    assert_eq!(client.get("/get").await.unwrap().status, 200);
    let pem = ca.pem();
    let other = tokio::time::timeout(Duration::from_secs(1), Client::connect(address, "a.test", &pem)).await;
    assert!(!matches!(other, Ok(Ok(_))), "it was let in");

    upstream.behave(Behaviour::Slow(Duration::from_millis(500)));
    let before = upstream.requests();
    let slow = tokio::spawn(async move { (client.get("/get").await, client) });
    eventually(SOON, "the request", async || expect(upstream.requests() > before, upstream.requests())).await;
    let end = gateway.drain();
    let (answer, client) = slow.await.unwrap();
    assert_eq!(answer.unwrap().status, 200);
    eventually(SOON, "the connection to end", async || expect(client.is_closed(), "open")).await;
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_takes_its_requests_along() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (_gateway, address) = gateway(&upstream, &ca);
    upstream.behave(Behaviour::Hang);
    let mut client = Client::connect(address, "a.test", &ca.pem()).await.unwrap();
    let mut exchange = client.begin(Method::GET, "/get").await.unwrap();
    exchange.end().await.unwrap();
    eventually(SOON, "the request", async || expect(upstream.requests() == 1, upstream.requests())).await;
    drop((exchange, client));
    eventually(SOON, "the upstream's connection to be closed", async || {
        expect(upstream.open() == 0, upstream.open())
    })
    .await;
}

#[test]
fn a_port_that_is_taken_is_told() {
    let (upstream, ca) = (Upstream::start(), Ca::new("test"));
    let (mut gateway, _) = gateway(&upstream, &ca);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = gateway.config.clone();
    config.quic.push(taken.local_addr().unwrap());
    let error = gateway.reconfigure(config).unwrap_err();
    assert!(error.to_string().contains("can't listen on 127.0.0.1"), "{error}");
}
