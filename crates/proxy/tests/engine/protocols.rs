//! TLS, HTTP/2 and WebSocket.

use std::{net::Ipv4Addr, time::Duration};

use http::Method;
use proxy::engine::Listener;
use serde_json::json;
use testkit::{
    certs::Ca,
    http::{Client, Options},
    upstream::Upstream,
    wait::eventually,
    ws,
};

use crate::{Gateway, route};

#[tokio::test]
async fn the_certificate_follows_the_name_and_the_configuration() {
    let upstream = Upstream::start();
    let ca = Ca::new("test");
    let ssl = |names: &[&str]| {
        let pair = ca.server(names);
        json!({ "cert": pair.cert, "key": pair.key, "snis": names })
    };
    let address = (Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    let mut gateway = Gateway::with(&[route(&upstream.node()), ("ssls/1", ssl(&["a.test"]))], |config| {
        config.listeners.push(Listener { tls: true, http2: true, ..Listener::at(address) });
    });
    let options = |sni: &str, http2| Options {
        to: Some(address),
        http2,
        sni: Some(sni.to_owned()),
        ca: Some(ca.pem()),
        ..Options::default()
    };
    for http2 in [false, true] {
        let mut client = Client::connect_with("https://a.test/", &options("a.test", http2)).await.unwrap();
        for size in [10, 1_000_000] {
            let response = client.get(&format!("/bytes/{size}")).await.unwrap();
            assert_eq!((response.status, response.body.len()), (200, size));
        }
        let echo = client.send(Method::POST, "/echo", &[], vec![b'x'; 300_000]).await.unwrap();
        assert_eq!(echo.body.len(), 300_000);
        let seen = upstream.last();
        assert_eq!((seen.header("x-forwarded-proto"), seen.header("host")), ("https", "a.test"));
    }
    assert!(Client::connect_with("https://b.a.test/", &options("b.a.test", false)).await.is_err());
    gateway.change(&[("ssls/2", ssl(&["*.a.test"]))]);
    Client::connect_with("https://b.a.test/", &options("b.a.test", true)).await.unwrap();
}

#[tokio::test]
async fn http2_without_tls_is_known_by_its_preface() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let options = Options { http2: true, ..Options::default() };
    let mut client = Client::connect_with(&gateway.url("/"), &options).await.unwrap();
    let headers = [("cookie", "a=1"), ("cookie", "b=2")];
    let response = client.send(Method::GET, "/get", &headers, "").await.unwrap();
    assert_eq!((response.status, response.version), (200, http::Version::HTTP_2));
    let seen = upstream.last();
    assert_eq!((seen.header("cookie"), seen.version), ("a=1; b=2", http::Version::HTTP_11));
    let refused = client.get("/nowhere/../../x").await.unwrap();
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn an_upstream_may_speak_tls() {
    let pair = Ca::new("test").server(&["localhost"]);
    let upstream = Upstream::tls(pair.server_config());
    let node = json!({ "type": "roundrobin", "scheme": "https", "nodes": { upstream.node(): 1 } });
    let gateway = Gateway::start(&[("routes/1", json!({ "uri": "/*", "upstream": node }))]);
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    for size in [1, 200_000] {
        let response = client.get(&format!("/bytes/{size}")).await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, size));
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_websocket_goes_through_where_the_route_allows_it() {
    let upstream = Upstream::start();
    let mut value = route(&upstream.node()).1;
    value["enable_websocket"] = json!(true);
    let mut gateway = Gateway::start(&[("routes/1", value)]);
    let mut socket = ws::connect(&gateway.url("/ws")).await.unwrap();
    assert_eq!(socket.say("hello").await.unwrap(), "hello");
    let long = "x".repeat(100_000);
    assert_eq!(socket.say(&long).await.unwrap(), long);
    drop(socket);
    eventually(Duration::from_secs(10), "the tunnel to end", async || match upstream.open() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
    gateway.change(&[route(&upstream.node())]);
    assert!(ws::connect(&gateway.url("/ws")).await.is_err());
}
