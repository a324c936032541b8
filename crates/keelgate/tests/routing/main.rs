//! Requests through the gateway, as the Admin API says where they go.
//!
//! | story | file |
//! |---|---|
//! | which route a request finds | `matching.rs` |
//! | which one it finds by its body, by Lua, and by paths as the settings read them | `rules.rs` |
//! | services, plugin configs, global rules and what of them counts | `merging.rs` |
//! | which node gets it, what it is told of the client, what is tried again | `upstreams.rs` |
//! | nodes that die and come back | `health.rs` |
//! | nodes that are names, and what DNS says of them | `dns.rs` |
//! | services that a registry knows | `registries.rs` |
//! | secrets in Vault, at AWS, with Google, in the environment | `secrets.rs` |
//! | TLS, HTTP/2, WebSocket, bodies that stream | `protocols.rs` |
//! | gRPC | `grpc.rs` |
//! | Kafka behind a WebSocket | `pubsub.rs` |
//! | what a client is told when it fails | `failures.rs` |
//! | clients of HTTP/2 that only make work | `floods.rs` |
//! | who the client is, behind proxies of ours | `clients.rs` |
//!
//! The one rule: a change is in force when a route written after it answers; see [`Node::settled`].
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod clients;
mod dns;
mod failures;
mod floods;
mod grpc;
mod health;
mod matching;
mod merging;
mod protocols;
mod pubsub;
mod registries;
mod rules;
mod secrets;
mod upstreams;

use std::ops::Deref;

use serde_json::{Value, json};
use testkit::gateway::Gateway;
use testkit::upstream::Upstream;

/// A gateway with its own store, and an upstream of no account.
struct Node {
    gateway: Gateway,
    marker: Upstream,
}

impl Node {
    async fn start() -> Self {
        Self::with(json!({})).await
    }

    async fn with(settings: Value) -> Self {
        let mut gateway = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate")).with(settings);
        gateway.start().await;
        Self::of(gateway)
    }

    /// A gateway that runs already.
    fn of(gateway: Gateway) -> Self {
        Self { gateway, marker: Upstream::start() }
    }

    /// Waits until all that was written so far is in force.
    async fn settled(&self) {
        self.gateway.settle(&self.marker).await;
    }

    /// Writes resources, and waits until they are in force.
    async fn has(&self, resources: &[(&str, Value)]) {
        for (path, body) in resources {
            self.gateway.put(path, body).await;
        }
        self.settled().await;
    }
}

impl Deref for Node {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// An upstream with these nodes, of equal weight.
fn to(nodes: &[&Upstream]) -> Value {
    let nodes: Value =
        nodes.iter().map(|node| (node.node(), json!(1))).collect::<serde_json::Map<_, _>>().into();
    json!({ "type": "roundrobin", "nodes": nodes })
}

/// The same, with more said about it.
fn to_with(nodes: &[&Upstream], more: Value) -> Value {
    let mut upstream = to(nodes);
    testkit::gateway::merge(&mut upstream, more);
    upstream
}
