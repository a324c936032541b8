//! Nodes that come and go: those of a service that a registry knows, and those whose host is a name.
//!
//! The rule to know: a name with several addresses is as many nodes, which share the weight of the one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use model::resource;
use rustc_hash::FxHashMap;
use tokio::{sync::Notify, time::timeout};

use super::{
    Choice, Node, NodeSet,
    discovery::{Answer, Directory, Endpoint, Kind, Query, nacos_key},
};

/// The nodes of one upstream, whatever its answers are.
pub struct Live {
    /// As configured.
    nodes: Vec<resource::Node>,
    /// The service that the nodes are those of, in the place of configured ones.
    service: Option<Arc<Answer>>,
    scheme: resource::Scheme,
    choice: Choice,
    directory: Directory,
    /// The names that nodes have now.
    names: Mutex<FxHashMap<Box<str>, Arc<Answer>>>,
    set: ArcSwapOption<NodeSet>,
    changed: Notify,
}

impl Live {
    /// Whether an upstream's nodes come and go.
    pub fn is_needed(conf: &resource::Upstream) -> bool {
        conf.is_discovered() || conf.nodes.iter().any(|node| ip(&node.host).is_none())
    }

    pub fn new(
        conf: &resource::Upstream,
        choice: Choice,
        service: Option<Query>,
        directory: &Directory,
    ) -> Arc<Self> {
        let live = Arc::new(Self {
            nodes: conf.nodes.clone(),
            service: service.map(|query| directory.follow(query)),
            scheme: conf.scheme,
            choice,
            directory: directory.clone(),
            names: Mutex::default(),
            set: ArcSwapOption::empty(),
            changed: Notify::new(),
        });
        if let Some(service) = &live.service {
            service.tell(&live);
        }
        live.rebuild();
        live
    }

    /// The set in force.
    pub fn current(&self) -> Arc<NodeSet> {
        self.set.load_full().unwrap_or_default()
    }

    /// The set in force; where there is none yet because nobody has answered, waits for that a while.
    pub async fn settled(&self) -> Arc<NodeSet> {
        let set = self.current();
        if !set.nodes.is_empty() || self.is_settled() {
            return set;
        }
        let answered = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if self.is_settled() || !self.current().nodes.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(self.directory.patience(), answered).await;
        self.current()
    }

    /// What the answers are has changed.
    pub fn rebuild(self: &Arc<Self>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted();
        names.retain(|name, _| wanted.iter().any(|endpoint| endpoint.host == *name));
        let found: Vec<Vec<IpAddr>> =
            wanted.iter().map(|endpoint| self.addresses(&endpoint.host, &mut names)).collect();
        let shares = shares(found.iter().map(Vec::len));
        let mut nodes = Vec::with_capacity(wanted.len());
        for ((endpoint, ips), share) in wanted.iter().zip(&found).zip(shares) {
            let Some(port) = self.port(endpoint) else { continue };
            let (weight, priority) = (endpoint.weight.saturating_mul(share), endpoint.priority.unwrap_or(0));
            let node = |ip: &IpAddr| Node::at(&endpoint.host, SocketAddr::new(*ip, port), weight, priority);
            nodes.extend(ips.iter().map(node).map(Arc::new));
        }
        let current = self.set.load();
        if current.as_ref().is_none_or(|current| *current.nodes != *nodes) {
            self.set.store(Some(Arc::new(NodeSet::new(&self.choice, nodes.into()))));
        }
        drop(names);
        self.changed.notify_waiters();
    }

    /// The nodes as they are configured, or as the service has them.
    fn wanted(&self) -> Vec<Endpoint> {
        if let Some(service) = &self.service {
            return service.state().endpoints.to_vec();
        }
        let endpoint = |node: &resource::Node| Endpoint {
            priority: Some(node.priority),
            ..Endpoint::new(&node.host, node.port, node.weight)
        };
        self.nodes.iter().map(endpoint).collect()
    }

    /// The addresses of a host, as far as they are known.
    fn addresses(self: &Arc<Self>, host: &str, names: &mut FxHashMap<Box<str>, Arc<Answer>>) -> Vec<IpAddr> {
        if let Some(ip) = ip(host) {
            return vec![ip];
        }
        let answer = names.entry(host.into()).or_insert_with(|| {
            let answer = self.directory.follow(Query { kind: Kind::Host, name: host.into() });
            answer.tell(self);
            answer
        });
        answer.state().endpoints.iter().filter_map(|endpoint| ip(&endpoint.host)).collect()
    }

    fn port(&self, endpoint: &Endpoint) -> Option<u16> {
        let scheme = self.scheme;
        let grpc = matches!(scheme, resource::Scheme::Grpc | resource::Scheme::Grpcs);
        endpoint.grpc_port.filter(|_| grpc).or(endpoint.port).or_else(|| scheme.default_port())
    }

    fn is_settled(&self) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        self.service.iter().chain(names.values()).all(|answer| answer.state().settled)
    }
}

/// The service that an upstream's nodes are those of.
pub fn query(conf: &resource::Upstream) -> Result<Option<Query>, String> {
    let Some(service) = conf.service_name.as_deref() else { return Ok(None) };
    let discovery = conf.discovery_type.as_deref().unwrap_or_default();
    let Some(kind) = Kind::of(discovery) else {
        return Err(format!("there is no discovery of type `{discovery}`"));
    };
    let name = if kind == Kind::Nacos {
        let argument = |name: &str| conf.discovery_args.as_ref()?.get(name)?.as_str();
        nacos_key(argument("namespace_id"), argument("group_name"), service)
    } else {
        service.to_owned()
    };
    Ok(Some(Query { kind, name: name.into() }))
}

/// What the weights of hosts are multiplied by, so that each host's addresses can share its own evenly.
pub fn shares(counts: impl Iterator<Item = usize> + Clone) -> Vec<u32> {
    /// Beyond that shares are rounded.
    const MOST: usize = 1000;
    let of_some = |count: &usize| *count > 0;
    let common = counts.clone().filter(of_some).fold(1, |common, count| {
        let gcd = (1..=count.min(common)).rev().find(|by| count % by == 0 && common % by == 0).unwrap_or(1);
        (common / gcd * count).min(MOST)
    });
    counts.map(|count| u32::try_from((common / count.max(1)).max(1)).unwrap_or(1)).collect()
}

/// A host that is an address, with or without brackets.
fn ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        ctx::{Attempt, Ctx},
        upstream::{Nodes, balance::Method},
    };

    /// What is followed is not asked for: the test answers.
    fn live(conf: &Value) -> Arc<Live> {
        let conf = serde_json::from_str(&conf.to_string()).unwrap();
        let choice = Choice { method: Method::RoundRobin, health: None };
        Live::new(&conf, choice, None, &Directory::default())
    }

    fn answer(live: &Live, name: &str, ips: &[&str]) {
        let answer = Arc::clone(&live.names.lock().unwrap()[name]);
        answer.publish(ips.iter().map(|ip| Endpoint::new(ip, None, 1)).collect());
    }

    fn weights(live: &Live) -> Vec<(String, u32)> {
        live.current().nodes.iter().map(|node| (node.label.to_string(), node.weight)).collect()
    }

    #[test]
    fn a_names_addresses_share_its_weight() {
        let live = live(&json!({"nodes": {"a.test:80": 3, "b.test:81": 1, "10.0.0.9:82": 2}}));
        assert_eq!(weights(&live), [("10.0.0.9:82".to_owned(), 2)]);
        answer(&live, "a.test", &["10.0.0.1", "10.0.0.2"]);
        answer(&live, "b.test", &["::1"]);
        let expected = [("10.0.0.1:80", 3), ("10.0.0.2:80", 3), ("[::1]:81", 2), ("10.0.0.9:82", 4)];
        assert_eq!(weights(&live), expected.map(|(label, weight)| (label.to_owned(), weight)));
        let node = Arc::clone(&live.current().nodes[0]);
        assert_eq!((&*node.host, &*node.authority), ("a.test", "a.test:80"));
        answer(&live, "a.test", &[]);
        assert_eq!(live.current().nodes.len(), 2);
        assert_eq!(shares([3, 7, 0, 11].into_iter()), [77, 33, 231, 21]);
    }

    #[test]
    fn a_request_ends_with_the_set_it_began_with() {
        let live = live(&json!({"nodes": {"a.test:80": 1}}));
        answer(&live, "a.test", &["10.0.0.1", "10.0.0.2"]);
        let nodes = Nodes::Live(Arc::clone(&live));
        let mut ctx = Ctx::example("GET", "/", &[]);
        let began = nodes.current();
        answer(&live, "a.test", &["10.0.0.3"]);
        let mut seen = Vec::new();
        while let Some(chosen) = began.pick(&ctx) {
            seen.push(chosen.node.label.to_string());
            ctx.attempts.push(Attempt::new(chosen));
        }
        seen.sort_unstable();
        assert_eq!(seen, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(&*nodes.current().pick(&ctx).unwrap().node.label, "10.0.0.3:80");
    }

    #[test]
    fn services_have_names_of_their_own() {
        let named = |conf: Value| {
            let conf = serde_json::from_str(&conf.to_string()).unwrap();
            query(&conf).map(|query| query.map(|query| (query.kind, query.name.to_string())))
        };
        let nacos =
            |args: Value| json!({"service_name": "s", "discovery_type": "nacos", "discovery_args": args});
        assert_eq!(named(nacos(json!(null))), Ok(Some((Kind::Nacos, "public/DEFAULT_GROUP/s".to_owned()))));
        let args = json!({"namespace_id": "n", "group_name": "g"});
        assert_eq!(named(nacos(args)), Ok(Some((Kind::Nacos, "n/g/s".to_owned()))));
        let consul = json!({"service_name": "s", "discovery_type": "consul"});
        assert_eq!(named(consul), Ok(Some((Kind::Consul, "s".to_owned()))));
        assert!(named(json!({"service_name": "s", "discovery_type": "tars"})).is_err());
    }
}
