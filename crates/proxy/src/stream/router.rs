//! Which route a TCP or UDP session takes.
//!
//! The rule to know: over TLS the routes of the name asked for come first, the exact name before the longest wildcard
//! that fits it; then the routes without a name. Among equals the order of their ids decides.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::{HashMap, OrdMap};
use ipnet::IpNet;
use model::resource;

use super::Route;

/// Which sessions a route is for. What is not said is any.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Lower case. A `*` in front stands for any beginning, dots included.
    pub name: Option<Arc<str>>,
    pub remote: Option<IpNet>,
    pub server: Option<IpNet>,
    pub port: Option<u16>,
}

impl Rule {
    pub fn read(conf: &resource::StreamRoute) -> Result<Self, String> {
        Ok(Self {
            name: conf.sni.as_ref().map(|name| name.to_ascii_lowercase().into()),
            remote: conf.remote_addr.as_deref().map(|text| net("remote_addr", text)).transpose()?,
            server: conf.server_addr.as_deref().map(|text| net("server_addr", text)).transpose()?,
            port: conf.server_port,
        })
    }

    /// Whether it is for this session, the name aside.
    fn fits(&self, query: &Query<'_>) -> bool {
        let within = |net: &Option<IpNet>, ip: IpAddr| net.is_none_or(|net| net.contains(&ip.to_canonical()));
        within(&self.remote, query.remote)
            && within(&self.server, query.server.ip())
            && self.port.is_none_or(|port| port == query.server.port())
    }
}

fn net(field: &str, text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.ok_or_else(|| format!("invalid {field}: {text}"))
}

/// What is known of a session when its route is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The TLS server name, in lower case; none without TLS.
    pub name: Option<&'a str>,
    pub remote: IpAddr,
    /// The address the client connected to.
    pub server: SocketAddr,
}

/// By id, which is their order.
type Routes = OrdMap<Arc<str>, Arc<Route>>;

/// All stream routes of a plan. Cloning shares; changing one of many is cheap.
#[derive(Clone, Default)]
pub struct Router {
    by_name: HashMap<Arc<str>, Routes>,
    /// How many names in `by_name` are wildcards.
    wildcards: usize,
    nameless: Routes,
}

impl Router {
    pub fn insert(&mut self, route: &Arc<Route>) {
        let Some(name) = &route.rule.name else {
            self.nameless.insert(route.id.clone(), route.clone());
            return;
        };
        let routes = self.by_name.entry(name.clone()).or_default();
        if routes.is_empty() && name.starts_with('*') {
            self.wildcards += 1;
        }
        routes.insert(route.id.clone(), route.clone());
    }

    /// Takes out what [`Router::insert`] added, unless another of its id has come in its place.
    pub fn remove(&mut self, route: &Arc<Route>) {
        let drop = |routes: &mut Routes| {
            if routes.get(&route.id).is_some_and(|held| Arc::ptr_eq(held, route)) {
                routes.remove(&route.id);
            }
        };
        let Some(name) = &route.rule.name else { return drop(&mut self.nameless) };
        let Some(routes) = self.by_name.get_mut(name) else { return };
        drop(routes);
        if routes.is_empty() {
            self.by_name.remove(name);
            self.wildcards -= usize::from(name.starts_with('*'));
        }
    }

    pub fn find(&self, query: &Query<'_>) -> Option<&Arc<Route>> {
        query.name.and_then(|name| self.find_named(name, query)).or_else(|| first(&self.nameless, query))
    }

    fn find_named(&self, name: &str, query: &Query<'_>) -> Option<&Arc<Route>> {
        let exact = self.by_name.get(name).and_then(|routes| first(routes, query));
        if exact.is_some() || self.wildcards == 0 {
            return exact;
        }
        // The longest ending first.
        let mut wildcard = format!("*{name}");
        loop {
            if let Some(found) = self.by_name.get(&*wildcard).and_then(|routes| first(routes, query)) {
                return Some(found);
            }
            let next = wildcard[1..].chars().next()?.len_utf8();
            wildcard.replace_range(1..=next, "");
        }
    }

    /// Whether there are no routes at all.
    pub fn is_empty(&self) -> bool {
        self.nameless.is_empty() && self.by_name.is_empty()
    }
}

fn first<'a>(routes: &'a Routes, query: &Query<'_>) -> Option<&'a Arc<Route>> {
    routes.values().find(|route| route.rule.fits(query))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::Lab;

    fn route(id: &str, rule: Value) -> (String, Value) {
        let mut conf = rule;
        conf["upstream"] = json!({"nodes": {"127.0.0.1:1": 1}});
        (format!("stream_routes/{id}"), conf)
    }

    fn lab(routes: &[(&str, Value)]) -> Lab {
        let routes: Vec<_> = routes.iter().map(|(id, rule)| route(id, rule.clone())).collect();
        Lab::with(&routes.iter().map(|(key, conf)| (&**key, conf.clone())).collect::<Vec<_>>())
    }

    fn found(lab: &Lab, name: Option<&str>, remote: &str, server: &str) -> Option<String> {
        let query = Query { name, remote: remote.parse().unwrap(), server: server.parse().unwrap() };
        lab.plan.streams.find(&query).map(|route| route.id.to_string())
    }

    #[test]
    fn names_come_before_none_and_long_wildcards_before_short_ones() {
        let mut lab = lab(&[
            ("1", json!({"sni": "A.test.com", "remote_addr": "10.0.0.1"})),
            ("2", json!({"sni": "*.test.com"})),
            ("3", json!({"sni": "*"})),
            ("4", json!({})),
            ("5", json!({"sni": "a.test.com", "remote_addr": "10.0.0.0/24"})),
        ]);
        let ask = |lab: &Lab, name| found(lab, name, "10.0.0.1", "127.0.0.1:9100").unwrap();
        assert_eq!(ask(&lab, Some("a.test.com")), "1");
        assert_eq!(found(&lab, Some("a.test.com"), "10.0.0.2", "127.0.0.1:1").as_deref(), Some("5"));
        assert_eq!(found(&lab, Some("a.test.com"), "10.1.0.2", "127.0.0.1:1").as_deref(), Some("2"));
        assert_eq!(ask(&lab, Some("a.b.test.com")), "2");
        assert_eq!(ask(&lab, Some("test.com")), "3");
        assert_eq!(ask(&lab, None), "4");
        for id in ["stream_routes/2", "stream_routes/3"] {
            lab.change(&[(id, Value::Null)]);
        }
        assert_eq!(ask(&lab, Some("b.test.com")), "4");
        lab.change(&[("stream_routes/1", json!({"sni": "*.test.com", "upstream": {"nodes": {"a:1": 1}}}))]);
        assert_eq!(ask(&lab, Some("a.test.com")), "5");
        assert_eq!(ask(&lab, Some("b.test.com")), "1");
    }

    #[test]
    fn addresses_and_ports_are_compared_as_they_are() {
        let lab = lab(&[
            ("1", json!({"server_port": 9100, "server_addr": "127.0.0.1"})),
            ("2", json!({"server_addr": "127.0.0.0/8", "remote_addr": "::1"})),
            ("3", json!({"remote_addr": "10.0.0.9/26"})),
        ]);
        assert_eq!(lab.refused(), [""; 0]);
        assert_eq!(found(&lab, None, "10.9.9.9", "127.0.0.1:9100").as_deref(), Some("1"));
        assert_eq!(found(&lab, None, "10.9.9.9", "[::ffff:127.0.0.1]:9100").as_deref(), Some("1"));
        assert_eq!(found(&lab, None, "::1", "127.0.0.7:9100").as_deref(), Some("2"));
        assert_eq!(found(&lab, None, "10.0.0.60", "127.0.0.7:9101").as_deref(), Some("3"));
        assert_eq!(found(&lab, None, "10.0.0.70", "127.0.0.7:9101"), None);
    }
}
