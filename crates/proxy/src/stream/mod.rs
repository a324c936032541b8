//! TCP and UDP: sessions instead of requests.
//!
//! The rule to know: a session is matched once, by the plan in force when it comes, and keeps what it found to its end.
//! A route that changes or goes is for sessions to come.

mod datagrams;
mod metrics;
mod pump;
mod router;
pub(crate) mod tcp;
pub(crate) mod udp;
mod way;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use http::StatusCode;
use ipnet::IpNet;

pub use metrics::Metrics;
pub(crate) use pump::{BUFFER, Scratch};
pub use router::{Query, Router, Rule};

use crate::{
    access_log,
    chain::{self, Chain},
    ctx::Ctx,
    engine::worker::Worker,
    plan::Service,
    upstream::Upstream,
};

/// Settings of streams. Everything in it may change while they flow.
#[derive(Clone, Default)]
pub struct Settings {
    /// Where UDP sessions come in.
    pub udp: Vec<SocketAddr>,
    /// Load balancers whose PROXY header says who the client is.
    pub trusted: Vec<IpNet>,
    /// None: no access log.
    pub access_log: Option<Arc<access_log::Format>>,
    /// Where the access log goes.
    pub access_log_file: Option<PathBuf>,
}

/// APISIX's `nginx_config.stream.access_log_format`.
pub const DEFAULT_LOG_FORMAT: &str =
    "$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time";

/// What a port of TCP sessions has beside its address and TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port {
    /// Every connection to a node begins with a header of the PROXY protocol.
    pub proxy_protocol_to_upstream: bool,
}

/// A route of sessions, with its service merged in.
pub struct Route {
    pub id: Arc<str>,
    pub name: Option<Arc<str>>,
    pub service: Option<Arc<Service>>,
    /// Which sessions it is for.
    pub rule: Rule,
    pub chain: Arc<Chain>,
    /// None: its sessions end where they would be passed on.
    pub upstream: Option<Arc<Upstream>>,
}

/// What a session has in the place of a request.
pub struct Session {
    pub protocol: Protocol,
    /// None before it is matched, and where no route fits.
    pub route: Option<Arc<Route>>,
    /// The listening address, as configured.
    pub listener: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// nginx's `$protocol`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A session is over: what is counted and written of it.
fn finish(worker: &Worker, ctx: &mut Ctx, status: StatusCode) {
    ctx.response.status = status;
    let (elapsed, received) = (ctx.started.elapsed(), ctx.transfer.sent);
    if let Some(attempt) = ctx.attempts.last_mut()
        && attempt.connected.is_some()
    {
        attempt.received = received;
        attempt.finished = Some(elapsed);
        attempt.finish(status);
    }
    chain::log(ctx);
    if let Some(how) = ctx.counted() {
        worker.shared.streams.count(ctx, how);
    }
    let log = worker.config().stream.access_log.clone();
    if let Some(format) = log {
        worker.stream_log.borrow_mut().write(&format, ctx);
    }
}
