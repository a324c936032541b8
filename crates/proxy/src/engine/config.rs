//! What the engine is told by the process's settings.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;
use ipnet::IpNet;

use super::real_ip::RealIp;
use crate::{access_log, stream};

/// Settings of the engine. Everything in it may change while it runs.
#[derive(Clone)]
pub struct Config {
    pub listeners: Vec<Listener>,
    /// Where HTTP/3 is listened for, over UDP.
    pub quic: Vec<SocketAddr>,
    /// Threads, each with its own connections to clients and upstreams.
    pub workers: usize,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// None: no access log.
    pub access_log: Option<Arc<access_log::Format>>,
    /// Where the access log goes.
    pub access_log_file: Option<PathBuf>,
    /// `Server` of every response.
    pub server: Option<HeaderValue>,
    /// `X-APISIX-Upstream-Status` on every response, not only on errors of the upstream.
    pub show_upstream_status: bool,
    /// Peers whose `X-Forwarded-*` are believed. APISIX's `trusted_addresses`.
    pub trusted: Vec<IpNet>,
    /// Who the client is behind proxies of ours; none: always the peer.
    pub real_ip: Option<RealIp>,
    /// Whether fields with underscores in their names count; else they are dropped, as nginx does by itself.
    pub underscores: bool,
    /// The name taken for TLS clients that say none.
    pub fallback_sni: Option<Arc<str>>,
    pub stream: stream::Settings,
}

/// An address clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: bool,
    /// Over TLS offered by ALPN, without TLS expected of whoever begins with its preface.
    pub http2: bool,
    /// Every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Set where TCP sessions come in, not HTTP.
    pub stream: Option<stream::Port>,
}

impl Listener {
    /// Plain HTTP/1.1 there.
    pub const fn at(address: SocketAddr) -> Self {
        Self { address, tls: false, http2: false, proxy_protocol: false, stream: None }
    }
}

/// How much a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head: usize,
    /// Bytes of a request line, and of any one field.
    pub line: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// Bytes of a request's body; zero: any number.
    pub body: u64,
}

/// How long a client may take, and how long we take to stop.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Between two requests.
    pub keepalive: Duration,
    /// For a whole request head, and for the TLS handshake.
    pub client_header: Duration,
    /// Between two reads of a request's body.
    pub client_body: Duration,
    /// Between two writes of a response.
    pub send: Duration,
    /// For requests in flight, when the engine stops.
    pub shutdown: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![],
            quic: vec![],
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            // nginx's `large_client_header_buffers 4 8k`.
            limits: Limits { head: 32 * 1024, line: 8 * 1024, fields: 100, body: 0 },
            timeouts: Timeouts::default(),
            access_log: None,
            access_log_file: None,
            server: None,
            show_upstream_status: false,
            trusted: vec![],
            real_ip: None,
            underscores: true,
            fallback_sni: None,
            stream: stream::Settings::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            keepalive: minute,
            client_header: minute,
            client_body: minute,
            send: Duration::from_secs(10),
            shutdown: Duration::from_secs(240),
        }
    }
}
