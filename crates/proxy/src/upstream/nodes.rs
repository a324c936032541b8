//! The nodes of an upstream, and what chooses among them.
//!
//! The rule to know: a set of nodes is never changed. Where nodes come and go, another set takes its place; a request
//! ends with the set it began with, and pools and health, which go by a node's address, notice nothing.

use std::{ops::Deref, sync::Arc};

use super::{
    Node,
    balance::{Balance, Held, Method},
    health::{Health, Watch, Watched},
    live::Live,
};
use crate::ctx::Ctx;

/// How nodes of one upstream are chosen, whatever nodes it has.
#[derive(Clone)]
pub struct Choice {
    pub method: Method,
    /// None: they are not checked.
    pub health: Option<Arc<Health>>,
}

/// A node chosen for an attempt.
pub struct Chosen {
    pub node: Arc<Node>,
    /// Counts the attempt as work of the node.
    pub held: Option<Held>,
    /// Set where the node's health depends on what becomes of the attempt.
    pub watched: Option<Watched>,
}

/// Nodes and their balancer: immutable.
#[derive(Default)]
pub struct NodeSet {
    /// As configured or found, those of weight 0 too.
    pub nodes: Box<[Arc<Node>]>,
    /// None where there is no choice.
    balance: Option<Balance>,
    watch: Option<Box<Watch>>,
}

impl From<Arc<Node>> for Chosen {
    fn from(node: Arc<Node>) -> Self {
        Self { node, held: None, watched: None }
    }
}

impl NodeSet {
    pub fn new(choice: &Choice, nodes: Box<[Arc<Node>]>) -> Self {
        let Choice { method, health } = choice;
        let chooses = nodes.len() != 1 || method.counts();
        Self {
            balance: chooses.then(|| Balance::new(method, &nodes)),
            watch: health.as_ref().map(|health| Box::new(Watch::new(health, method, &nodes))),
            nodes,
        }
    }

    /// Whether this is the health of its nodes.
    pub fn is_checked_by(&self, health: &Arc<Health>) -> bool {
        self.watch.as_ref().is_some_and(|watch| Arc::ptr_eq(watch.health(), health))
    }

    /// Whether it is more than its nodes: what became of requests decides where others go.
    pub fn remembers(&self) -> bool {
        self.balance.is_some() || self.watch.is_some()
    }

    /// The node for the next attempt: one that is not among `ctx.attempts`, unless there is only one. None where no
    /// more are left.
    pub fn pick(&self, ctx: &Ctx) -> Option<Chosen> {
        let only = self.nodes.len() == 1;
        let tried = |at: usize| {
            !only && ctx.attempts.iter().any(|attempt| Arc::ptr_eq(&attempt.node, &self.nodes[at]))
        };
        let (at, held) = match (&self.balance, &self.watch) {
            (None, _) => (0, None),
            (Some(balance), None) => balance.pick(ctx, tried)?,
            (Some(balance), Some(watch)) => watch.pick(balance, &self.nodes, ctx, tried)?,
        };
        let watched = self.watch.as_ref().and_then(|watch| watch.watched(at));
        Some(Chosen { node: Arc::clone(self.nodes.get(at)?), held, watched })
    }
}

/// Where an upstream has its nodes from.
pub enum Nodes {
    /// Its configuration names their addresses.
    Fixed(NodeSet),
    /// They come and go while the plan stays.
    Live(Arc<Live>),
}

impl Nodes {
    /// The set in force.
    pub fn current(&self) -> Current<'_> {
        match self {
            Self::Fixed(set) => Current::Fixed(set),
            Self::Live(live) => Current::Live(live.current()),
        }
    }

    /// The same; where nobody knows yet where the nodes are, waits for the first answer.
    pub async fn settled(&self) -> Current<'_> {
        match self {
            Self::Fixed(set) => Current::Fixed(set),
            // Boxed: it rarely waits, and every request would have to carry the room for it.
            Self::Live(live) => Current::Live(Box::pin(live.settled()).await),
        }
    }
}

/// The set a request goes by from its first attempt to its last.
pub enum Current<'a> {
    Fixed(&'a NodeSet),
    Live(Arc<NodeSet>),
}

impl Deref for Current<'_> {
    type Target = NodeSet;

    fn deref(&self) -> &NodeSet {
        match self {
            Self::Fixed(set) => set,
            Self::Live(set) => set,
        }
    }
}
