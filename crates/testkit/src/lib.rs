//! For tests only: everything a story about Keelgate needs around it.
//!
//! | to have | use |
//! |---|---|
//! | a port nobody else takes | [`ports::free`] |
//! | something to proxy to | [`upstream::Upstream`] |
//! | a gRPC server to proxy to, and its client | [`grpc::Server`], [`grpc::Client`] |
//! | a DNS server, or a registry of services | [`dns::Dns`], [`registry::Registry`] |
//! | a secret manager | [`secret_manager::SecretManager`] |
//! | a network that fails on command | [`proxy::FaultProxy`] |
//! | packets that vanish | [`firewall::drop_packets`] |
//! | a wall clock that is off | [`clock::Clock`] |
//! | our binary, one node or several | [`gateway::Gateway`] |
//! | etcd, S3 with IAM, Ceph | [`servers`] |
//! | one request, or a connection that is kept | [`http::get`], [`http::Client`] |
//! | the same over HTTP/3 | [`http3::Client`] |
//! | traffic that notices every failure | [`load::Load`] |
//! | a state that comes about some time soon | [`wait::eventually`] |
//!
//! The one rule: wait for a state, never for a time. Whatever is started here stops with its handle, and everything
//! talks to 127.0.0.1 only.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code: a panic is how it fails, and stderr is what the test runner shows with it"
)]

mod background;
pub mod certs;
pub mod clock;
pub mod dns;
pub mod echo;
mod fake;
pub mod firewall;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod http3;
pub mod load;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod pubsub;
pub mod registry;
pub mod secret_manager;
pub mod servers;
pub mod upstream;
pub mod wait;
pub mod ws;
