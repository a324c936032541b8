//! Follows a control plane, or an etcd cluster with APISIX's keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{notice::Board, status::Shared};

/// Which control plane, and who asks.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://cp:7900`, `https://cp:7943`; tried in random order.
    pub hosts: Vec<String>,
    /// `/apisix`.
    pub prefix: String,
    /// For connecting and for one request.
    pub timeout: Duration,
    pub user: Option<(String, Arc<str>)>,
    pub tls: Tls,
    pub node: Node,
}

/// For `https` hosts.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Trusted certificates; the system's where none.
    pub ca: Option<PathBuf>,
    /// This node's own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Checks the server's certificate. APISIX's `verify`.
    pub verify: bool,
    /// The name asked for instead of the host's.
    pub sni: Option<String>,
}

/// Who this data plane is, as its heartbeats say.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub instance_id: String,
    pub hostname: String,
    pub ip: String,
    pub version: String,
}

pub(super) async fn follow(_config: Config, _group: String, _board: Board, _shared: Arc<Shared>) {
    std::future::pending().await
}
