//! Routes: what a request must look like, and what is done with it; services, which routes share; and the routes
//! of plain TCP and UDP.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Id, Plugins, Status, Timeout, Upstream, lenient};

/// Which requests, and what is done with them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Route {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    /// Either this or `uris`: see [`Route::uris`].
    #[serde(default)]
    pub uri: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub uris: Vec<Box<str>>,
    /// Of routes that fit equally well the highest wins.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub priority: i64,
    /// Empty: any.
    #[serde(default, deserialize_with = "lenient::list")]
    pub methods: Vec<Box<str>>,
    /// Either this or `hosts`, or neither: see [`Route::hosts`].
    #[serde(default)]
    pub host: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub hosts: Vec<Box<str>>,
    /// Either this or `remote_addrs`, or neither: see [`Route::remote_addrs`].
    #[serde(default)]
    pub remote_addr: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub remote_addrs: Vec<Box<str>>,
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// Further conditions: the rules of [`crate::expr::Expr`].
    #[serde(default)]
    pub vars: Option<Value>,
    #[serde(default)]
    pub filter_func: Option<Box<str>>,
    #[serde(default)]
    pub script: Option<Box<str>>,
    #[serde(default)]
    pub script_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
    #[serde(default)]
    pub plugin_config_id: Option<Id>,
    #[serde(default)]
    pub upstream: Option<Upstream>,
    #[serde(default)]
    pub service_id: Option<Id>,
    #[serde(default)]
    pub upstream_id: Option<Id>,
    #[serde(default)]
    pub enable_websocket: Option<bool>,
    #[serde(default)]
    pub status: Status,
}

impl Route {
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.uri.iter().chain(&self.uris).map(|uri| &**uri)
    }

    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host.iter().chain(&self.hosts).map(|host| &**host)
    }

    pub fn remote_addrs(&self) -> impl Iterator<Item = &str> {
        self.remote_addr.iter().chain(&self.remote_addrs).map(|address| &**address)
    }
}

/// What routes share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Service {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
    #[serde(default)]
    pub upstream: Option<Upstream>,
    #[serde(default)]
    pub upstream_id: Option<Id>,
    #[serde(default)]
    pub script: Option<Box<str>>,
    #[serde(default)]
    pub enable_websocket: Option<bool>,
    /// The hosts of routes that name none.
    #[serde(default, deserialize_with = "lenient::list")]
    pub hosts: Vec<Box<str>>,
}

/// Which connections, and where they go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StreamRoute {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default)]
    pub remote_addr: Option<Box<str>>,
    #[serde(default)]
    pub server_addr: Option<Box<str>>,
    #[serde(default)]
    pub server_port: Option<u16>,
    #[serde(default)]
    pub sni: Option<Box<str>>,
    #[serde(default)]
    pub upstream: Option<Upstream>,
    #[serde(default)]
    pub upstream_id: Option<Id>,
    #[serde(default)]
    pub service_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
    /// The protocol spoken on top, as it is written.
    #[serde(default)]
    pub protocol: Option<Value>,
}
