//! Which requests a route is for, beyond host and path.

use std::{net::IpAddr, sync::Arc};

use http::{Method, header};
use ipnet::IpNet;
use model::{
    expr::{Expr, Operand},
    filter_func::FilterFunc,
    resource,
};

use super::Query;
use crate::vars::{Condition, Var};

const HTTP_HOST: Var = Var::Http(header::HOST);

/// Which requests a route is for. What a lookup reads comes first.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Rule {
    conditions: Option<Box<Conditions>>,
    /// A bit for each method; zero: any.
    methods: u16,
    /// Hosts as configured, in lower case; the service's where the route has none. None: any host.
    pub hosts: Option<Arc<[Box<str>]>>,
    pub priority: i64,
    /// URIs as configured.
    pub paths: Box<[Box<str>]>,
}

/// What few routes have.
#[derive(Debug)]
struct Conditions {
    /// Empty: any.
    remote: Box<[IpNet]>,
    vars: Option<Expr<Var>>,
    filter: Option<FilterFunc>,
}

impl Rule {
    /// Reads the matching part of a route. `of_service` are the hosts of its service.
    pub fn read(route: &resource::Route, of_service: Option<&Arc<[Box<str>]>>) -> Result<Self, String> {
        let paths: Box<[Box<str>]> = route.uris().map(Into::into).collect();
        if paths.is_empty() {
            return Err("neither uri nor uris".to_owned());
        }
        let own: Vec<Box<str>> = route.hosts().map(|host| host.to_ascii_lowercase().into()).collect();
        let hosts = if own.is_empty() { of_service.cloned() } else { Some(own.into()) };
        let methods =
            route.methods.iter().try_fold(0, |all, method| Ok::<_, String>(all | method_named(method)?))?;
        let remote = route.remote_addrs().map(network).collect::<Result<Box<_>, _>>()?;
        let vars = route.vars.as_ref().map(Condition::compile).transpose()?.map(Condition::into_expr);
        let filter = route.filter_func.as_deref().map(FilterFunc::compile).transpose()?;
        let any = vars.is_some() || filter.is_some() || !remote.is_empty();
        let conditions = any.then(|| Box::new(Conditions { remote, vars, filter }));
        Ok(Self { priority: route.priority, paths, hosts, methods, conditions })
    }

    /// Whether method, address and variables fit.
    pub(super) fn admits(&self, query: &Query<'_>) -> bool {
        (self.methods == 0 || self.methods & bit(query.method) != 0)
            && self.conditions.as_ref().is_none_or(|conditions| conditions.hold(query))
    }

    /// Which of the hosts fits: 0 where the rule has none.
    pub(super) fn host_for(&self, query: &Query<'_>) -> Option<Option<u16>> {
        let Some(hosts) = &self.hosts else { return Some(None) };
        let fits = |host: &str| {
            // A host with a port is compared with what the client wrote.
            let written = if host.contains(':') { (query.vars)(&HTTP_HOST) } else { None };
            let asked = written.as_ref().and_then(Operand::as_str).unwrap_or(query.host);
            match host.strip_prefix('*') {
                Some(suffix) => asked.ends_with(suffix),
                None => asked == host,
            }
        };
        let at = hosts.iter().position(|host| fits(host))?;
        Some(u16::try_from(at).ok())
    }
}

impl Conditions {
    fn hold(&self, query: &Query<'_>) -> bool {
        (self.remote.is_empty() || self.remote.iter().any(|network| network.contains(&query.remote)))
            && self.vars.as_ref().is_none_or(|vars| vars.eval(query.vars))
            && self.filter.as_ref().is_none_or(|filter| ask(filter, query))
    }
}

/// Whether the code says yes. One that fails says no, and the log tells once.
fn ask(filter: &FilterFunc, query: &Query<'_>) -> bool {
    filter.holds(&|name| (query.vars)(&Var::parse(name))).unwrap_or_else(|failure| {
        if failure.first {
            tracing::warn!(%failure, ?filter, "a filter_func failed: its route does not match");
        }
        false
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("invalid ip address: {text}"))
}

fn method_named(name: &str) -> Result<u16, String> {
    match name.parse::<Method>().as_ref().map(bit) {
        Ok(bit) if bit != 0 => Ok(bit),
        _ => Err(format!("unknown method {name}")),
    }
}

/// Zero for methods that no route can name.
fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => 1,
        Method::POST => 1 << 1,
        Method::PUT => 1 << 2,
        Method::DELETE => 1 << 3,
        Method::PATCH => 1 << 4,
        Method::HEAD => 1 << 5,
        Method::OPTIONS => 1 << 6,
        Method::CONNECT => 1 << 7,
        Method::TRACE => 1 << 8,
        _ if method.as_str() == "PURGE" => 1 << 9,
        _ => 0,
    }
}
