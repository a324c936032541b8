//! gRPC: HTTP/2 towards upstreams.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use proxy::{
    access_log::{Escape, Format},
    engine::Listener,
};
use serde_json::{Value, json};
use testkit::{
    certs::Ca,
    grpc::{Client, Note, Server},
    http, ports,
    proxy::{FaultProxy, Faults},
    wait::{eventually, expect},
};
use tonic::Code;

use crate::Gateway;

const SOON: Duration = Duration::from_secs(10);

/// A route for all of gRPC, to these nodes.
fn route(nodes: &[String], more: &Value) -> (&'static str, Value) {
    let nodes: Value =
        nodes.iter().map(|node| (node.clone(), json!(1))).collect::<serde_json::Map<_, _>>().into();
    let mut upstream = json!({ "type": "roundrobin", "scheme": "grpc", "nodes": nodes });
    testkit::gateway::merge(&mut upstream, more.clone());
    ("routes/1", json!({ "uri": "/keel.Notes/*", "upstream": upstream }))
}

fn to(server: &Server) -> Gateway {
    Gateway::start(&[route(&[server.node()], &json!({}))])
}

async fn client(gateway: &Gateway) -> Client {
    Client::connect(&gateway.url("")).await.unwrap()
}

/// Waits until the server has no call under way any more.
async fn quiet(server: &Server) {
    eventually(SOON, "no call under way", async || expect(server.under_way() == 0, server.under_way())).await;
}

/// The client was answered by a page of HTTP, of which it tells the status.
#[track_caller]
fn assert_answered(error: &tonic::Status, status: &str) {
    assert!(error.message().contains(status), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_share_one_connection() {
    let server = Server::start();
    let gateway = Gateway::with(&[route(&[server.node()], &json!({}))], |config| config.workers = 1);
    let client = client(&gateway).await;
    assert_eq!(client.say("hello").await.unwrap(), "hello");
    let long = "k".repeat(1_000_000);
    assert_eq!(client.say(&long).await.unwrap(), long);

    let mut many = client.listen(Note { text: "again".into(), times: 50 }).await.unwrap();
    let mut count = 0;
    while let Some(note) = many.message().await.unwrap() {
        assert_eq!(note.text, "again");
        count += 1;
    }
    assert_eq!(count, 50);

    let notes = ["a", "b", "c"].map(Note::new).to_vec();
    assert_eq!(client.collect(notes).await.unwrap().text, "abc");

    let mut talks = Vec::new();
    for _ in 0..20 {
        talks.push(client.talk("hello").await.unwrap());
    }
    for talk in &mut talks {
        assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
        assert_eq!(talk.say("and again").await.unwrap(), "and again");
    }
    for talk in talks {
        assert!(talk.finish().message().await.unwrap().is_none());
    }
    assert_eq!(server.connections(), 1);
    quiet(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_told_who_asked_and_how() {
    let server = Server::start();
    let mut gateway = to(&server);
    let mut request = tonic::Request::new(Note::new("x"));
    request.metadata_mut().insert("x-own", "1".parse().unwrap());
    request.metadata_mut().insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
    let client = client(&gateway).await;
    client.call("Talk", request).await.unwrap();
    let (seen, address) = (server.last(), gateway.address.to_string());
    for (name, value) in [
        ("path", "/keel.Notes/Talk"),
        ("authority", &*address),
        ("scheme", "http"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-own", "1"),
        ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
        ("x-forwarded-host", &*address),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    for (more, host) in [
        (json!({ "pass_host": "node" }), server.node()),
        (json!({ "pass_host": "rewrite", "upstream_host": "hello.world" }), "hello.world".into()),
    ] {
        gateway.change(&[route(&[server.node()], &more)]);
        client.say("x").await.unwrap();
        assert_eq!(server.last()["authority"], *host);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_comes_through_with_or_without_messages_before_it() {
    let server = Server::start();
    let gateway = to(&server);
    let client = client(&gateway).await;
    let refused = client.call("Refuse", tonic::Request::new(Note::new("x"))).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "told to"));
    let failed = client.say("fail 7").await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::PermissionDenied, "as ordered"));
    let mut talk = client.talk("one").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "one");
    talk.send(Note::new("fail 5")).await.unwrap();
    assert_eq!(talk.next().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        client.call("None", tonic::Request::new(Note::new("x"))).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_gives_up_the_server_hears_of() {
    let server = Server::start();
    let gateway = to(&server);
    let client = client(&gateway).await;
    let mut request = tonic::Request::new(Note::new("x"));
    request.set_timeout(Duration::from_millis(200));
    let late = client.call("Ignore", request).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    assert_eq!(server.last()["grpc-timeout"], "200000u");
    quiet(&server).await;
    let mut talk = client.talk("hello").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
    assert_eq!(server.under_way(), 1);
    drop(talk);
    quiet(&server).await;
    assert_eq!(client.say("still there").await.unwrap(), "still there");
    assert!(server.connections() <= 2, "giving up ends the call, not the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_not_be_had_is_told_as_a_status_of_http() {
    let nobody = ports::address().to_string();
    let server = Server::start();
    let mut gateway = Gateway::start(&[route(std::slice::from_ref(&nobody), &json!({}))]);
    let client = client(&gateway).await;
    assert_answered(&client.say("x").await.unwrap_err(), "502");
    let answer =
        http::request(::http::Method::POST, &gateway.url("/keel.Notes/Talk"), &[], "").await.unwrap();
    assert_eq!(answer.status, 502);

    gateway.change(&[route(&[nobody, server.node()], &json!({}))]);
    for _ in 0..10 {
        assert_eq!(client.say("x").await.unwrap(), "x", "the other node is asked");
    }

    let timeout = json!({ "timeout": { "connect": 1, "send": 1, "read": 0.3 } });
    gateway.change(&[route(&[server.node()], &timeout)]);
    let silent = client.call("Ignore", tonic::Request::new(Note::new("x"))).await.unwrap_err();
    assert_answered(&silent, "504");
    quiet(&server).await;
    let mut talk = client.talk("hello").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
    assert!(talk.next().await.is_err(), "silence ends a call that has begun too");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_and_go_and_no_call_fails() {
    let server = Server::start();
    let gateway = to(&server);
    let client = client(&gateway).await;
    for round in 0..20 {
        let mut talk = client.talk("hello").await.unwrap();
        assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
        server.say_goodbye();
        for _ in 0..3 {
            assert_eq!(client.say("x").await.unwrap(), "x", "{round}");
        }
        assert_eq!(talk.say("on the old one").await.unwrap(), "on the old one");
    }
    // Closed while nobody uses it: the next call does not find out the hard way.
    for round in 0..20 {
        server.restart();
        eventually(SOON, "no connection", async || expect(server.open() == 0, server.open())).await;
        assert_eq!(client.say("x").await.unwrap(), "x", "{round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_takes_only_what_was_on_it() {
    let server = Server::start();
    let line = FaultProxy::start(server.address());
    let gateway = Gateway::start(&[route(&[line.address().to_string()], &json!({}))]);
    let client = client(&gateway).await;
    let mut talk = client.talk("hello").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
    let lost = {
        let client = client.clone();
        tokio::spawn(async move { client.say("hang").await })
    };
    eventually(SOON, "both calls", async || expect(server.under_way() == 2, server.under_way())).await;
    line.reset();
    assert!(talk.next().await.is_err());
    assert!(lost.await.unwrap().is_err());
    assert_eq!(server.calls(), 2, "what may have been acted upon is not sent twice");
    assert_eq!(client.say("again").await.unwrap(), "again");
    line.set(Faults { refuse: true, ..Faults::default() });
    line.reset();
    eventually(SOON, "no connection", async || expect(line.open() == 0, line.open())).await;
    assert_answered(&client.say("x").await.unwrap_err(), "502");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_few_calls_at_once_gets_more_connections() {
    let server = Server::start();
    server.limit_streams(2);
    let gateway = Gateway::with(&[route(&[server.node()], &json!({}))], |config| config.workers = 1);
    let client = client(&gateway).await;
    let mut talks = Vec::new();
    for _ in 0..6 {
        let mut talk = client.talk("hello").await.unwrap();
        assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
        talks.push(talk);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_holds_up_nobody_and_fills_no_memory() {
    let server = Server::start();
    let gateway = Gateway::with(&[route(&[server.node()], &json!({}))], |config| config.workers = 1);
    let line = FaultProxy::start(gateway.address);
    let other = client(&gateway).await;
    let mut unread = Vec::new();
    let long = Note { text: "k".repeat(64 * 1024), times: 4000 };
    for _ in 0..8 {
        let deaf = Client::connect(&line.url("")).await.unwrap();
        let mut answers = deaf.listen(long.clone()).await.unwrap();
        answers.message().await.unwrap().unwrap();
        unread.push(answers);
    }
    for _ in 0..20 {
        assert_eq!(other.say("x").await.unwrap(), "x");
    }
    assert_eq!(server.connections(), 1, "all of them share it");
    assert!(line.responded_bytes() < 32 << 20, "{}", line.responded_bytes());
    // The same the other way: the server does not read on while it waits.
    let talk = other.talk("wait 1000").await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(300), async {
        loop {
            talk.send(long.clone()).await.unwrap();
        }
    })
    .await;
    assert_eq!(other.say("x").await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_direction_waits_for_the_other() {
    let server = Server::start();
    let gateway = to(&server);
    let client = client(&gateway).await;
    // Answers that nobody reads, while notes go on: more of either than all buffers on the way take.
    let mut talk = client.talk("first").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "first");
    let quiet_note = Note { text: "k".repeat(100_000), times: 0 };
    talk.send(Note { text: "k".repeat(100_000), times: 1 }).await.unwrap();
    for _ in 0..100 {
        let sent = tokio::time::timeout(SOON, talk.send(quiet_note.clone())).await;
        sent.expect("notes go on").unwrap();
    }
    talk.send(Note::new("last")).await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap().len(), 100_000);
    assert_eq!(talk.next().await.unwrap().unwrap(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_both_sides() {
    let ca = Ca::new("keel");
    let server = Server::tls(ca.server(&["127.0.0.1"]).server_config());
    let address = (Ipv4Addr::LOCALHOST, ports::free()).into();
    let pair = ca.server(&["notes.test"]);
    let ssl = json!({ "cert": pair.cert, "key": pair.key, "snis": ["notes.test"] });
    let grpcs = route(&[server.node()], &json!({ "scheme": "grpcs", "pass_host": "node" }));
    let _gateway = Gateway::with(&[grpcs, ("ssls/1", ssl)], |config| {
        config.listeners.push(Listener { tls: true, http2: true, ..Listener::at(address) });
    });
    let client = Client::connect_tls(&format!("https://{address}"), "notes.test", &ca.pem()).await.unwrap();
    assert_eq!(client.say("hello").await.unwrap(), "hello");
    let mut talk = client.talk("one").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "one");
    assert_eq!(
        (&server.last()["scheme"], &server.last()["x-forwarded-proto"]),
        (&"https".parse().unwrap(), &"https".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_status_that_came_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let server = Server::start();
    let format = "$status $upstream_status $upstream_addr $sent_trailer_grpc_status $sent_http_grpc_status";
    let mut gateway = Gateway::with(&[route(&[server.node()], &json!({}))], |config| {
        config.access_log = Some(Arc::new(Format::new(format, Escape::Default, 1 << 14)));
        config.access_log_file = Some(path.clone());
    });
    let client = client(&gateway).await;
    client.say("hello").await.unwrap();
    client.say("fail 7").await.unwrap_err();
    client.call("Refuse", tonic::Request::new(Note::new("x"))).await.unwrap_err();
    drop(client);
    let end = gateway.drain();
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    let node = server.node();
    let expected =
        [format!("200 200 {node} 0 -"), format!("200 200 {node} 7 -"), format!("200 200 {node} - 8")];
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_so_often_and_no_longer() {
    let server = Server::start();
    let pool = json!({ "keepalive_pool": { "size": 4, "idle_timeout": 60, "requests": 5 } });
    let gateway = Gateway::with(&[route(&[server.node()], &pool)], |config| config.workers = 1);
    let client = client(&gateway).await;
    for _ in 0..20 {
        client.say("x").await.unwrap();
    }
    assert_eq!(server.connections(), 4);
    eventually(SOON, "used up connections closed", async || expect(server.open() == 0, server.open())).await;
}
