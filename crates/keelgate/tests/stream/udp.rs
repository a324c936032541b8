//! Datagrams.

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
