//! A compiled snapshot: what a request reads from start to finish.
//!
//! The rule to know: a plan is never changed. Configuration makes a new one beside it that shares all that did not
//! change, and swaps it in; requests on their way keep the one they began with.

mod alone;
mod build;
mod catalog;
mod compile;
mod consumers;
mod form;
mod report;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use http::StatusCode;
use imbl::{OrdMap, OrdSet};
use model::{Key, Snapshot};
use rustc_hash::FxHashMap;

pub use alone::check;
pub use catalog::Catalog;
pub use compile::{Input, compile};
pub use consumers::Consumers;
pub use report::{Rejected, Report};

use crate::{
    chain::{Chain, Joined},
    ctx::Consumer,
    metrics::RouteMetrics,
    router::{Router, Routing, Rule, Target},
    secrets::Followed,
    stream,
    tls::Certificates,
    upstream::{Timeouts, Upstream, health::Health},
};
use form::{Form, Forms};

/// Chains kept for pairs of route and consumer; beyond that they are made again.
const MOST_JOINED: usize = 65_536;

/// A compiled snapshot.
#[derive(Default)]
pub struct Plan {
    /// What it was compiled from.
    pub snapshot: Snapshot,
    /// Whether it was compiled at all: before the first configuration nobody can say what there is not.
    pub is_configured: bool,
    pub router: Router<Route>,
    /// How requests are matched.
    pub routing: Routing,
    /// The routes of TCP and UDP sessions.
    pub streams: stream::Router,
    pub certificates: Certificates,
    /// The global rules. They run for every request, before the route's plugins.
    pub global: Arc<Chain>,
    pub consumers: Consumers,
    bare: Arc<Chain>,
    /// Chains of routes joined with consumers' plugins, by the addresses of both; made when first needed.
    joined: RwLock<FxHashMap<(usize, usize), Arc<Joined>>>,
    forms: Forms,
    /// Who refers to whom: what is referred to, then who does.
    links: OrdSet<(Key, Key)>,
    /// The secrets that resources refer to, whether they are in force or not.
    secrets: OrdMap<Key, Arc<[Arc<Followed>]>>,
    /// References whose secret manager is not there, by who refers to them.
    unmanaged: OrdMap<Key, Arc<BTreeSet<Box<str>>>>,
    rejected: OrdMap<Key, Rejected>,
    /// Global rules that are in each other's way.
    conflicts: Arc<[Rejected]>,
}

impl Plan {
    /// The chain of everything that has no plugins.
    pub fn no_plugins(&self) -> &Arc<Chain> {
        &self.bare
    }

    /// A route by its id, as it is served.
    pub fn route(&self, id: &str) -> Option<&Arc<Route>> {
        match self.forms.get(&Key::new(model::Kind::Routes, id)) {
            Some(Form::Route(route)) => Some(route),
            _ => None,
        }
    }

    /// An upstream by its id, as it is served: for plugins that choose another than the route's.
    pub fn upstream(&self, id: &str) -> Option<&Arc<Upstream>> {
        match self.forms.get(&Key::new(model::Kind::Upstreams, id)) {
            Some(Form::Upstream(upstream)) => Some(upstream),
            _ => None,
        }
    }

    /// Whether an upstream in force has its nodes' health from here.
    pub fn checks(&self, health: &Arc<Health>) -> bool {
        let owner = health.name().strip_suffix("#upstream").unwrap_or(health.name());
        let upstream =
            owner.parse::<Key>().ok().and_then(|key| self.forms.get(&key)).and_then(Form::upstream);
        upstream.is_some_and(|upstream| upstream.nodes.current().is_checked_by(health))
    }

    /// The references to secrets that nobody can be asked for: their manager is missing, or was refused.
    pub fn unmanaged(&self) -> BTreeSet<&str> {
        self.unmanaged.values().flat_map(|references| references.iter().map(|one| &**one)).collect()
    }

    /// The chain of a route for a consumer; none where the consumer brings no plugins.
    pub(crate) fn join(&self, chain: &Arc<Chain>, consumer: &Consumer) -> Option<Arc<Joined>> {
        if consumer.plugins.is_empty() {
            return None;
        }
        // Both live as long as this plan, so their addresses are theirs alone.
        let key = (Arc::as_ptr(chain).addr(), consumer.plugins.address());
        if let Some(known) = self.joined.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(Arc::clone(known));
        }
        let joined = Arc::new(Joined::new(chain, &consumer.plugins));
        let mut all = self.joined.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_JOINED {
            all.clear();
        }
        Some(Arc::clone(all.entry(key).or_insert(joined)))
    }

    /// A plan of the same, to be changed before anyone sees it.
    fn share(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            is_configured: self.is_configured,
            router: self.router.clone(),
            routing: self.routing,
            streams: self.streams.clone(),
            certificates: self.certificates.clone(),
            global: self.global.clone(),
            consumers: self.consumers.clone(),
            bare: self.bare.clone(),
            joined: RwLock::default(),
            forms: self.forms.clone(),
            links: self.links.clone(),
            secrets: self.secrets.clone(),
            unmanaged: self.unmanaged.clone(),
            rejected: self.rejected.clone(),
            conflicts: self.conflicts.clone(),
        }
    }
}

/// A route with everything merged: plugin config ⊕ service ⊕ route. What every request reads comes first, in one line
/// of memory: of many routes, each is a stranger to the caches.
#[repr(C)]
pub struct Route {
    pub chain: Arc<Chain>,
    /// None: a plugin must answer, or the client gets APISIX's 503.
    pub upstream: Option<Arc<Upstream>>,
    /// They stand in the place of the upstream's: see [`crate::ctx::Ctx::timeouts`].
    pub timeouts: Option<Box<Timeouts>>,
    /// Whether `Upgrade: websocket` is passed on.
    pub websocket: bool,
    /// Which requests it is for.
    pub rule: Rule,
    pub id: Arc<str>,
    pub name: Option<Arc<str>>,
    pub service: Option<Arc<Service>>,
    /// Metric handles, made when they are first used.
    pub metrics: RouteMetrics,
    /// What is answered in the place of an upstream: something was wrong with the route, or missing, ever since there
    /// was this route. It is there nevertheless: no broader route may take its requests. 404: it was refused as a whole.
    pub lacks: Option<StatusCode>,
    /// With an `Arc`'s two counters the next one begins in a line of its own too.
    pub(crate) end_of_line: [u64; 3],
}

const _: () = assert!((size_of::<Route>() + 2 * size_of::<usize>()).is_multiple_of(64));

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

#[cfg(test)]
mod tests;
