//! TLS with certificates from `ssls`, HTTP/2, WebSocket, and bodies that stream both ways.

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::certs::{Ca, Pair};
use testkit::gateway::{Gateway, SOON};
use testkit::http::{Client, Options, request_with, streamed};
use testkit::http3;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};
use testkit::ws;

use crate::{Node, to, to_with};

fn ssl(pair: &Pair, snis: &[&str]) -> Value {
    json!({ "cert": pair.cert, "key": pair.key, "snis": snis })
}

/// A client that knows one authority and asks for one name.
fn asking(node: &Node, ca: &Ca, name: &str) -> Options {
    let to = Some(([127, 0, 0, 1], node.ports().https).into());
    Options { to, ca: Some(ca.pem()), sni: Some(name.to_owned()), ..Options::default() }
}

async fn https(options: &Options) -> anyhow::Result<testkit::http::Response> {
    let name = options.sni.clone().unwrap();
    request_with(options, Method::GET, &format!("https://{name}/headers"), &[], "").await
}

#[tokio::test]
async fn certificates_come_and_go_with_their_resources() {
    let (node, upstream, ca) = (Node::start().await, Upstream::start(), Ca::new("keel"));
    let (exact, wild) = (ca.server(&["shop.test"]), ca.server(&["*.wild.test"]));
    node.has(&[
        ("routes/r", json!({ "uri": "/headers", "upstream": to(&[&upstream]) })),
        ("ssls/exact", ssl(&exact, &["shop.test"])),
        ("ssls/wild", ssl(&wild, &["*.wild.test"])),
    ])
    .await;
    for name in ["shop.test", "a.wild.test", "b.wild.test"] {
        let answer = https(&asking(&node, &ca, name)).await.unwrap();
        assert_eq!((answer.status, answer.version), (200, Version::HTTP_11), "{name}");
        let seen = upstream.last();
        let port = node.ports().https.to_string();
        assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), (name, "https"));
        assert_eq!(seen.header("x-forwarded-port"), port);
    }
    assert!(https(&asking(&node, &ca, "other.test")).await.is_err(), "no certificate for that name");
    assert!(https(&asking(&node, &ca, "a.b.wild.test")).await.is_err(), "one label, not two");

    // From another authority now: who knows only the first one is not fooled.
    let other = Ca::new("other");
    node.has(&[("ssls/exact", ssl(&other.server(&["shop.test"]), &["shop.test"]))]).await;
    assert!(https(&asking(&node, &ca, "shop.test")).await.is_err());
    assert_eq!(https(&asking(&node, &other, "shop.test")).await.unwrap().status, 200);
    node.delete("ssls/exact").await;
    node.settled().await;
    assert!(https(&asking(&node, &other, "shop.test")).await.is_err());
}

#[tokio::test]
async fn http3_is_spoken_where_it_is_asked_for_and_outlives_a_reload() {
    let gateway = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate"));
    let listen = json!([{ "ip": "127.0.0.1", "port": gateway.ports().https, "enable_http3": true }]);
    let mut gateway = gateway.with(json!({ "apisix": { "ssl": { "listen": listen } } }));
    gateway.start().await;
    let (mut node, upstream, ca) = (Node::of(gateway), Upstream::start(), Ca::new("keel"));
    node.has(&[
        ("routes/r", json!({ "uri": "/*", "upstream": to(&[&upstream]) })),
        ("ssls/1", ssl(&ca.server(&["shop.test"]), &["shop.test"])),
    ])
    .await;
    let address = ([127, 0, 0, 1], node.ports().https).into();
    let mut client = http3::Client::connect(address, "shop.test", &ca.pem()).await.unwrap();
    let answer = client.send(Method::POST, "/echo", vec![b'k'; 100_000].into()).await.unwrap();
    assert_eq!((answer.status, answer.version, answer.body.len()), (200, Version::HTTP_3, 100_000));
    assert_eq!((upstream.last().version, upstream.last().header("host")), (Version::HTTP_11, "shop.test"));

    let mut exchange = client.begin(Method::POST, "/echo").await.unwrap();
    exchange.write("before").await.unwrap();
    assert_eq!(exchange.head().await.unwrap().status(), 200);
    assert_eq!(exchange.read().await.unwrap().unwrap(), "before");
    node.gateway.merge_config(json!({ "apisix": { "show_upstream_status_in_response_header": true } }));
    node.gateway.reload();
    eventually(SOON, "a reload", async || {
        let answer = node.get("/headers").await.map_err(|error| format!("{error:#}"))?;
        expect(answer.header("x-apisix-upstream-status") == "200", answer.status)
    })
    .await;
    exchange.write("after").await.unwrap();
    exchange.end().await.unwrap();
    assert_eq!(exchange.read().await.unwrap().unwrap(), "after");
    assert!(exchange.read().await.unwrap().is_none());
    let mut other = http3::Client::connect(address, "shop.test", &ca.pem()).await.unwrap();
    assert_eq!(other.get("/headers").await.unwrap().status, 200);
}

#[tokio::test]
async fn http2_over_tls_with_many_requests_at_once() {
    let (node, upstream, ca) = (Node::start().await, Upstream::start(), Ca::new("keel"));
    node.has(&[
        ("routes/r", json!({ "uri": "/*", "host": "shop.test", "upstream": to(&[&upstream]) })),
        ("ssls/1", ssl(&ca.server(&["shop.test"]), &["shop.test"])),
    ])
    .await;
    let options = Options { http2: true, ..asking(&node, &ca, "shop.test") };
    let mut client = Client::connect_with("https://shop.test/", &options).await.unwrap();
    let slow = client.send_raw(Request::get("/delay/0.3").body(Bytes::new()).unwrap()).await;
    for size in [0, 1, 100_000] {
        let answer = client.send(Method::POST, "/echo", &[], vec![b'k'; size]).await.unwrap();
        assert_eq!((answer.status, answer.version, answer.body.len()), (200, Version::HTTP_2, size));
    }
    assert_eq!(slow.unwrap().status(), 200);
    assert_eq!((upstream.last().version, upstream.last().header("host")), (Version::HTTP_11, "shop.test"));
}

#[tokio::test]
async fn a_websocket_where_the_route_allows_one() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[
        ("routes/ws", json!({ "uri": "/ws", "enable_websocket": true, "upstream": to(&[&upstream]) })),
        ("routes/not", json!({ "uri": "/ws/not", "upstream": to(&[&upstream]) })),
    ])
    .await;
    let mut socket = ws::connect(&node.url("/ws")).await.unwrap();
    for text in ["one", "two", &"k".repeat(70_000)] {
        assert_eq!(socket.say(text).await.unwrap(), text);
    }
    // Whatever else changes, it goes on.
    node.delete("routes/ws").await;
    node.settled().await;
    assert_eq!(socket.say("three").await.unwrap(), "three");
    socket.send(ws::Opcode::Close, &[]).await.unwrap();
    assert_eq!(socket.recv().await.unwrap().0, ws::Opcode::Close);
    assert!(ws::connect(&node.url("/ws/not")).await.is_err(), "not without enable_websocket");
}

#[tokio::test]
async fn a_websocket_over_tls_on_both_sides() {
    let (node, ca) = (Node::start().await, Ca::new("keel"));
    let upstream = Upstream::tls(ca.server(&["127.0.0.1"]).server_config());
    let https = to_with(&[&upstream], json!({ "scheme": "https" }));
    node.has(&[
        ("routes/ws", json!({ "uri": "/ws", "enable_websocket": true, "upstream": https })),
        ("ssls/1", ssl(&ca.server(&["shop.test"]), &["shop.test"])),
    ])
    .await;
    let mut socket =
        ws::connect_with("https://shop.test/ws", &asking(&node, &ca, "shop.test")).await.unwrap();
    for text in ["one", "two", &"k".repeat(70_000)] {
        assert_eq!(socket.say(text).await.unwrap(), text);
    }
    socket.send(ws::Opcode::Close, b"").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().0, ws::Opcode::Close);
    assert!(socket.recv().await.is_err(), "the upstream's end is ours");
    eventually(SOON, "the tunnel to end", async || expect(upstream.open() == 0, upstream.open())).await;
}

#[tokio::test]
async fn a_websocket_may_be_silent_as_long_as_the_route_says() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let timeout = json!({ "connect": 5, "send": 5, "read": 1 });
    node.has(&[(
        "routes/ws",
        json!({ "uri": "/ws", "enable_websocket": true, "timeout": timeout, "upstream": to(&[&upstream]) }),
    )])
    .await;
    let mut socket = ws::connect(&node.url("/ws")).await.unwrap();
    let began = std::time::Instant::now();
    // Whatever is said begins the time anew.
    while began.elapsed() < std::time::Duration::from_millis(1500) {
        assert_eq!(socket.say("still there").await.unwrap(), "still there");
    }
    assert!(socket.recv().await.is_err());
    eventually(SOON, "the upstream to be told", async || expect(upstream.open() == 0, upstream.open())).await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/*", "upstream": to(&[&upstream]) }))]).await;
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    let (pieces, body) = streamed();
    pieces.send("one".into()).await.unwrap();
    // Each piece comes back before the next is sent: nobody on the way waits for the whole.
    let response = client.send_stream(Request::post("/echo").body(body).unwrap()).await.unwrap();
    let mut back = response.into_body();
    for (piece, next) in [("one", Some("two")), ("two", Some("three")), ("three", None)] {
        let frame = tokio::time::timeout(SOON, back.frame()).await.expect("a piece on its way");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
        if let Some(next) = next {
            pieces.send(next.into()).await.unwrap();
        }
    }
    drop(pieces);
    assert!(back.frame().await.is_none(), "and then the end");

    let size = 20_000_000;
    let answer = client.get(&format!("/bytes/{size}")).await.unwrap();
    assert_eq!(answer.body.len(), size);
    let answer = client.send(Method::POST, "/echo", &[], vec![b'k'; size]).await.unwrap();
    assert_eq!(answer.body.len(), size);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/*", "upstream": to(&[&upstream]) }))]).await;
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    let request = Request::get("/stream/100000?ms=10").body(Bytes::new()).unwrap();
    let response = client.send_raw(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let open = upstream.open();
    drop((response, client));
    eventually(SOON, "the upstream's connection closed", async || {
        expect(upstream.open() < open, upstream.open())
    })
    .await;
}

/// Whatever plugins make of a response, its body ends where its head says, and none follows a status that has none.
#[tokio::test]
async fn plugins_do_not_say_where_a_body_ends() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let rewrite = |path: &str, conf: Value| json!({ "uri": path, "upstream": to(&[&upstream]), "plugins": { "response-rewrite": conf } });
    node.has(&[
        ("routes/1", rewrite("/bytes/1000", json!({ "status_code": 204 }))),
        ("routes/2", rewrite("/bytes/1001", json!({ "status_code": 204, "body": "new" }))),
        ("routes/3", rewrite("/bytes/1002", json!({ "status_code": 304 }))),
        (
            "routes/4",
            rewrite("/bytes/1003", json!({ "headers": { "set": { "Transfer-Encoding": "chunked" } } })),
        ),
        ("routes/5", rewrite("/bytes/1004", json!({ "headers": { "Content-Length": "3" } }))),
        ("routes/6", rewrite("/status/404", json!({ "body": "new" }))),
    ])
    .await;
    for http2 in [false, true] {
        let options = Options { http2, ..Options::default() };
        let mut client = Client::connect_with(&node.url("/"), &options).await.unwrap();
        for (method, path, status, length) in [
            (Method::GET, "/bytes/1000", 204, 0),
            (Method::GET, "/bytes/1001", 204, 0),
            (Method::GET, "/bytes/1002", 304, 0),
            (Method::GET, "/bytes/1003", 200, 1003),
            (Method::GET, "/bytes/1004", 200, 1004),
            (Method::GET, "/status/404", 404, 3),
            (Method::HEAD, "/status/404", 404, 0),
            (Method::HEAD, "/nowhere", 404, 0),
        ] {
            let answer = client.send(method, path, &[], "").await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (status, length), "{http2} {path}");
            assert!(
                status != 204 || answer.header("content-length").is_empty(),
                "{http2} {path}: {answer:?}"
            );
        }
    }
}
