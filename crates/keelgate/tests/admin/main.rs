//! The Admin API as programs use it.
//!
//! | story | file |
//! |---|---|
//! | a declarative client brings a control plane to what a file says | `declarative.rs` |
//! | APISIX's API-driven mode: the whole configuration in one request | `standalone.rs` |
//! | who is let in | `door.rs` |
//! | what can't be served is told, and passes no route by | `refused.rs` |
//!
//! The one rule: what is asked of the Admin API is in APISIX's documentation, and what it answers shows at the proxy.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod control;
mod declarative;
mod door;
mod refused;
mod standalone;

use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

const KEELGATE: &str = env!("CARGO_BIN_EXE_keelgate");

/// An upstream of one node.
fn to(node: &Upstream) -> Value {
    json!({ "type": "roundrobin", "nodes": { node.node(): 1 } })
}

/// Waits until the proxy answers with this status.
async fn answers(gateway: &Gateway, path: &str, headers: &[(&str, &str)], status: u16) {
    eventually(SOON, format!("{status} at {path}"), async || {
        let answer = testkit::http::request(http::Method::GET, &gateway.url(path), headers, "").await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        expect(answer.status == status, format!("{} {}", answer.status, answer.text()))
    })
    .await;
}
