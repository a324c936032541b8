//! The promise: whatever becomes of control plane and backup, a data plane serves, and says from where.
//!
//! | story | file |
//! |---|---|
//! | everything around a data plane dies, hangs and comes back | `automatic.rs` |
//! | a control plane comes back without what it had | `comeback.rs` |
//! | the first moments of a node, a damaged store, a disk that takes nothing | `beginnings.rs` |
//! | a backup that moves, or begins anew | `other_buckets.rs` |
//! | objects in the bucket that nobody should believe | `bad_objects.rs` |
//! | storage that refuses, fails, hangs | `bad_storage.rs` |
//! | registries and DNS are dead at a restart | `registries.rs` |
//! | a secret manager is dead, refuses, at a restart too | `secret_managers.rs` |
//! | reloads while everything is under way | `reload.rs` |
//! | calls and sockets that stay open throughout | `streams.rs` |
//! | TCP sessions | `tcp.rs` |
//! | what bucket and line must not give away, or be believed | `secrets.rs`, `links.rs` |
//! | etcdctl, the AWS CLI, a stock `apisix.json` | `stock_clients.rs` |
//!
//! The one rule: everything is real, the binary, the S3 server, the kills; and a test waits for states, never for times.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

mod automatic;
mod bad_objects;
mod bad_storage;
mod beginnings;
mod comeback;
mod door;
mod links;
mod other_buckets;
mod registries;
mod reload;
mod secret_managers;
mod secrets;
mod setup;
mod stock_clients;
mod streams;
mod tcp;
