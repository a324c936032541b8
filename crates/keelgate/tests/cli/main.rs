//! The binary at a prompt: verbs, exit codes, what it says, and what signals do to a running one.
//!
//! | story | file |
//! |---|---|
//! | calls, files and what is said of them | `calls.rs` |
//! | what a node says of itself | `telling.rs` |
//! | a process from start to end | `life.rs` |
//!
//! The one rule: exit 0 is yes, 1 is no, 2 is a wrong call, 78 a wrong configuration, and a reader of stderr knows
//! which line to change.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod calls;
mod life;
mod telling;

use std::fs;
use std::process::Output;

use serde_json::json;
use testkit::gateway::Gateway;
use testkit::upstream::Upstream;

const KEELGATE: &str = env!("CARGO_BIN_EXE_keelgate");

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command on a node, which must succeed, and gives what it prints.
#[track_caller]
fn does(node: &Gateway, args: &[&str]) -> String {
    let output = node.command(args);
    let log = fs::read_to_string(node.home().join("logs/error.log")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}\n{log}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// Runs a command that must answer no, and gives what it says.
#[track_caller]
fn refuses(node: &Gateway, args: &[&str], code: i32) -> String {
    let output = node.command(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output) + &stderr(&output)
}

/// One route for everything.
async fn route_all(node: &Gateway, upstream: &Upstream) {
    let nodes = json!({ upstream.node(): 1 });
    node.put("routes/all", &json!({ "uri": "/*", "upstream": { "type": "roundrobin", "nodes": nodes } }))
        .await;
    node.serves("/ip").await;
}
