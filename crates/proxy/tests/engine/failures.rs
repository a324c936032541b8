//! When an upstream, or the client, does not do its part.

use std::{net::SocketAddr, time::Duration};

use ::http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use testkit::{
    http::{self, Client, Options},
    ports,
    upstream::{Behaviour, Upstream},
    wait::eventually,
};

use crate::{Canned, Gateway, SOON, route};

#[tokio::test]
async fn errors_are_apisixs() {
    let nobody = ports::address().to_string();
    let gateway = Gateway::start(&[
        ("routes/1", json!({ "uri": "/dead", "upstream": { "type": "roundrobin", "nodes": { nobody: 1 } } })),
        ("routes/2", json!({ "uri": "/empty", "upstream": { "type": "roundrobin", "nodes": {} } })),
    ]);
    let missing = http::get(&gateway.url("/nowhere")).await.unwrap();
    assert_eq!((missing.status, &*missing.text()), (404, "{\"error_msg\":\"404 Route Not Found\"}\n"));
    let dead = http::get(&gateway.url("/dead")).await.unwrap();
    assert_eq!(dead.status, 502);
    assert!(dead.text().contains("<h1>502 Bad Gateway</h1>"), "{}", dead.text());
    let empty = http::get(&gateway.url("/empty")).await.unwrap();
    assert_eq!(empty.status, 503);
}

#[tokio::test]
async fn a_node_that_is_down_costs_no_request() {
    let (down, up) = (ports::address().to_string(), Upstream::start());
    let nodes = json!({ down: 1, up.node(): 1 });
    let gateway = Gateway::start(&[(
        "routes/1",
        json!({ "uri": "/*", "upstream": { "type": "roundrobin", "nodes": nodes } }),
    )]);
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    for _ in 0..10 {
        assert_eq!(client.get("/get").await.unwrap().status, 200);
        let posted = client.send(Method::POST, "/echo", &[], "body").await.unwrap();
        assert_eq!((posted.status, &*posted.text()), (200, "body"));
    }
}

#[tokio::test]
async fn a_connection_that_died_idle_costs_no_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    for round in 0..20 {
        assert_eq!(client.get("/get").await.unwrap().status, 200, "{round}");
        upstream.restart();
    }
    // What is not idempotent is not sent twice, so it must not be sent into a closed connection once.
    for round in 0..20 {
        let posted = client.send(Method::POST, "/anything", &[], "x").await.unwrap();
        assert_eq!(posted.status, 200, "{round}");
        upstream.restart();
        eventually(SOON, "the connection to be closed", async || match upstream.open() {
            0 => Ok(()),
            open => Err(open),
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_breaks_off_is_asked_again_elsewhere_only_if_that_is_harmless() {
    let (bad, good) = (Upstream::start(), Upstream::start());
    bad.behave(Behaviour::Cut(0));
    let upstream = json!({ "type": "roundrobin", "nodes": { bad.node(): 1, good.node(): 1 } });
    let gateway = Gateway::start(&[("routes/1", json!({ "uri": "/*", "upstream": upstream }))]);
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    for _ in 0..6 {
        assert_eq!(client.send(Method::PUT, "/anything", &[], "x").await.unwrap().status, 200);
        // The bad one may have taken the body; the good one gets all of it nevertheless.
        assert_eq!(good.last().body, "x");
    }
    // nginx's list of what is not: POST, PATCH, LOCK.
    for _ in 0..2 {
        assert_eq!(client.send("PURGE".parse().unwrap(), "/anything", &[], "x").await.unwrap().status, 200);
    }
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.send(Method::POST, "/anything", &[], "x").await.unwrap().status);
    }
    assert!(statuses.contains(&502) && statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn silence_is_answered_with_504() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Hang);
    let timeout = json!({ "connect": 0.3, "send": 0.3, "read": 0.3 });
    let hang = json!({ "type": "roundrobin", "nodes": { upstream.node(): 1 }, "timeout": timeout });
    let (_full, deaf) = deaf();
    let far = json!({ "type": "roundrobin", "nodes": { deaf: 1 }, "timeout": timeout });
    let gateway = Gateway::start(&[
        ("routes/1", json!({ "uri": "/hang", "upstream": hang })),
        ("routes/2", json!({ "uri": "/far", "upstream": far })),
    ]);
    let answer = http::get(&gateway.url("/hang")).await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("504 Gateway Time-out"));
    let answer = http::get(&gateway.url("/far")).await.unwrap();
    assert_eq!(answer.status, 504);
    eventually(SOON, "the silent connection to be given up", async || match upstream.open() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
}

/// An address where connecting is never answered: its queue is full. Open for as long as what it gives.
fn deaf() -> (Vec<Socket>, String) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut all = vec![listener];
    for _ in 0..4 {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        all.push(client);
    }
    (all, address.as_socket().unwrap().to_string())
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_off_as_whole() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Cut(5000));
    let gateway = Gateway::to(&upstream.node());
    let error = http::get(&gateway.url("/")).await.unwrap_err();
    assert!(format!("{error:#}").contains("broke off"), "{error:#}");
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_gateway() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"",
    ] {
        let canned = Canned::start(answer);
        let gateway = Gateway::to(&canned.node);
        let refused = http::get(&gateway.url("/")).await.unwrap();
        assert_eq!((refused.status, refused.header("x-apisix-upstream-status")), (502, "502"), "{answer:?}");
    }
}

/// What came before the end reaches the client, whichever way it was cut off.
#[tokio::test]
async fn what_came_before_a_break_is_passed_on() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ] {
        let canned = Canned::start(answer);
        let gateway = Gateway::to(&canned.node);
        for _ in 0..10 {
            let mut wire = gateway.wire();
            wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let rest = wire.rest();
            assert!(rest.starts_with("HTTP/1.1 200") && rest.contains("hello"), "{answer:?}: {rest}");
            assert!(!rest.ends_with("0\r\n\r\n"), "{answer:?}: {rest}");
            let options = Options { http2: true, ..Options::default() };
            let mut client = Client::connect_with(&gateway.url("/"), &options).await.unwrap();
            let request = ::http::Request::get(gateway.url("/")).body(Default::default()).unwrap();
            let mut body = client.send_raw(request).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "hello", "{answer:?}");
            assert!(body.frame().await.unwrap().is_err(), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| config.limits.body = 10);
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    assert_eq!(client.send(Method::POST, "/echo", &[], "0123456789").await.unwrap().status, 200);
    let refused = client.send(Method::POST, "/echo", &[], "0123456789x").await.unwrap();
    assert_eq!(refused.status, 413);
    let mut wire = gateway.wire();
    wire.say("POST /anything HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n");
    wire.say(&"x".repeat(32));
    wire.say("\r\n0\r\n\r\n");
    assert!(wire.until("\r\n").starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_along() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Hang);
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(SOON, "the request to arrive", async || match upstream.requests() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    drop(wire);
    eventually(SOON, "the upstream's connection to be closed", async || match upstream.open() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
}

#[test]
fn a_client_that_dawdles_is_let_go() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.timeouts.client_header = Duration::from_millis(200);
        config.timeouts.client_body = Duration::from_millis(200);
        config.timeouts.keepalive = Duration::from_millis(200);
    });
    let started = std::time::Instant::now();
    for start in ["", "GET / HTT"] {
        let mut wire = gateway.wire();
        wire.say(start);
        assert_eq!(wire.rest(), "", "{start:?}");
    }
    let mut wire = gateway.wire();
    wire.say("POST /anything HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    assert!(wire.rest().starts_with("HTTP/1.1 408"));
    let mut wire = gateway.wire();
    wire.say("GET /get HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(wire.rest().starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < Duration::from_secs(9));
    let gateway =
        Gateway::with(&[route(&upstream.node())], |config| config.timeouts.keepalive = Duration::ZERO);
    let mut wire = gateway.wire();
    wire.say("GET /bytes/3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = wire.rest();
    assert!(answer.contains("connection: close") && answer.len() > 3_000_000, "{}", answer.len());
}
