//! An upstream: the servers a request can go to, and how one of them is chosen and spoken to.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Hidden, Id, Node, Timeout, lenient, node};

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Upstream {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    /// Empty where they come from discovery.
    #[serde(default, deserialize_with = "node::read")]
    pub nodes: Vec<Node>,
    /// How often another node is tried; where none is given, once for every other node.
    #[serde(default, deserialize_with = "lenient::some_count")]
    pub retries: Option<u32>,
    /// Seconds after which no other node is tried; 0 is no limit.
    #[serde(default)]
    pub retry_timeout: f64,
    #[serde(default)]
    pub timeout: Option<Timeout>,
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
    #[serde(default)]
    pub keepalive_pool: Option<KeepalivePool>,
    #[serde(default, rename = "type")]
    pub kind: Balance,
    /// Health checks, as they are written.
    #[serde(default)]
    pub checks: Option<Value>,
    #[serde(default)]
    pub hash_on: HashOn,
    /// What [`Balance::Chash`] hashes.
    #[serde(default)]
    pub key: Option<Box<str>>,
    #[serde(default)]
    pub scheme: Scheme,
    #[serde(default)]
    pub service_name: Option<Box<str>>,
    #[serde(default)]
    pub discovery_type: Option<Box<str>>,
    #[serde(default)]
    pub discovery_args: Option<Value>,
    #[serde(default)]
    pub pass_host: PassHost,
    /// The host sent with [`PassHost::Rewrite`].
    #[serde(default)]
    pub upstream_host: Option<Box<str>>,
}

impl Upstream {
    /// Whether its nodes come from discovery.
    pub fn is_discovered(&self) -> bool {
        self.service_name.is_some()
    }
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    #[default]
    #[serde(rename = "roundrobin")]
    RoundRobin,
    Chash,
    Ewma,
    LeastConn,
    /// Nothing is: only with [`Scheme::Kafka`].
    None,
}

/// What is hashed with [`Balance::Chash`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    #[default]
    Vars,
    Header,
    Cookie,
    Consumer,
    VarsCombinations,
}

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    #[default]
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Tls,
    Udp,
    Kafka,
}

impl Scheme {
    /// The port of a node that names none.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http | Self::Grpc => Some(80),
            Self::Https | Self::Grpcs => Some(443),
            Self::Tcp | Self::Tls | Self::Udp | Self::Kafka => None,
        }
    }

    /// Whether the connection to the node is encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs | Self::Tls)
    }
}

/// Which `Host` a node is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassHost {
    /// The client's.
    #[default]
    Pass,
    /// The node's.
    Node,
    /// `upstream_host`.
    Rewrite,
}

/// Idle connections kept to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct KeepalivePool {
    #[serde(deserialize_with = "lenient::count")]
    pub size: u32,
    /// Seconds; 0 is no limit.
    pub idle_timeout: f64,
    /// After how many requests a connection is closed.
    #[serde(deserialize_with = "lenient::count")]
    pub requests: u32,
}

impl Default for KeepalivePool {
    fn default() -> Self {
        Self { size: 320, idle_timeout: 60.0, requests: 1000 }
    }
}

/// What we show a node that asks for a certificate, and whether we check its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct UpstreamTls {
    /// A certificate among `ssls`, of type `client`.
    #[serde(default)]
    pub client_cert_id: Option<Id>,
    #[serde(default)]
    pub client_cert: Option<Box<str>>,
    #[serde(default)]
    pub client_key: Option<Hidden>,
    #[serde(default)]
    pub verify: bool,
}
