//! Asks DNS, once.
//!
//! The rule to know: a server that says "there is none" is believed, as APISIX believes it; one that can't be heard
//! says nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query as Question,
        rr::{Name, RData, RecordType},
    },
    system_conf,
};

use super::{Dns, Endpoint, Kind, Query, config::Services, lock};

/// Asks DNS as `apisix` and `discovery.dns` of the settings say.
pub struct Resolver {
    hosts: Hosts,
    /// For nodes.
    nodes: Option<TokioResolver>,
    services: Option<ForServices>,
    ipv6: bool,
    /// In the place of what records say.
    valid: Option<Duration>,
}

/// What `discovery.dns` says.
struct ForServices {
    resolver: TokioResolver,
    order: Box<[Turn]>,
    /// The kind of record that a name had last.
    last: Mutex<HashMap<Arc<str>, RecordType>>,
}

/// What is asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Last,
    Record(RecordType),
}

/// An answer, and how long it holds.
pub struct Found {
    pub endpoints: Vec<Endpoint>,
    pub ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error("there is no such name")]
    NoSuchName,
    #[error("{0}")]
    Unheard(String),
}

/// For one question to one server; it is put twice.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What `/etc/hosts` says holds until the next reload.
const FOR_GOOD: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long an answer holds at most that names a host which does not exist.
const SOON: Duration = Duration::from_secs(15);

impl Resolver {
    pub fn new(conf: &Dns) -> Self {
        let system = system_conf::read_system_conf();
        let nodes = match (&*conf.servers, &system) {
            ([], Ok((system, options))) => build(system.clone(), options.clone(), conf.search),
            ([], Err(error)) => Err(format!("/etc/resolv.conf: {error}")),
            (servers, system) => {
                let (domains, options) = match system {
                    Ok((system, options)) => (system.clone(), options.clone()),
                    Err(_) => (ResolverConfig::default(), ResolverOpts::default()),
                };
                build(with_servers(&domains, servers), options, conf.search)
            }
        };
        let nodes = told(nodes);
        let services = conf.services.as_ref().and_then(|services| told(ForServices::new(services, conf)));
        let hosts = Hosts::from_system().unwrap_or_default();
        Self { hosts, nodes, services, ipv6: conf.ipv6, valid: conf.valid }
    }

    pub fn serves_services(&self) -> bool {
        self.services.is_some()
    }

    /// What needs no asking.
    pub fn at_once(&self, query: &Query) -> Option<Arc<[Endpoint]>> {
        match query.kind {
            Kind::Host => self.in_hosts(&query.name).map(|ip| Arc::from([address(ip)])),
            _ => None,
        }
    }

    /// Asks for one name.
    pub async fn ask(&self, query: &Query) -> Result<Found, Failure> {
        match query.kind {
            Kind::Host => {
                if let Some(ip) = self.in_hosts(&query.name) {
                    return Ok(Found { endpoints: vec![address(ip)], ttl: FOR_GOOD });
                }
                let unset = || Failure::Unheard("there is no DNS server to ask".to_owned());
                let resolver = self.nodes.as_ref().ok_or_else(unset)?;
                let (ips, ttl) = addresses(resolver, &name(&query.name)?, self.ipv6).await?;
                let endpoints = ips.into_iter().map(address).collect();
                Ok(Found { endpoints, ttl: self.valid.unwrap_or(ttl) })
            }
            _ => match &self.services {
                Some(services) => services.ask(&query.name, self.ipv6).await,
                None => Err(Failure::Unheard("`discovery.dns` is not configured".to_owned())),
            },
        }
    }

    /// As APISIX: an IPv4 address before one of IPv6.
    fn in_hosts(&self, host: &str) -> Option<IpAddr> {
        let name = name(host).ok()?;
        let of = |kind| {
            let found = self.hosts.lookup_static_host(&Question::query(name.clone(), kind))?;
            found.answers().iter().find_map(|record| ip(&record.data))
        };
        of(RecordType::A).or_else(|| if self.ipv6 { of(RecordType::AAAA) } else { None })
    }
}

impl ForServices {
    fn new(conf: &Services, dns: &Dns) -> Result<Self, String> {
        let resolver = match conf {
            Services { resolv_conf: Some(file), .. } => {
                let (config, options) = resolv_conf(file)?;
                build(config, options, true)?
            }
            Services { servers, .. } => {
                build(with_servers(&ResolverConfig::default(), servers), ResolverOpts::default(), dns.search)?
            }
        };
        Ok(Self { resolver, order: conf.order.clone(), last: Mutex::default() })
    }

    /// `name` or `name:port`, in the order of the configuration.
    async fn ask(&self, service: &Arc<str>, ipv6: bool) -> Result<Found, Failure> {
        let (host, port) = model::resource::split_address(service).map_err(Failure::Unheard)?;
        let name = name(host)?;
        let mut failure = Failure::NoSuchName;
        let mut asked = Vec::new();
        for turn in &self.order {
            let kind = match turn {
                Turn::Record(kind) => Some(*kind),
                Turn::Last => lock(&self.last).get(service).copied(),
            };
            let Some(kind) = kind.filter(|kind| !asked.contains(kind) && (ipv6 || *kind != RecordType::AAAA))
            else {
                continue;
            };
            asked.push(kind);
            match self.records(&name, kind, ipv6).await {
                Ok(mut found) => {
                    lock(&self.last).insert(Arc::clone(service), kind);
                    if port.is_some() {
                        found.endpoints.iter_mut().for_each(|endpoint| endpoint.port = port);
                    }
                    return Ok(found);
                }
                Err(Failure::NoSuchName) => {}
                Err(unheard) => failure = unheard,
            }
        }
        Err(failure)
    }

    async fn records(&self, name: &Name, kind: RecordType, ipv6: bool) -> Result<Found, Failure> {
        let found = lookup(&self.resolver, name, kind).await?;
        match kind {
            RecordType::SRV => self.srv(&found, ipv6).await,
            RecordType::CNAME => {
                let alias = found.answers().iter().find_map(|record| match &record.data {
                    RData::CNAME(alias) => Some(&alias.0),
                    _ => None,
                });
                let (ips, ttl) = addresses(&self.resolver, alias.ok_or(Failure::NoSuchName)?, ipv6).await?;
                Ok(Found { endpoints: ips.into_iter().map(address).collect(), ttl: ttl.min(holds(&found)) })
            }
            _ => {
                let endpoints = ips(&found).into_iter().map(address).collect();
                Ok(Found { endpoints, ttl: holds(&found) })
            }
        }
    }

    /// Each record's weight is shared out among the addresses of its target. A target that does not exist is left out
    /// while there are others; one may be an address itself.
    async fn srv(&self, found: &Lookup, ipv6: bool) -> Result<Found, Failure> {
        let mut ttl = holds(found);
        let mut targets = Vec::new();
        for record in found.answers() {
            let RData::SRV(srv) = &record.data else { continue };
            if let Ok(ip) = srv.target.to_ascii().trim_end_matches('.').parse() {
                targets.push((srv, vec![ip]));
                continue;
            }
            match addresses(&self.resolver, &srv.target, ipv6).await {
                Ok((ips, holds)) => {
                    ttl = ttl.min(holds);
                    targets.push((srv, ips));
                }
                // It may be on its way.
                Err(Failure::NoSuchName) => ttl = ttl.min(SOON),
                Err(unheard) => return Err(unheard),
            }
        }
        if targets.is_empty() {
            return Err(Failure::NoSuchName);
        }
        let shares = super::super::live::shares(targets.iter().map(|(_, ips)| ips.len()));
        let endpoints = targets.into_iter().zip(shares).flat_map(|((srv, ips), share)| {
            let (weight, priority) = (u32::from(srv.weight).max(1), -i64::from(srv.priority));
            let port = Some(srv.port).filter(|port| *port != 0);
            ips.into_iter().map(move |ip| Endpoint {
                port,
                weight: weight.saturating_mul(share),
                priority: Some(priority),
                ..address(ip)
            })
        });
        Ok(Found { endpoints: endpoints.collect(), ttl })
    }
}

/// A name's addresses, sorted: those of IPv4, or else those of IPv6.
async fn addresses(
    resolver: &TokioResolver,
    name: &Name,
    ipv6: bool,
) -> Result<(Vec<IpAddr>, Duration), Failure> {
    let mut found = lookup(resolver, name, RecordType::A).await;
    if ipv6 && matches!(found, Err(Failure::NoSuchName)) {
        found = lookup(resolver, name, RecordType::AAAA).await;
    }
    let found = found?;
    Ok((ips(&found), holds(&found)))
}

/// A name as it is written. What IDNA does not know, such as `_` inside of a label, is taken literally, as by every
/// other resolver (RFC 2181 section 11).
fn name(text: &str) -> Result<Name, Failure> {
    Name::from_str_relaxed(text).map_err(|error| Failure::Unheard(format!("`{text}` is no name: {error}")))
}

async fn lookup(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Result<Lookup, Failure> {
    let found = resolver.lookup(name.clone(), kind).await.map_err(|error| why(&error))?;
    let any = found.answers().iter().any(|record| record.record_type() == kind);
    if any { Ok(found) } else { Err(Failure::NoSuchName) }
}

fn why(error: &NetError) -> Failure {
    if error.is_no_records_found() || error.is_nx_domain() {
        Failure::NoSuchName
    } else {
        Failure::Unheard(error.to_string())
    }
}

fn ips(found: &Lookup) -> Vec<IpAddr> {
    let mut ips: Vec<_> = found.answers().iter().filter_map(|record| ip(&record.data)).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(ip) => Some(ip.0.into()),
        RData::AAAA(ip) => Some(ip.0.into()),
        _ => None,
    }
}

fn address(ip: IpAddr) -> Endpoint {
    Endpoint::new(&ip.to_string(), None, 1)
}

fn holds(found: &Lookup) -> Duration {
    found.valid_until().saturating_duration_since(Instant::now())
}

fn build(config: ResolverConfig, options: ResolverOpts, search: bool) -> Result<TokioResolver, String> {
    let config = if search {
        config
    } else {
        ResolverConfig::from_parts(None, vec![], config.name_servers().to_vec())
    };
    if config.name_servers().is_empty() {
        return Err("there is no DNS server to ask".to_owned());
    }
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let wanted = builder.options_mut();
    *wanted = options;
    wanted.timeout = TIMEOUT;
    wanted.attempts = 2;
    // Answers are kept where they are used.
    wanted.cache_size = 0;
    wanted.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|error| error.to_string())
}

fn with_servers(domains: &ResolverConfig, servers: &[SocketAddr]) -> ResolverConfig {
    let server = |server: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.to_vec())
    };
    let servers = servers.iter().map(server).collect();
    ResolverConfig::from_parts(domains.domain().cloned(), domains.search().to_vec(), servers)
}

fn resolv_conf(file: &Path) -> Result<(ResolverConfig, ResolverOpts), String> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    system_conf::parse_resolv_conf(text).map_err(|error| format!("{shown}: {error}"))
}

fn told<T>(result: Result<T, String>) -> Option<T> {
    result.map_err(|error| tracing::warn!(error, "DNS can't be asked")).ok()
}
