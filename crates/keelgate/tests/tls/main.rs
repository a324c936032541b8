//! TLS towards clients and upstreams, as `ssls` and `apisix.ssl` say.
//!
//! | story | file |
//! |---|---|
//! | which certificate, which version, which cipher | `names.rs` |
//! | who clients must be, and what upstreams hear of it | `clients.rs` |
//! | coming back without a whole handshake, and when not | `sessions.rs` |
//! | what issuers say of certificates | `stapling.rs` |
//! | certificates that change under load | `changes.rs` |
//! | who we are to upstreams, and who they are | `upstreams.rs` |
//!
//! The one rule: the other side is OpenSSL where it can be, so that two of a kind do not agree on a mistake.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod changes;
mod clients;
mod names;
mod sessions;
mod stapling;
mod upstreams;

use std::fs;
use std::ops::Deref;
use std::process::Command;

use serde_json::{Value, json};
use testkit::certs::{Ca, Pair};
use testkit::gateway::Gateway;
use testkit::http::{Options, Response, request_with};
use testkit::upstream::Upstream;

/// A gateway with its own store, and an upstream for whatever it is asked.
struct Node {
    gateway: Gateway,
    upstream: Upstream,
    marker: Upstream,
}

impl Node {
    async fn start() -> Self {
        Self::with(json!({})).await
    }

    async fn with(settings: Value) -> Self {
        let mut gateway = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate")).with(settings);
        gateway.start().await;
        let node = Self { gateway, upstream: Upstream::start(), marker: Upstream::start() };
        node.put("routes/all", &json!({ "uri": "/*", "upstream": to(&node.upstream) })).await;
        node
    }

    /// Writes resources, and waits until they are in force.
    async fn has(&self, resources: &[(&str, Value)]) {
        for (path, body) in resources {
            self.put(path, body).await;
        }
        self.gateway.settle(&self.marker).await;
    }

    /// How to reach it over TLS as somebody of this name.
    fn as_name(&self, name: &str) -> Options {
        let to = Some(([127, 0, 0, 1], self.ports().https).into());
        Options { to, sni: Some(name.to_owned()), ..Options::default() }
    }

    /// What OpenSSL's client sees, asking for `/headers` at `host`.
    fn s_client(&self, host: &str, args: &[&str]) -> String {
        let request = self.home().join("request");
        fs::write(&request, format!("GET /headers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
            .unwrap();
        let output = Command::new("timeout")
            .args(["20", "openssl", "s_client", "-ign_eof", "-connect"])
            .arg(format!("127.0.0.1:{}", self.ports().https))
            .args(args)
            .stdin(fs::File::open(&request).unwrap())
            .output()
            .expect("openssl and timeout; run ./x deps");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Deref for Node {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// GET on a connection of its own.
async fn get(options: &Options, url: &str) -> anyhow::Result<Response> {
    request_with(options, http::Method::GET, url, &[], "").await
}

fn to(upstream: &Upstream) -> Value {
    json!({ "type": "roundrobin", "nodes": { upstream.node(): 1 } })
}

fn ssl(pair: &Pair, snis: &[&str]) -> Value {
    json!({ "cert": pair.cert, "key": pair.key, "snis": snis })
}

/// The same, with more said about it.
fn ssl_with(pair: &Pair, snis: &[&str], more: Value) -> Value {
    let mut ssl = ssl(pair, snis);
    testkit::gateway::merge(&mut ssl, more);
    ssl
}

/// Whom clients must be.
fn asking(ca: &Ca) -> Value {
    json!({ "client": { "ca": ca.pem() } })
}
