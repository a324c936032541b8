//! A compiled snapshot: what a request reads from start to finish.
//!
//! The rule to know: a plan is never changed. Configuration makes a new one beside it that shares all that did not
//! change, and swaps it in; requests on their way keep the one they began with.

mod consumers;

use std::sync::Arc;

use model::Snapshot;

pub use consumers::Consumers;

use crate::{
    chain::Chain,
    metrics::RouteMetrics,
    router::{Router, Rule, Target},
    tls::Certificates,
    upstream::Upstream,
};

/// A compiled snapshot.
#[derive(Default)]
pub struct Plan {
    /// What it was compiled from.
    pub snapshot: Snapshot,
    pub router: Router<Route>,
    pub certificates: Certificates,
    /// The global rules. They run for every request, before the route's plugins.
    pub global: Arc<Chain>,
    pub consumers: Consumers,
    bare: Arc<Chain>,
}

impl Plan {
    /// The chain of everything that has no plugins.
    pub fn no_plugins(&self) -> &Arc<Chain> {
        &self.bare
    }
}

/// A route with everything merged: plugin config ⊕ service ⊕ route.
pub struct Route {
    pub id: Arc<str>,
    pub name: Option<Arc<str>>,
    pub service: Option<Arc<Service>>,
    /// Which requests it is for.
    pub rule: Rule,
    pub chain: Arc<Chain>,
    /// None: a plugin must answer, or the client gets APISIX's 503.
    pub upstream: Option<Arc<Upstream>>,
    /// Whether `Upgrade: websocket` is passed on.
    pub websocket: bool,
    /// Metric handles, made when they are first used.
    pub metrics: RouteMetrics,
}

impl Target for Route {
    fn id(&self) -> &str {
        &self.id
    }

    fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// What is known of a route's service while a request is served.
#[derive(Debug)]
pub struct Service {
    pub id: Arc<str>,
    pub name: Option<Arc<str>>,
}
