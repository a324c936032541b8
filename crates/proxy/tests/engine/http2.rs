//! HTTP/2 from clients: how it is recognised, and what a client may not do with it.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use testkit::{
    http::Client,
    upstream::{Behaviour, Upstream},
    wait::{eventually, expect},
};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{Canned, Gateway, route, strict::Strict};

const SOON: Duration = Duration::from_secs(10);

/// A connection that does whatever it is told, and how it ended.
async fn connect(gateway: &Gateway) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(gateway: &Gateway, path: &str) -> Request<()> {
    Request::get(gateway.url(path)).body(()).unwrap()
}

#[test]
fn an_upgrade_to_it_is_passed_over() {
    let upstream = Upstream::start();
    let mut value = route(&upstream.node()).1;
    value["enable_websocket"] = true.into();
    let gateway = Gateway::start(&[("routes/1", value)]);
    let mut wire = gateway.wire();
    wire.say("GET /get HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    wire.say("HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    assert!(wire.until("\r\n").starts_with("HTTP/1.1 200"));
    assert!(!upstream.last().headers.contains_key("upgrade"));
}

/// Only a WebSocket is passed on, whatever else the client would take, and only a WebSocket comes of it.
#[tokio::test]
async fn no_upgrade_leads_past_us() {
    let with_websocket = |node: &str| {
        let mut value = route(node).1;
        value["enable_websocket"] = true.into();
        Gateway::start(&[("routes/1", value)])
    };
    let upstream = Strict::start();
    let gateway = with_websocket(&upstream.node);
    for (upgrade, passed) in [
        ("Upgrade: h2c", false),
        ("Upgrade: h2c;x", false),
        ("Upgrade: h2c/1", false),
        ("Upgrade: h2", false),
        ("Upgrade: TLS/1.0", false),
        ("Upgrade: websocketx, h2c", false),
        ("Upgrade: websocket, h2c", true),
        ("Upgrade: h2c, WebSocket", true),
        ("Upgrade: h2c\r\nUpgrade: websocket", true),
    ] {
        let mut wire = gateway.wire();
        wire.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
        wire.say(&format!("{upgrade}\r\n\r\n"));
        assert!(wire.until("ok").starts_with("HTTP/1.1 200"), "{upgrade}");
        let head = upstream.last().head;
        assert!(!head.contains("h2c") && !head.contains("http2-settings"), "{upgrade}: {head}");
        assert_eq!(head.contains("upgrade: websocket\r\n"), passed, "{upgrade}: {head}");
    }
    for chosen in ["h2c", "websocket, h2c", "websocket\r\nUpgrade: h2c", "x", ""] {
        let answer =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n");
        let canned = Canned::start(answer.leak().as_bytes());
        let gateway = with_websocket(&canned.node);
        let mut wire = gateway.wire();
        wire.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n");
        let answer = wire.until("\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 502"), "{chosen}: {answer}");
    }
}

/// Whoever leaves no room for a response is let go, and the upstream with it.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_a_response_loses_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.timeouts.send = Duration::from_millis(50);
        // One pool: the connection that the second round takes is the one that the first has left.
        config.workers = 1;
    });
    for window in [0, 20_000] {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) =
            builder.initial_window_size(window).handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let (answer, _) = sender.send_request(get(&gateway, "/bytes/9000000"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        eventually(SOON, "the upstream's connection to be closed", async || {
            expect(upstream.open() == 0, upstream.open())
        })
        .await;
        let ended = async {
            while let Some(data) = body.data().await {
                data?;
            }
            Ok::<_, h2::Error>(())
        };
        let ended = tokio::time::timeout(SOON, ended).await.expect("the end of the stream");
        assert!(ended.is_err_and(|error| error.is_reset()), "{window}");
        // The connection goes on.
        let (answer, _) = sender.send_request(get(&gateway, "/bytes/0"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[test]
fn a_method_that_begins_like_its_preface_is_none() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    for piece in ["P", "R", "OPFIND /anything HTTP/1.1\r\nHost: a\r\n\r\n"] {
        wire.say(piece);
    }
    assert!(wire.until("\r\n").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_has_said_nothing_yet_holds_up_no_end() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.timeouts.shutdown = Duration::from_secs(600);
    });
    let mut wire = gateway.wire();
    eventually(SOON, "the connection", async || {
        let active = gateway.shared.status.totals().active;
        expect(active == 1, active)
    })
    .await;
    let end = gateway.drain();
    assert_eq!(wire.rest(), "");
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_requests_at_once_and_no_more() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Hang);
    let gateway = Gateway::to(&upstream.node());
    let (mut sender, _) = connect(&gateway).await;
    let mut answers = Vec::new();
    for _ in 0..128 {
        sender = sender.ready().await.unwrap();
        answers.push(sender.send_request(get(&gateway, "/get"), true).unwrap().0);
    }
    eventually(SOON, "all of them", async || expect(upstream.requests() == 128, upstream.requests())).await;
    assert_eq!(sender.current_max_send_streams(), 128);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_requests_only_to_take_them_back_is_let_go() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Hang);
    let gateway = Gateway::to(&upstream.node());
    let mut patient = Client::connect(&gateway.url("/")).await.unwrap();
    let (mut sender, end) = connect(&gateway).await;
    let mut opened = 0;
    while opened < 20_000 {
        match poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => {}
            Err(_) => break,
        }
        let Ok((answer, _)) = sender.send_request(get(&gateway, "/get"), true) else { break };
        opened += 1;
        drop(answer);
        tokio::task::yield_now().await;
    }
    assert!(opened < 20_000, "it may go on for ever");
    assert!(end.await.unwrap().is_err());
    upstream.behave(Behaviour::Answer);
    assert_eq!(patient.get("/get").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_costs_only_its_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let (mut sender, _) = connect(&gateway).await;
    let mut large = get(&gateway, "/get");
    for number in 0..40 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        large.headers_mut().insert(name, "k".repeat(1000).parse().unwrap());
    }
    let (answer, _) = sender.send_request(large, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 431);
    let (answer, _) = sender.send_request(get(&gateway, "/get"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_before_it_is_closed() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.timeouts.keepalive = Duration::from_millis(200);
    });
    let (mut sender, end) = connect(&gateway).await;
    let (answer, _) = sender.send_request(get(&gateway, "/get"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    drop(sender.clone());
    let end = tokio::time::timeout(SOON, end).await.expect("the end of the connection").unwrap();
    assert!(end.is_ok(), "it ends as it should: {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_sends_and_nobody_takes_holds_up_no_other() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let (mut sender, _) = connect(&gateway).await;
    upstream.behave(Behaviour::Hang);
    let mut unread = Vec::new();
    for _ in 0..16 {
        let post = Request::post(gateway.url("/echo")).body(()).unwrap();
        sender = sender.ready().await.unwrap();
        let (answer, mut body) = sender.send_request(post, false).unwrap();
        body.send_data(vec![0; 8 << 20].into(), true).unwrap();
        unread.push((answer, body));
    }
    eventually(SOON, "all of them", async || expect(upstream.requests() == 16, upstream.requests())).await;
    upstream.behave(Behaviour::Answer);
    let (answer, _) = sender.send_request(get(&gateway, "/get"), true).unwrap();
    assert_eq!(tokio::time::timeout(SOON, answer).await.expect("an answer").unwrap().status(), 200);
}
