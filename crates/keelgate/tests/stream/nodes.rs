//! Nodes by IPv6 and by name, and what is known of their health.

use std::net::Ipv6Addr;

use serde_json::json;
use testkit::dns::Dns;
use testkit::echo::{Echo, Line, say};
use testkit::http::get;
use tokio::net::UdpSocket;

use crate::*;

fn six() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, ports::free()))
}

/// What is said in return to a datagram; empty where nothing comes for a while.
async fn datagram(to: SocketAddr, text: &str) -> String {
    let any = if to.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let wait = tokio::time::timeout(std::time::Duration::from_millis(500), socket.recv(&mut answer)).await;
    let length = wait.map_or(0, |received| received.unwrap_or(0));
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Waits until a session is answered like this.
async fn comes(what: &str, answer: &str, ask: impl AsyncFn() -> String) {
    eventually(SOON, format!("{answer:?} from {what}"), async || {
        let said = ask().await;
        expect(said == answer, said)
    })
    .await;
}

#[tokio::test]
async fn clients_and_nodes_speak_ipv6() {
    let (tcp, udp) = (six(), six());
    let (echo, four, datagrams) = (Echo::tcp_at(six()), Echo::tcp(), Echo::udp_at(six()));
    let node = Node::with_more(&[tcp], &[udp], json!({})).await;
    let by_host = json!({ "nodes": [{ "host": "[::1]", "port": echo.port(), "weight": 1 }] });
    node.has(&[
        (
            "stream_routes/1",
            json!({ "server_port": tcp.port(), "remote_addr": "::/64", "upstream": to(&[&echo]) }),
        ),
        (
            "stream_routes/2",
            json!({ "server_addr": "127.0.0.1", "server_port": node.tcp.port(), "upstream": by_host }),
        ),
        (
            "stream_routes/3",
            json!({ "server_addr": "::1", "server_port": udp.port(), "upstream": to(&[&datagrams]) }),
        ),
        ("stream_routes/4", json!({ "server_port": node.udp.port(), "upstream": to(&[&datagrams]) })),
    ])
    .await;
    assert_eq!(say(tcp, "six to six").await.unwrap(), answer(&echo, "six to six"));
    assert_eq!(say(node.tcp, "four to six").await.unwrap(), answer(&echo, "four to six"));
    let heard = format!("{}|hello", datagrams.port());
    comes("six to six", &heard, async || datagram(udp, "hello").await).await;
    comes("four to six", &heard, async || datagram(node.udp, "hello").await).await;

    let to_four = json!({ "server_port": tcp.port(), "remote_addr": "::1", "upstream": to(&[&four]) });
    node.has(&[("stream_routes/1", to_four)]).await;
    assert_eq!(say(tcp, "six to four").await.unwrap(), answer(&four, "six to four"));
}

#[tokio::test]
async fn nodes_are_names_that_dns_knows() {
    let (dns, echo, datagrams) = (Dns::start(), Echo::tcp(), Echo::udp());
    // Nobody is there.
    dns.set("moving.test", &["127.0.0.2"], 1);
    dns.set("fixed.test", &["127.0.0.1"], 60);
    let node = Node::with(json!({ "apisix": { "dns_resolver": [dns.address()] } })).await;
    let named = |name: &str, echo: &Echo| json!({ "nodes": { format!("{name}:{}", echo.port()): 1 } });
    node.has(&[
        (
            "stream_routes/1",
            json!({ "server_port": node.udp.port(), "upstream": named("fixed.test", &datagrams) }),
        ),
        ("stream_routes/2", json!({ "remote_addr": "127.0.0.3", "upstream": named("none.test", &echo) })),
        ("stream_routes/3", json!({ "upstream": named("moving.test", &echo) })),
    ])
    .await;
    assert_eq!(say(node.tcp, "too early").await.unwrap_or_default(), "");
    assert_eq!(echo::say_from("127.0.0.3", node.tcp, "no such name").await.unwrap_or_default(), "");
    let heard = format!("{}|hello", datagrams.port());
    comes("a name over UDP", &heard, async || datagram(node.udp, "hello").await).await;

    dns.set("moving.test", &["127.0.0.1"], 1);
    let found = answer(&echo, "hello");
    comes("the new address", &found, async || say(node.tcp, "hello").await.unwrap_or_default()).await;
    let mut line = Line::open(node.tcp).await.unwrap();
    line.expect(&format!("{}|", echo.port())).await.unwrap();
    // What DNS said last goes on when it says nothing, and a session that has begun whatever it says.
    let asked = dns.asked("moving.test");
    dns.stop();
    for _ in 0..5 {
        assert_eq!(say(node.tcp, "hello").await.unwrap(), found, "asked {asked} times before");
    }
    dns.set("moving.test", &[], 1);
    dns.restart();
    line.hears("still there?").await.unwrap();
}

#[tokio::test]
async fn a_node_that_could_not_be_reached_is_left_alone() {
    let (good, bad) = (Echo::tcp(), ports::address());
    let node = Node::start().await;
    // Nobody looks after the node for a while: only sessions tell.
    let checks = json!({
        "active": { "type": "tcp", "healthy": { "interval": 3600 }, "unhealthy": { "interval": 3600 } },
        "passive": { "type": "tcp", "unhealthy": { "tcp_failures": 1 } },
    });
    let upstream =
        json!({ "type": "roundrobin", "nodes": { good.node(): 1, bad.to_string(): 1 }, "checks": checks });
    node.has(&[("stream_routes/1", json!({ "server_port": node.tcp.port(), "upstream": upstream }))]).await;
    let state = async |port: u16| {
        let view = get(&node.control_url("/v1/healthcheck")).await.unwrap().json();
        let nodes = view.as_array().into_iter().flatten().flat_map(|one| one["nodes"].as_array()).flatten();
        nodes.filter(|one| one["port"] == port).map(|one| one["status"].clone()).next().unwrap_or_default()
    };
    eventually(SOON, "a session that meets the dead node", async || {
        assert_eq!(say(node.tcp, "hello").await.unwrap(), answer(&good, "hello"), "another node is tried");
        let state = state(bad.port()).await;
        expect(state == "unhealthy", state)
    })
    .await;
    let _back = Echo::tcp_at(bad);
    for _ in 0..10 {
        assert_eq!(say(node.tcp, "again").await.unwrap(), answer(&good, "again"));
    }
    // That clients break off says nothing of the node.
    for _ in 0..5 {
        let mut line = Line::open(node.tcp).await.unwrap();
        line.expect(&format!("{}|", good.port())).await.unwrap();
        line.0.set_zero_linger().unwrap();
        drop(line);
    }
    eventually(SOON, "the sessions' ends", async || {
        let active = format!("apisix_stream_active_connections{{listen_addr=\"{}\"}}", node.tcp);
        let found = node.metric(&active).await.map_err(|error| format!("{error:#}"))?;
        expect(found == Some(0.0), format!("{found:?}"))
    })
    .await;
    assert_eq!((state(good.port()).await, state(bad.port()).await), (json!("healthy"), json!("unhealthy")));
}
