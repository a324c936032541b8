//! One request on its way, as plugins see it.
//!
//! The rule to know: plugins change `request` (what will be sent to the upstream) before it is sent, and
//! `response` in header_filter; `original` values needed by variables are kept aside by the engine.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::{HeaderMap, Method, StatusCode, Version};
use smallvec::SmallVec;

use crate::plugin::Extension;

/// The head of the request, changed in place by plugins.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query as the client sent it: nginx's `$request_uri`. Never changed.
    pub target: Arc<str>,
    /// The normalised path (decoded, no dot segments): nginx's `$uri`. Routing and plugins use it.
    pub path: String,
    /// The query without `?`: nginx's `$args`.
    pub query: String,
    /// Set by plugins (proxy-rewrite, redirect): the path and query to send upstream instead of the client's.
    pub upstream_target: Option<String>,
    /// Host without port, lower case: nginx's `$host`.
    pub host: String,
    pub scheme: &'static str,
    pub version: Version,
    pub headers: HeaderMap,
}

/// The head of the response on its way to the client.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Who the request was authenticated as.
#[derive(Debug)]
pub struct Consumer {
    pub name: Arc<str>,
    pub credential_id: Option<Arc<str>>,
    pub group_id: Option<Arc<str>>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub custom_id: Option<Arc<str>>,
    /// The authentication plugin's part of this consumer, decrypted.
    pub auth_conf: serde_json::Value,
}

/// One request on its way.
pub struct Ctx {
    pub request: RequestHead,
    pub response: ResponseHead,
    /// The client, after `real_ip`.
    pub client: SocketAddr,
    /// Our end of the connection.
    pub server: SocketAddr,
    pub started: Instant,
    /// The TLS server name the client asked for.
    pub sni: Option<Arc<str>>,
    /// From `:name` segments of the route's URI.
    pub params: SmallVec<[(Arc<str>, String); 2]>,
    pub route_id: Arc<str>,
    pub route_name: Arc<str>,
    pub service_id: Option<Arc<str>>,
    pub service_name: Option<Arc<str>>,
    pub consumer: Option<Arc<Consumer>>,
    /// `X-Request-ID`, once a plugin or a variable asked for it.
    pub request_id: Option<String>,
    pub extensions: SmallVec<[Extension; 2]>,
}

impl Ctx {
    /// Keeps a value for later phases of this request.
    pub fn keep<T: std::any::Any + Send>(&mut self, value: T) {
        self.extensions.push(Box::new(value));
    }

    /// The last value of this type kept by [`Ctx::keep`].
    pub fn kept<T: std::any::Any>(&self) -> Option<&T> {
        self.extensions.iter().rev().find_map(|e| e.downcast_ref())
    }

    /// The same, to change it.
    pub fn kept_mut<T: std::any::Any>(&mut self) -> Option<&mut T> {
        self.extensions.iter_mut().rev().find_map(|e| e.downcast_mut())
    }

    /// A variable by APISIX's name (apisix-variable.md and nginx's), without `$`.
    pub fn var(&self, _name: &str) -> Option<std::borrow::Cow<'_, str>> {
        None
    }

    /// Asks for `body_filter` on this response; the engine drops `Content-Length` unless told the new length.
    pub fn filter_body(&mut self) {}

    /// The consumer that `plugin` knows by `key` in the plan this request holds.
    pub fn find_consumer(&self, _plugin: &str, _key: &str) -> Option<Arc<Consumer>> {
        None
    }

    /// Authenticates the request: the consumer's own plugins join the chain after this phase.
    pub fn attach_consumer(&mut self, consumer: Arc<Consumer>) {
        self.consumer = Some(consumer);
    }
}
