//! Which route a request is for.

use std::{marker::PhantomData, net::IpAddr, sync::Arc};

use smallvec::SmallVec;

use crate::ctx::Ctx;

/// Routes, found by host and path.
pub struct Router<T> {
    kind: PhantomData<T>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { kind: PhantomData }
    }
}

/// Which requests a route is for.
#[derive(Debug, Default)]
pub struct Rule {
    pub priority: i64,
    /// URIs as configured.
    pub paths: Box<[Box<str>]>,
    /// Hosts as configured, in lower case, the service's where the route has none.
    pub hosts: Box<[Box<str>]>,
}

/// Which of a rule's URIs and hosts matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchedBy {
    pub path: u16,
    /// None where the rule has no hosts.
    pub host: Option<u16>,
}

/// What [`Router::find`] finds.
pub struct Found<'a, T> {
    pub target: &'a Arc<T>,
    pub by: MatchedBy,
    pub params: Params,
}

/// Values of the named segments of a route's URI.
pub type Params = SmallVec<[(Arc<str>, Box<str>); 2]>;

impl<T> Router<T> {
    /// The route for this request.
    pub fn find(&self, _ctx: &Ctx) -> Option<Found<'_, T>> {
        let _: Option<IpAddr> = None;
        None
    }
}
