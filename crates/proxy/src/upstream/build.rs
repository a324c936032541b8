//! From an upstream as configured to one that serves.

use std::{
    hash::{Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use model::resource;
use rustc_hash::{FxHashMap, FxHasher};
use rustls::RootCertStore;
use smallvec::SmallVec;

use super::{
    Choice, ClientTls, Identity, Keepalive, Live, Node, NodeSet, Nodes, PassHost, Scheme, Timeouts, Upstream,
    balance::Method,
    health::{self, Checkers, Checks, Health, How},
    live,
};
use crate::lasting::Lasting;

/// nginx's `proxy_timeout` of streams.
const SESSION_IDLE: Duration = Duration::from_secs(600);

/// What upstreams compiled together share: equal nodes, and equal upstreams that have nothing to take turns with.
#[derive(Default)]
pub struct Shared {
    nodes: FxHashMap<Arc<str>, SmallVec<[Arc<Node>; 1]>>,
    /// Upstreams of one node, by that node's address in memory.
    singles: FxHashMap<usize, SmallVec<[Arc<Upstream>; 1]>>,
}

/// What an upstream is built with, besides its configuration.
pub struct Means<'a> {
    pub shared: &'a mut Shared,
    pub lasting: &'a Lasting,
    /// Whom nodes' certificates must come from, where they are checked.
    pub roots: &'a Arc<RootCertStore>,
    /// What is shown to nodes that ask who we are.
    pub identity: Option<Identity<'a>>,
}

impl Means<'_> {
    fn tls(&self, scheme: Scheme, verify: bool) -> Result<ClientTls, String> {
        ClientTls::new(scheme, self.identity, verify.then_some(self.roots), self.lasting)
    }
}

impl Shared {
    fn node(&mut self, node: Node) -> Arc<Node> {
        let alike = self.nodes.entry(Arc::clone(&node.label)).or_default();
        let known = alike.iter().find(|known| (known.weight, known.priority) == (node.weight, node.priority));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let node = Arc::new(node);
        alike.push(Arc::clone(&node));
        node
    }

    /// The nodes of an upstream whose configuration names all their addresses; none for another.
    fn fixed(&mut self, conf: &resource::Upstream) -> Result<Option<Box<[Arc<Node>]>>, String> {
        if Live::is_needed(conf) {
            return Ok(None);
        }
        let node = |node: &resource::Node| {
            let port = node.port(conf.scheme).ok_or("a node without a port")?;
            Ok::<_, String>(self.node(Node::new(&node.host, port, node.weight, node.priority)))
        };
        conf.nodes.iter().map(node).collect::<Result<_, _>>().map(Some)
    }

    /// One that was built before and is no different, or else this one.
    pub fn upstream(&mut self, upstream: Upstream) -> Arc<Upstream> {
        let Some(node) = upstream.single() else { return Arc::new(upstream) };
        let alike = self.singles.entry(Arc::as_ptr(node).addr()).or_default();
        if let Some(known) = alike.iter().find(|known| known.serves_like(&upstream)) {
            return Arc::clone(known);
        }
        let upstream = Arc::new(upstream);
        alike.push(Arc::clone(&upstream));
        upstream
    }
}

impl Upstream {
    pub fn new(name: &str, conf: &resource::Upstream, means: &mut Means<'_>) -> Result<Self, String> {
        let scheme = scheme(conf.scheme)?;
        let (service, fixed) = (live::query(conf)?, means.shared.fixed(conf)?);
        let pass_host = match (conf.pass_host, &conf.upstream_host) {
            (resource::PassHost::Pass, _) => PassHost::Pass,
            (resource::PassHost::Node, _) => PassHost::Node,
            (resource::PassHost::Rewrite, Some(host)) => PassHost::Rewrite((&**host).into()),
            (resource::PassHost::Rewrite, None) => {
                return Err("`upstream_host` can't be empty when `pass_host` is `rewrite`".to_owned());
            }
        };
        let verify = conf.tls.as_ref().is_some_and(|tls| tls.verify);
        let encrypts = scheme.is_tls() || (scheme == Scheme::Kafka && conf.tls.is_some());
        let tls = if encrypts { Some(means.tls(scheme, verify)?) } else { None };
        let name: Arc<str> = name.into();
        let mut hasher = FxHasher::default();
        (scheme, tls.as_ref().map(|tls| tls.fingerprint)).hash(&mut hasher);
        let (retry_timeout, keepalive) = (seconds(conf.retry_timeout)?, keepalive(conf)?);
        let timeouts = conf.timeout.as_ref().map(Timeouts::read).transpose()?;
        let method = Method::new(&name, conf, means.lasting)?;
        // Nothing can fail after this: health follows the nodes of the set made last.
        let choice = Choice { method, health: health(&name, conf, &pass_host, means)? };
        Ok(Self {
            name,
            scheme,
            pass_host,
            nodes: match fixed {
                Some(nodes) => Nodes::Fixed(NodeSet::new(&choice, nodes)),
                None => Nodes::Live(Live::new(conf, choice, service, &means.lasting.directory)),
            },
            retries: conf.retries,
            retry_timeout,
            timeouts: timeouts.unwrap_or_default(),
            session_idle: timeouts.map_or(SESSION_IDLE, |timeouts| timeouts.read),
            keepalive,
            tls,
            fingerprint: hasher.finish(),
        })
    }

    /// The node of an upstream that has one and keeps it.
    fn single(&self) -> Option<&Arc<Node>> {
        match &self.nodes {
            Nodes::Fixed(set) if set.nodes.len() == 1 && !set.remembers() => set.nodes.first(),
            _ => None,
        }
    }

    /// Whether nobody could tell the two apart but by name, beside their nodes.
    fn serves_like(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.pass_host == other.pass_host
            && (self.retries, self.retry_timeout) == (other.retries, other.retry_timeout)
            && (self.timeouts, self.keepalive) == (other.timeouts, other.keepalive)
            && self.session_idle == other.session_idle
    }
}

impl Node {
    pub fn new(host: &str, port: u16, weight: u32, priority: i64) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Self::at(host, SocketAddr::new(ip, port), weight, priority),
            Err(_) => {
                let authority: Arc<str> = format!("{host}:{port}").into();
                let label = Arc::clone(&authority);
                Self { host: host.into(), port, weight, priority, address: None, label, authority }
            }
        }
    }

    /// The address without the port, as logs and metrics name a node.
    pub fn ip(&self) -> &str {
        self.label.rsplit_once(':').map_or(&*self.label, |(ip, _)| ip.trim_matches(['[', ']']))
    }

    /// A node whose address is known.
    pub fn at(host: &str, address: SocketAddr, weight: u32, priority: i64) -> Self {
        let label: Arc<str> = address.to_string().into();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let authority = if bare.parse() == Ok(address.ip()) {
            Arc::clone(&label)
        } else {
            format!("{host}:{}", address.port()).into()
        };
        Self {
            host: host.into(),
            port: address.port(),
            weight,
            priority,
            address: Some(address),
            label,
            authority,
        }
    }
}

impl Timeouts {
    pub fn read(conf: &resource::Timeout) -> Result<Self, String> {
        let limit = |number: f64| match seconds(number)? {
            Duration::ZERO => Err("a timeout must be longer than nothing".to_owned()),
            duration => Ok(duration),
        };
        Ok(Self { connect: limit(conf.connect)?, send: limit(conf.send)?, read: limit(conf.read)? })
    }
}

/// The health of the upstream's nodes, where they are checked.
fn health(
    name: &Arc<str>,
    conf: &resource::Upstream,
    pass_host: &PassHost,
    means: &Means<'_>,
) -> Result<Option<Arc<Health>>, String> {
    let Some(written) = &conf.checks else { return Ok(None) };
    let checks = Checks::read(written)?;
    let tls = match checks.kind {
        health::Kind::Https => Some(means.tls(Scheme::Https, checks.verify)?),
        health::Kind::Http | health::Kind::Tcp => None,
    };
    let host = match pass_host {
        PassHost::Rewrite(host) => Some(Arc::clone(host)),
        PassHost::Pass | PassHost::Node => None,
    };
    Ok(Checkers::of(means.lasting).take(name, How { checks, host, tls }))
}

fn scheme(scheme: resource::Scheme) -> Result<Scheme, String> {
    match scheme {
        resource::Scheme::Http => Ok(Scheme::Http),
        resource::Scheme::Https => Ok(Scheme::Https),
        resource::Scheme::Grpc => Ok(Scheme::Grpc),
        resource::Scheme::Grpcs => Ok(Scheme::Grpcs),
        resource::Scheme::Tcp => Ok(Scheme::Tcp),
        resource::Scheme::Tls => Ok(Scheme::Tls),
        resource::Scheme::Udp => Ok(Scheme::Udp),
        resource::Scheme::Kafka => Ok(Scheme::Kafka),
    }
}

fn keepalive(conf: &resource::Upstream) -> Result<Keepalive, String> {
    let Some(pool) = &conf.keepalive_pool else { return Ok(Keepalive::default()) };
    let idle_timeout = match seconds(pool.idle_timeout)? {
        // As long as the node keeps it.
        Duration::ZERO => Duration::from_secs(u64::from(u32::MAX)),
        duration => duration,
    };
    Ok(Keepalive { size: pool.size as usize, idle_timeout, requests: pool.requests.into() })
}

fn seconds(number: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number).map_err(|_| format!("{number} is not a time in seconds"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(conf: &Value, shared: &mut Shared) -> Result<Upstream, String> {
        let conf = serde_json::from_str(&conf.to_string()).unwrap();
        let (lasting, roots) = (Lasting::default(), Arc::new(RootCertStore::empty()));
        let mut means = Means { shared, lasting: &lasting, roots: &roots, identity: None };
        Upstream::new("upstreams/1", &conf, &mut means)
    }

    #[test]
    fn defaults_and_refusals() {
        let mut shared = Shared::default();
        let upstream =
            build(&json!({"nodes": {"10.0.0.2:80": 1, "[::1]:81": 1, "10.0.0.1": 0}}), &mut shared).unwrap();
        let set = upstream.nodes.current();
        assert_eq!((upstream.retries(&set), upstream.timeouts.read.as_secs()), (2, 60));
        let labels: Vec<_> = set.nodes.iter().map(|node| &*node.label).collect();
        assert_eq!(labels, ["10.0.0.2:80", "[::1]:81", "10.0.0.1:80"]);
        assert_eq!(set.nodes[1].address, Some("[::1]:81".parse().unwrap()));
        for (conf, error) in [
            (json!({"service_name": "x", "discovery_type": "tars"}), "there is no discovery of type `tars`"),
            (json!({"nodes": {"10.0.0.1": 1}, "scheme": "kafka"}), "a node without a port"),
            (json!({"nodes": {"a:1": 1}, "type": "none"}), "`type` is none"),
            (json!({"nodes": {"a:1": 1}, "type": "chash"}), "missing key"),
            (json!({"nodes": {"a:1": 1}, "checks": {"active": {"timeout": "x"}}}), "checks: invalid type"),
            (json!({"nodes": {"a:1": 1}, "pass_host": "rewrite"}), "`upstream_host` can't be empty"),
            (json!({"nodes": {"a:1": 1}, "retry_timeout": -1}), "-1 is not a time"),
        ] {
            let found = build(&conf, &mut shared).err().unwrap();
            assert!(found.starts_with(error), "{found}");
        }
    }

    #[test]
    fn only_upstreams_without_turns_to_take_are_shared() {
        let mut shared = Shared::default();
        let mut share = |conf: Value| {
            let upstream = build(&conf, &mut shared).unwrap();
            shared.upstream(upstream)
        };
        let one = share(json!({"nodes": {"10.0.0.1:1": 1}}));
        assert!(Arc::ptr_eq(&one, &share(json!({"nodes": {"10.0.0.1:1": 1}, "type": "roundrobin"}))));
        assert!(!Arc::ptr_eq(&one, &share(json!({"nodes": {"10.0.0.1:1": 1}, "retries": 3}))));
        for own in [json!({"type": "least_conn"}), json!({"checks": {"active": {}}})] {
            let mut conf = json!({"nodes": {"10.0.0.1:1": 1}});
            conf.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            assert!(!Arc::ptr_eq(&share(conf.clone()), &share(conf)));
        }
        let two = share(json!({"nodes": {"10.0.0.1:1": 1, "10.0.0.2:1": 1}}));
        let other = share(json!({"nodes": {"10.0.0.1:1": 1, "10.0.0.2:1": 1}}));
        assert!(
            !Arc::ptr_eq(&two, &other)
                && Arc::ptr_eq(&two.nodes.current().nodes[0], &other.nodes.current().nodes[0])
        );
    }
}
