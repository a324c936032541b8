//! Where requests go: nodes, how one is chosen, how it is reached.

mod balance;
mod build;
mod client_tls;
pub mod discovery;
pub mod health;
mod live;
mod nodes;
pub mod pool;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use balance::Held;
pub use build::{Means, Shared};
pub use client_tls::{ClientTls, Identity};
pub use live::Live;
pub use nodes::{Choice, Chosen, Current, NodeSet, Nodes};

use crate::ctx::Ctx;

/// An upstream, compiled. Shared by every route that names it.
pub struct Upstream {
    /// `upstreams/1`, or `routes/1#upstream` where it stands inside a route or service.
    pub name: Arc<str>,
    pub scheme: Scheme,
    pub pass_host: PassHost,
    pub nodes: Nodes,
    /// Further nodes tried after a failed connect; none: as many as there are others. See [`Upstream::retries`].
    pub retries: Option<u32>,
    /// No further try begins after so long; zero: no limit.
    pub retry_timeout: Duration,
    pub timeouts: Timeouts,
    /// How long a TCP or UDP session may be silent: as a read, where that is configured, or nginx's ten minutes.
    pub session_idle: Duration,
    pub keepalive: Keepalive,
    /// Set for `https`, `grpcs` and `tls`, and for `kafka` where `tls` is configured.
    pub tls: Option<ClientTls>,
    /// Identifies the pool of connections: same fingerprint, same connections, whatever else changed.
    pub fingerprint: u64,
}

impl Upstream {
    /// How many further nodes of `set` are tried.
    pub fn retries(&self, set: &NodeSet) -> usize {
        self.retries.map_or(set.nodes.len().saturating_sub(1), |retries| retries as usize)
    }

    /// `Host` for a node: what `pass_host` says comes before what plugins say, as in APISIX.
    pub fn host<'a>(&'a self, ctx: &'a Ctx, node: &'a Node) -> &'a [u8] {
        match &self.pass_host {
            PassHost::Pass => ctx.passed_host(),
            PassHost::Rewrite(host) => host.as_bytes(),
            PassHost::Node => match (self.scheme, node.port) {
                (Scheme::Http | Scheme::Grpc, 80) | (Scheme::Https | Scheme::Grpcs, 443) => {
                    node.host.as_bytes()
                }
                _ => node.authority.as_bytes(),
            },
        }
    }
}

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    Grpc,
    Grpcs,
    /// Of sessions, as `Tls` and `Udp`. Over which of the two transports a session goes is said by its listener.
    Tcp,
    Tls,
    Udp,
    /// Asked by [`crate::pubsub`] on behalf of clients; its brokers choose among themselves.
    Kafka,
}

impl Scheme {
    /// APISIX's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::Kafka => "kafka",
        }
    }

    /// Whether HTTP/2 is spoken.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }

    /// Whether the connection is encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs | Self::Tls)
    }

    /// Whether it is no kind of HTTP.
    pub const fn is_of_streams(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Udp)
    }
}

/// Which `Host` the upstream sees. APISIX's `pass_host`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's host, with its port unless it is the scheme's own.
    Node,
    Rewrite(Arc<str>),
}

/// One node of an upstream.
#[derive(Debug, PartialEq)]
pub struct Node {
    /// As configured or found: a name or an address.
    pub host: Arc<str>,
    pub port: u16,
    pub weight: u32,
    /// Nodes of a lower number are used only when all of a higher one have failed.
    pub priority: i64,
    /// Where it is. None where that is not known, which no node of a set is that requests go by.
    pub address: Option<SocketAddr>,
    /// `address:port`, for connections, logs and metrics.
    pub label: Arc<str>,
    /// `host:port`, for `Host`.
    pub authority: Arc<str>,
}

/// Seconds in the configuration; the defaults are APISIX's 60 s each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Between two writes.
    pub send: Duration,
    /// Between two reads.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: minute, send: minute, read: minute }
    }
}

/// APISIX's `keepalive_pool`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keepalive {
    /// Idle connections kept, per worker. Default 320.
    pub size: usize,
    /// Default 60 s.
    pub idle_timeout: Duration,
    /// Requests per connection. Default 1000.
    pub requests: u64,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { size: 320, idle_timeout: Duration::from_secs(60), requests: 1000 }
    }
}
