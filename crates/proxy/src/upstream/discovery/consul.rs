//! Consul's catalog: `discovery.consul`.
//!
//! The rule to know: two blocking queries tell when something has changed, one on the catalog, one on health checks.
//! Then all services are read, those endpoints of them whose checks pass.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{join_all, select};
use http::HeaderMap;
use model::resource::Hidden;
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Board, Endpoint,
    board::Services,
    client::{self, Client, Millis, Pauses},
    config::Unusable,
    dump::Dump,
};

/// APISIX's keys and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub servers: Vec<String>,
    #[serde(default, skip_serializing)]
    pub token: Option<Hidden>,
    /// Seconds between two looks, without `keepalive`. Default: 3.
    #[serde(default = "three")]
    pub fetch_interval: u32,
    /// Whether changes are waited for. Default: true.
    #[serde(default = "yes")]
    pub keepalive: bool,
    /// Of every endpoint. Default: 1.
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default)]
    pub timeout: Timeout,
    #[serde(default)]
    pub sort_type: Sort,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_services: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_service: Option<DefaultService>,
    /// Has no meaning here: memory is not shared out beforehand.
    #[serde(default, skip_serializing)]
    pub shared_size: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeout {
    pub connect: Millis,
    pub read: Millis,
    /// Seconds that the server may take to tell of a change. Default: 60.
    pub wait: u32,
}

impl Default for Timeout {
    fn default() -> Self {
        Self { connect: Millis(2000), read: Millis(2000), wait: 60 }
    }
}

/// The order of a service's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    #[default]
    Origin,
    #[serde(rename = "host_sort")]
    Host,
    #[serde(rename = "port_sort")]
    Port,
    #[serde(rename = "combine_sort")]
    Combine,
}

/// The endpoint of services that Consul does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefaultService {
    pub host: Box<str>,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

impl Config {
    /// Checks it; `home` is where a relative dump lies.
    pub fn at(mut self, home: &Path) -> Result<Self, Unusable> {
        check_servers("consul", &self.servers)?;
        if let Some(dump) = &mut self.dump {
            dump.at(home);
        }
        Ok(self)
    }

    pub fn default_endpoint(&self) -> Option<Endpoint> {
        let service = self.default_service.as_ref()?;
        Some(Endpoint::new(&service.host, Some(service.port), self.weight))
    }

    /// A query for something below `/v1` of a server.
    pub fn query(&self, client: &Client, server: &str, path: &str) -> RequestBuilder {
        let request = client.get(&format!("{server}/v1/{path}"));
        match &self.token {
            Some(token) if !token.reveal().is_empty() => request.header("X-Consul-Token", token.reveal()),
            _ => request,
        }
    }

    /// How long the server may take for a query that waits for a change. It adds a sixteenth to what it is told.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout.wait) * 17 / 16) + self.timeout.read.duration()
    }
}

/// APISIX's rules of what a server may be called.
pub fn check_servers(kind: &str, servers: &[String]) -> Result<(), Unusable> {
    let key = format!("{kind}.servers");
    if servers.is_empty() {
        return Err(Unusable::new(key, "name at least one, such as http://127.0.0.1:8500"));
    }
    for server in servers {
        let Some(address) = server.strip_prefix("http://") else {
            return Err(Unusable::new(
                key,
                "only support consul http schema address, eg: http://address:port",
            ));
        };
        if address.is_empty() || address.contains(['/', '?', '@']) {
            let text = "invalid consul server address, the valid format: http://address:port";
            return Err(Unusable::new(key, text));
        }
    }
    Ok(())
}

/// Follows all servers.
pub async fn run(conf: Config, board: Arc<Board>) {
    let client = match Client::new(conf.timeout.connect.duration(), None) {
        Ok(client) => client,
        Err(error) => return board.failed(0, &error),
    };
    if let Some(dump) = &conf.dump {
        dump.load(&board).await;
    }
    let servers = (0..conf.servers.len()).map(|at| {
        let server = Server { conf: &conf, client: &client, board: &board, at };
        server.follow()
    });
    join_all(servers).await;
}

struct Server<'a> {
    conf: &'a Config,
    client: &'a Client,
    board: &'a Board,
    at: usize,
}

/// What Consul counts changes by.
#[derive(Clone, Copy, Default, PartialEq)]
struct Seen {
    catalog: u64,
    health: u64,
}

/// An instance of a service, with its checks.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    service: Option<Instance>,
    node: Option<Machine>,
}

/// Where an instance runs; its own address comes first.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Machine {
    #[serde(default)]
    address: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    address: Box<str>,
    #[serde(default)]
    port: Option<u16>,
}

impl Server<'_> {
    async fn follow(self) {
        let mut seen = Seen::default();
        let mut pauses = Pauses::new();
        loop {
            match self.fetch().await {
                Ok((now, services)) => {
                    pauses = Pauses::new();
                    if now != seen {
                        seen = now;
                        self.board.publish(self.at, services);
                        if let Some(dump) = &self.conf.dump {
                            dump.write(self.board).await;
                        }
                    } else {
                        self.board.heard_again(self.at);
                    }
                }
                Err(error) => {
                    self.board.failed(self.at, &error);
                    // What an unheard server counts on from is not known.
                    seen = Seen::default();
                    pauses.pause().await;
                    continue;
                }
            }
            if !self.conf.keepalive {
                tokio::time::sleep(Duration::from_secs(self.conf.fetch_interval.max(1).into())).await;
            } else if let Err(error) = self.changed(seen).await {
                self.board.failed(self.at, &error);
                pauses.pause().await;
            }
        }
    }

    /// Waits until the catalog or a check changes.
    async fn changed(&self, seen: Seen) -> Result<(), String> {
        let catalog = Box::pin(self.wait("catalog/services", seen.catalog));
        let health = Box::pin(self.wait("health/state/any", seen.health));
        select(catalog, health).await.factor_first().0
    }

    /// Waits until what is below `path` is not any more what it was at `index`.
    async fn wait(&self, path: &str, index: u64) -> Result<(), String> {
        let wait = format!("{}s", self.conf.timeout.wait);
        loop {
            let query = self.conf.query(self.client, &self.conf.servers[self.at], path);
            let query = query.query(&[("index", &*index.to_string()), ("wait", &wait)]);
            let (headers, _) = client::json::<serde::de::IgnoredAny>(query, self.conf.patience()).await?;
            let now = self::index(&headers)?;
            if now != index {
                return Ok(());
            }
        }
    }

    /// All services as they are.
    async fn fetch(&self) -> Result<(Seen, Services), String> {
        let (headers, catalog) = self.get::<BTreeMap<String, Value>>("catalog/services").await?;
        let (health, _) = self.get::<serde::de::IgnoredAny>("health/state/any").await?;
        let seen = Seen { catalog: index(&headers)?, health: index(&health)? };
        // Consul stands in its own catalog: an empty one is that of a server that has not found its feet.
        if catalog.is_empty() {
            return Err("its catalog is empty, not even Consul stands in it".to_owned());
        }
        let mut services = Services::new();
        for name in catalog.keys() {
            if name == "consul" || self.conf.skip_services.contains(name) {
                continue;
            }
            let path = format!("health/service/{}", percent_encoding::utf8_percent_encode(name, SEGMENT));
            let (_, entries) = self.get::<Vec<Entry>>(&format!("{path}?passing=true")).await?;
            let endpoints = self.endpoints(entries);
            if !endpoints.is_empty() {
                services.insert(name.as_str().into(), endpoints.into());
            }
        }
        Ok((seen, services))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<(HeaderMap, T), String> {
        let query = self.conf.query(self.client, &self.conf.servers[self.at], path);
        client::json(query, self.conf.timeout.read.duration()).await
    }

    fn endpoints(&self, entries: Vec<Entry>) -> Vec<Endpoint> {
        let mut known = HashSet::new();
        let endpoint = |entry: Entry| {
            let instance = entry.service?;
            let port = instance.port.filter(|port| *port != 0).unwrap_or(80);
            let address = Some(instance.address).filter(|address| !address.is_empty());
            let address = address.or_else(|| Some(entry.node?.address))?;
            let new = known.insert((address.clone(), port));
            new.then(|| Endpoint::new(&address, Some(port), self.conf.weight))
        };
        let mut endpoints: Vec<_> = entries.into_iter().filter_map(endpoint).collect();
        endpoints.sort_by(|a, b| self.conf.sort_type.compare(a, b));
        endpoints
    }
}

impl Sort {
    fn compare(self, a: &Endpoint, b: &Endpoint) -> Ordering {
        match self {
            Self::Origin => Ordering::Equal,
            Self::Host => a.host.cmp(&b.host),
            Self::Port => a.port.cmp(&b.port),
            Self::Combine => (&a.host, a.port).cmp(&(&b.host, b.port)),
        }
    }
}

/// What may not stand as it is in one part of a path.
const SEGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// By what number this answer is the newest.
pub fn index(headers: &HeaderMap) -> Result<u64, String> {
    let index = headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
    index.filter(|index| *index > 0).ok_or_else(|| "it has no X-Consul-Index".to_owned())
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}
