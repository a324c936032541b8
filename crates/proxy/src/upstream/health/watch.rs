//! What a set of nodes sees of their health.

use std::sync::{Arc, atomic::Ordering::Acquire};

use arc_swap::ArcSwap;
use http::StatusCode;

use super::{Health, Target};
use crate::{
    ctx::Ctx,
    upstream::{
        Node,
        balance::{Balance, Held, Method},
    },
};

/// Chooses among the nodes of a set that are up; among all where none is.
pub struct Watch {
    health: Arc<Health>,
    method: Method,
    /// Of each node.
    targets: Box<[Arc<Target>]>,
    chosen_from: ArcSwap<Up>,
}

/// The nodes that were up when so many turns had been taken.
struct Up {
    turned: u64,
    /// None: all of them, or none.
    balance: Option<Balance>,
}

/// A node's health, for what a request learns of it.
pub struct Watched {
    health: Arc<Health>,
    target: Arc<Target>,
}

impl Watch {
    pub fn new(health: &Arc<Health>, method: &Method, nodes: &[Arc<Node>]) -> Self {
        let never = Up { turned: u64::MAX, balance: None };
        Self {
            health: Arc::clone(health),
            method: method.clone(),
            targets: health.follow(nodes),
            chosen_from: ArcSwap::from_pointee(never),
        }
    }

    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// As [`Balance::pick`] of `all`, of those that are up.
    pub fn pick(
        &self,
        all: &Balance,
        nodes: &[Arc<Node>],
        ctx: &Ctx,
        tried: impl Fn(usize) -> bool,
    ) -> Option<(usize, Option<Held>)> {
        let turned = self.health.turned.load(Acquire);
        let mut up = self.chosen_from.load();
        if up.turned != turned {
            self.chosen_from.store(Arc::new(self.look(turned, all, nodes)));
            up = self.chosen_from.load();
        }
        up.balance.as_ref().unwrap_or(all).pick(ctx, tried)
    }

    fn look(&self, turned: u64, all: &Balance, nodes: &[Arc<Node>]) -> Up {
        let up: Vec<bool> = self.targets.iter().map(|target| target.is_up()).collect();
        let some = up.iter().any(|up| *up) && !up.iter().all(|up| *up);
        if !up.is_empty() && !up.iter().any(|up| *up) {
            tracing::warn!(upstream = self.health.name(), "all nodes are down; requests go to any of them");
        }
        Up { turned, balance: some.then(|| all.among(&up, &self.method, nodes)) }
    }

    /// For what a request learns of this node; none for the one that lets checks begin.
    pub fn watched(&self, at: usize) -> Option<Watched> {
        if !self.health.begin() {
            return None;
        }
        let target = self.targets.get(at)?;
        Some(Watched { health: Arc::clone(&self.health), target: Arc::clone(target) })
    }
}

impl Watched {
    pub fn answered(&self, status: StatusCode) {
        self.health.answered(&self.target, status);
    }

    pub fn failed(&self, timed_out: bool) {
        self.health.failed(&self.target, timed_out);
    }
}
