//! TCP and UDP through the gateway, as the Admin API says where they go.
//!
//! | story | file |
//! |---|---|
//! | which route a session finds, which node it gets | `matching.rs` |
//! | ends, resets, silence, TLS, the PROXY protocol | `sessions.rs` |
//! | datagrams | `udp.rs` |
//! | IPv6, names, and nodes that are known to be down | `nodes.rs` |
//! | what is refused, told, counted and logged | `telling.rs` |
//!
//! The one rule: a change is in force when a session says so; see [`Node::has`].
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod matching;
mod nodes;
mod sessions;
mod telling;
mod udp;

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};
use testkit::echo::{self, Echo};
use testkit::gateway::{Gateway, SOON, merge};
use testkit::ports;
use testkit::wait::{eventually, expect};

/// A gateway with its own store and three ports of streams.
struct Node {
    gateway: Gateway,
    tcp: SocketAddr,
    tls: SocketAddr,
    udp: SocketAddr,
    /// Where changes are seen to be in force.
    marker: SocketAddr,
}

impl Node {
    async fn start() -> Self {
        Self::with(json!({})).await
    }

    async fn with(settings: Value) -> Self {
        Self::with_more(&[], &[], settings).await
    }

    /// With further ports of TCP and UDP.
    async fn with_more(more_tcp: &[SocketAddr], more_udp: &[SocketAddr], settings: Value) -> Self {
        let [tcp, tls, udp, marker] = std::array::from_fn(|_| ports::address());
        let also =
            |ports: &[SocketAddr]| ports.iter().map(|port| json!(port.to_string())).collect::<Vec<_>>();
        let mut tcp_ports = also(&[tcp, marker]);
        tcp_ports.push(json!({ "addr": tls.to_string(), "tls": true }));
        tcp_ports.extend(also(more_tcp));
        let udp_ports = [also(&[udp]), also(more_udp)].concat();
        let mut conf = json!({ "apisix": {
            "proxy_mode": "http&stream", "stream_proxy": { "tcp": tcp_ports, "udp": udp_ports },
        } });
        merge(&mut conf, settings);
        let mut gateway = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate")).with(conf);
        gateway.start().await;
        let node = Self { gateway, tcp, tls, udp, marker };
        // Its route is there before any other that could take its sessions.
        node.settled().await;
        node
    }

    /// Writes resources, and waits until they are in force: changes take effect in their order.
    async fn has(&self, resources: &[(&str, Value)]) {
        for (path, body) in resources {
            self.put(path, body).await;
        }
        self.settled().await;
    }

    async fn settled(&self) {
        let node = Echo::tcp();
        let route = json!({ "server_port": self.marker.port(), "upstream": to(&[&node]) });
        self.put("stream_routes/0-marker", &route).await;
        self.says(self.marker, "settled", &format!("{}|settled|end", node.port())).await;
    }

    /// Waits until a session to this port is answered like this.
    async fn says(&self, port: SocketAddr, text: &str, answer: &str) {
        eventually(SOON, format!("the answer {answer:?}"), async || {
            let said = echo::say(port, text).await.unwrap_or_else(|error| format!("{error:#}"));
            expect(said == answer, said)
        })
        .await;
    }
}

impl Deref for Node {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Gateway {
        &mut self.gateway
    }
}

/// An upstream with these nodes, of equal weight.
fn to(nodes: &[&Echo]) -> Value {
    let nodes: serde_json::Map<_, _> = nodes.iter().map(|node| (node.node(), json!(1))).collect();
    json!({ "type": "roundrobin", "nodes": nodes })
}

/// The same, with more said about it.
fn to_with(nodes: &[&Echo], more: Value) -> Value {
    let mut upstream = to(nodes);
    merge(&mut upstream, more);
    upstream
}

/// What a node answers to `text`.
fn answer(node: &Echo, text: &str) -> String {
    format!("{}|{text}|end", node.port())
}
