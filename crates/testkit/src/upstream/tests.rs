use super::*;
use crate::certs::Ca;
use crate::http::{Client, Options, get, request, streamed};
use crate::ws;
use http::Request;
use http_body_util::BodyExt;

#[tokio::test]
async fn answers_as_httpbin_does() {
    let upstream = Upstream::named("one");
    assert_eq!(get(&upstream.url("/ip")).await.unwrap().json()["origin"], "127.0.0.1");
    let echo =
        request(Method::POST, &upstream.url("/anything/x?a=1"), &[("X-My-Word", "keel")], "{\"b\":2}").await;
    let echo = echo.unwrap();
    assert_eq!(echo.json()["headers"]["X-My-Word"], "keel");
    assert_eq!(echo.json()["json"]["b"], 2);
    assert_eq!(echo.json()["args"]["a"], "1");
    assert_eq!(echo.header("x-upstream"), "one");
    assert_eq!(get(&upstream.url("/status/418")).await.unwrap().status, 418);
    assert_eq!(get(&upstream.url("/bytes/100000")).await.unwrap().body.len(), 100_000);
    assert_eq!(get(&upstream.url("/stream/3?ms=1")).await.unwrap().text(), "line 0\nline 1\nline 2\n");
    assert_eq!(upstream.requests(), 5);
    assert_eq!(upstream.seen()[1].uri, "/anything/x?a=1");
}

#[tokio::test]
async fn a_kept_connection_counts_once_and_http2_is_spoken_too() {
    let upstream = Upstream::start();
    let mut client = Client::connect(&upstream.url("/")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/ip").await.unwrap().status, 200);
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 3));
    let options = Options { http2: true, ..Options::default() };
    let mut client = Client::connect_with(&upstream.url("/"), &options).await.unwrap();
    assert_eq!(client.get("/ip").await.unwrap().version, Version::HTTP_2);
}

#[tokio::test]
async fn tls_is_checked_against_the_authority() {
    let ca = Ca::new("test");
    let upstream = Upstream::tls(ca.server(&["keel.test"]).server_config());
    let mut options = Options { ca: Some(ca.pem()), sni: Some("keel.test".into()), ..Options::default() };
    for http2 in [false, true] {
        options.http2 = http2;
        let mut client = Client::connect_with(&upstream.url("/"), &options).await.unwrap();
        assert_eq!(client.get("/ip").await.unwrap().status, 200);
    }
    options.sni = Some("other.test".into());
    assert!(Client::connect_with(&upstream.url("/"), &options).await.is_err());
    options.ca = None;
    assert!(Client::connect_with(&upstream.url("/"), &Options { http2: true, ..options }).await.is_ok());
}

#[tokio::test]
async fn streams_both_ways_at_once() {
    let upstream = Upstream::start();
    let mut client = Client::connect(&upstream.url("/")).await.unwrap();
    let (sender, body) = streamed();
    let response = client.send_stream(Request::post("/echo").body(body).unwrap()).await.unwrap();
    let mut echo = response.into_body();
    for word in ["keel", "gate"] {
        sender.send(word.into()).await.unwrap();
        assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), word);
    }
    drop(sender);
    assert!(echo.frame().await.is_none());
}

#[tokio::test]
async fn a_websocket_echoes() {
    let upstream = Upstream::start();
    let mut socket = ws::connect(&upstream.url("/ws")).await.unwrap();
    assert_eq!(socket.say("keel").await.unwrap(), "keel");
}

#[tokio::test]
async fn misbehaves_on_command() {
    let upstream = Upstream::start();
    upstream.behave(Behaviour::Status(503));
    assert_eq!(get(&upstream.url("/ip")).await.unwrap().status, 503);
    upstream.behave(Behaviour::Cut(10));
    assert!(format!("{:#}", get(&upstream.url("/ip")).await.unwrap_err()).contains("broke off"));
    upstream.behave(Behaviour::Cut(0));
    assert!(get(&upstream.url("/ip")).await.is_err());
    upstream.behave(Behaviour::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(100), get(&upstream.url("/ip"))).await;
    assert!(hanging.is_err());
}

#[tokio::test]
async fn stops_at_once_and_comes_back_on_the_same_port() {
    let upstream = Upstream::start();
    let mut client = Client::connect(&upstream.url("/")).await.unwrap();
    client.get("/ip").await.unwrap();
    upstream.stop();
    assert!(client.get("/ip").await.is_err());
    assert!(get(&upstream.url("/ip")).await.is_err());
    upstream.restart();
    assert_eq!(get(&upstream.url("/ip")).await.unwrap().status, 200);
}
