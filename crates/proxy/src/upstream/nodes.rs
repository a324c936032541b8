//! The nodes of an upstream, and what chooses among them.
//!
//! The rule to know: a set of nodes is never changed. Where nodes come and go, another set takes its place; a request
//! ends with the set it began with, and pools and health, which go by a node's address, notice nothing.

use std::{ops::Deref, sync::Arc};

use arc_swap::ArcSwap;
use model::resource;

use super::{Node, balance::Balance};
use crate::ctx::Ctx;

/// Nodes and their balancer: immutable.
pub struct NodeSet {
    /// As configured or found, those of weight 0 too.
    pub nodes: Box<[Arc<Node>]>,
    /// None where there is one node.
    balance: Option<Balance>,
}

impl NodeSet {
    /// `conf` says how a node is chosen.
    pub fn new(conf: &resource::Upstream, nodes: Box<[Arc<Node>]>) -> Result<Self, String> {
        let balance = Balance::new(conf, &nodes)?;
        Ok(Self { balance: (nodes.len() != 1).then_some(balance), nodes })
    }

    /// The node for the next attempt: one that is not among `ctx.attempts`. None where no more are left.
    pub fn pick(&self, ctx: &Ctx) -> Option<&Arc<Node>> {
        let tried =
            |at: usize| ctx.attempts.iter().any(|attempt| Arc::ptr_eq(&attempt.node, &self.nodes[at]));
        match &self.balance {
            Some(balance) => balance.pick(ctx, tried).map(|at| &self.nodes[at]),
            None => self.nodes.first().filter(|node| node.weight > 0 && !tried(0)),
        }
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
            Self::Live(live) => Current::Live(live.set.load_full()),
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

/// Nodes that come and go.
pub struct Live {
    set: ArcSwap<NodeSet>,
    conf: resource::Upstream,
}

impl Live {
    pub fn new(conf: &resource::Upstream, nodes: Box<[Arc<Node>]>) -> Result<Self, String> {
        let set = ArcSwap::from_pointee(NodeSet::new(conf, nodes)?);
        Ok(Self { set, conf: resource::Upstream { nodes: Vec::new(), ..conf.clone() } })
    }

    /// Requests that begin from now on go to these.
    pub fn replace(&self, nodes: Box<[Arc<Node>]>) -> Result<(), String> {
        self.set.store(Arc::new(NodeSet::new(&self.conf, nodes)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctx::Attempt;

    fn nodes(ports: &[u16]) -> Box<[Arc<Node>]> {
        ports.iter().map(|&port| Arc::new(Node::new("127.0.0.1", port, 1, 0))).collect()
    }

    #[test]
    fn a_request_ends_with_the_set_it_began_with() {
        let conf = serde_json::from_str(&json!({"service_name": "s"}).to_string()).unwrap();
        let live = Arc::new(Live::new(&conf, nodes(&[1, 2])).unwrap());
        let upstream = Nodes::Live(live.clone());
        let mut ctx = Ctx::example("GET", "/", &[]);
        let began = upstream.current();
        live.replace(nodes(&[3])).unwrap();
        let mut seen = Vec::new();
        while let Some(node) = began.pick(&ctx) {
            seen.push(node.port);
            ctx.attempts.push(Attempt::new(node.clone()));
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert_eq!(upstream.current().pick(&ctx).unwrap().port, 3);
        live.replace(Box::default()).unwrap();
        assert!(upstream.current().pick(&ctx).is_none());
    }
}
