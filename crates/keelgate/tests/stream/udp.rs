//! Datagrams.

use std::process::Command;

use serde_json::json;
use testkit::echo::Echo;
use tokio::net::UdpSocket;

use crate::*;

/// A client of one address.
async fn client(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// Sends until an answer comes: a datagram may get lost.
async fn asks(socket: &UdpSocket, text: &str) -> String {
    let mut answer = vec![0; 70_000];
    eventually(SOON, format!("an answer to {} bytes", text.len()), async || {
        socket.send(text.as_bytes()).await.map_err(|error| error.to_string())?;
        let wait = tokio::time::timeout(std::time::Duration::from_millis(500), socket.recv(&mut answer));
        let length =
            wait.await.map_err(|_| "nothing comes".to_owned())?.map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&answer[..length]).into_owned())
    })
    .await
}

#[tokio::test]
async fn datagrams_go_to_the_node_of_their_session_and_back() {
    let (one, two) = (Echo::udp(), Echo::udp());
    let node = Node::start().await;
    node.has(&[
        (
            "stream_routes/1",
            json!({ "remote_addr": "127.0.0.2", "upstream": to_with(&[&one], json!({ "scheme": "udp" })) }),
        ),
        ("stream_routes/2", json!({ "upstream": to(&[&one, &two]) })),
    ])
    .await;
    let fixed = client("127.0.0.2", node.udp).await;
    assert_eq!(asks(&fixed, "hello").await, format!("{}|hello", one.port()));
    // A session stays with its node.
    let socket = client("127.0.0.1", node.udp).await;
    let first = asks(&socket, "again").await;
    for _ in 0..5 {
        assert_eq!(asks(&socket, "again").await, first);
    }
    let other = client("127.0.0.1", node.udp).await;
    assert_ne!(asks(&other, "again").await, first, "another session has the next node");
    let long = "x".repeat(60_000);
    assert_eq!(asks(&fixed, &long).await, format!("{}|{long}", one.port()));
}

#[tokio::test]
async fn a_socket_on_all_addresses_answers_from_the_one_that_was_asked() {
    let echo = Echo::udp();
    let port = ports::free();
    let mut node = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate")).with(json!({
        "apisix": { "proxy_mode": "http&stream", "stream_proxy": { "udp": [port] } },
    }));
    node.start().await;
    let route = json!({ "server_addr": "127.0.0.5", "upstream": to(&[&echo]) });
    node.put("stream_routes/1", &route).await;
    // A connected socket takes answers from nobody else.
    let socket = client("127.0.0.1", SocketAddr::new([127, 0, 0, 5].into(), port)).await;
    assert_eq!(asks(&socket, "hello").await, format!("{}|hello", echo.port()));
}

/// Which session a client has: the port its node sees.
async fn session(socket: &UdpSocket) -> String {
    asks(socket, "which?").await
}

#[tokio::test]
async fn a_session_outlives_reloads() {
    let echo = Echo::telling_senders();
    let mut node = Node::start().await;
    node.has(&[("stream_routes/1", json!({ "upstream": to(&[&echo]) }))]).await;
    let socket = client("127.0.0.1", node.udp).await;
    let first = session(&socket).await;
    for change in [
        json!({ "nginx_config": { "stream": { "enable_access_log": true } } }),
        json!({ "apisix": { "stream_proxy": { "udp": [node.udp.to_string(), ports::address().to_string()] } } }),
    ] {
        node.gateway.merge_config(change.clone());
        assert!(node.command(&["reload"]).status.success(), "{change}");
        assert_eq!(session(&socket).await, first, "after {change}");
    }
    // With workers that come and go the session may go to another one, and so begin anew; nothing is lost.
    for workers in [4, 1] {
        node.gateway.merge_config(json!({ "nginx_config": { "worker_processes": workers } }));
        assert!(node.command(&["reload"]).status.success());
        for text in ["one", "two"] {
            assert!(asks(&socket, text).await.ends_with(&format!("|{text}")));
        }
    }
}

#[tokio::test]
async fn of_too_many_sessions_one_that_is_not_used_gives_way() {
    /// Sessions of one address and worker.
    const MOST: usize = 10_000;
    // Each is a socket of the gateway's, which inherits our limit.
    let raised =
        Command::new("prlimit").args(["--nofile=16384:", "--pid", &std::process::id().to_string()]).status();
    assert!(raised.unwrap().success(), "this test needs 16 384 open files");
    let echo = Echo::telling_senders();
    let node = Node::with(json!({ "nginx_config": { "worker_processes": 1 } })).await;
    node.has(&[("stream_routes/1", json!({ "upstream": to(&[&echo]) }))]).await;
    let [idle, busy] = [client("127.0.0.1", node.udp).await, client("127.0.0.1", node.udp).await];
    let first = (session(&idle).await, session(&busy).await);
    // Kept, so that no two have the same port.
    let mut others = Vec::new();
    for _ in 2..MOST {
        let other = client("127.0.0.1", node.udp).await;
        session(&other).await;
        others.push(other);
    }
    assert_eq!((session(&idle).await, session(&busy).await), first, "there is room for all");
    let one_more = async || {
        let other = client("127.0.0.1", node.udp).await;
        session(&other).await;
        other
    };
    // All were used since they came: the oldest goes.
    let _first = one_more().await;
    assert_eq!(session(&busy).await, first.1);
    // Now it is the second's turn, but it was used since.
    let _second = one_more().await;
    assert_eq!(session(&busy).await, first.1, "who is used stays");
    assert_ne!(session(&idle).await, first.0, "who gave way begins anew");
    let active = format!("apisix_stream_active_connections{{listen_addr=\"{}\"}}", node.udp);
    eventually(SOON, "as many sessions as there may be", async || {
        let found = node.metric(&active).await.map_err(|error| format!("{error:#}"))?;
        expect(found == Some(MOST as f64), format!("{found:?}"))
    })
    .await;
}
