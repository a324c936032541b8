//! Whom to ask: `discovery` and the DNS keys of `apisix`, as APISIX has them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::rr::RecordType;
use rustls::RootCertStore;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Board, Endpoint, Kind, consul, consul_kv, eureka, kubernetes, nacos, resolver::Turn};

/// Whom a directory asks.
#[derive(Clone)]
pub struct Config {
    pub dns: Dns,
    pub registries: Vec<Registry>,
    /// Whom registries' certificates must come from, where they are checked.
    pub roots: Arc<RootCertStore>,
}

impl Default for Config {
    fn default() -> Self {
        let roots = Arc::new(RootCertStore::empty());
        Self { dns: Dns::default(), registries: Vec::new(), roots }
    }
}

/// How DNS is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dns {
    /// `apisix.dns_resolver`. Empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// `apisix.dns_resolver_valid`, in the place of the records' TTL.
    pub valid: Option<Duration>,
    /// `apisix.resolver_timeout`: how long a request waits for a first answer. Default: 5 s.
    pub patience: Option<Duration>,
    /// `apisix.enable_resolv_search_opt`.
    pub search: bool,
    /// `apisix.enable_ipv6`.
    pub ipv6: bool,
    /// `discovery.dns`.
    pub services: Option<Services>,
}

/// `discovery.dns`.
#[derive(Clone, Debug, PartialEq)]
pub struct Services {
    pub servers: Vec<SocketAddr>,
    /// In the place of `servers`.
    pub resolv_conf: Option<PathBuf>,
    pub order: Box<[Turn]>,
}

/// One entry of `discovery`.
#[derive(Clone, Debug, PartialEq)]
pub enum Registry {
    Consul(consul::Config),
    ConsulKv(consul_kv::Config),
    Eureka(eureka::Config),
    Kubernetes(kubernetes::Config),
    Nacos(nacos::Config),
}

/// What is wrong, and with which key below `discovery`.
#[derive(Debug)]
pub struct Unusable {
    pub key: String,
    pub text: String,
}

impl Unusable {
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "discovery.{}: {}", self.key, self.text)
    }
}

impl Config {
    /// Takes `discovery` in. `home` is where relative files lie. Gives the keys that are not used.
    pub fn discover(&mut self, conf: &Map<String, Value>, home: &Path) -> Result<Vec<String>, Unusable> {
        let mut unused = Vec::new();
        for (name, value) in conf {
            let Some(kind) = Kind::of(name) else {
                unused.push(name.clone());
                continue;
            };
            // `eureka:` without anything below it.
            let value = if value.is_null() { &Value::Object(Map::new()) } else { value };
            let registry = match kind {
                Kind::Host => continue,
                Kind::Dns => {
                    self.dns.services = Some(read::<WrittenDns>(name, value, &mut unused)?.services()?);
                    continue;
                }
                Kind::Consul => Registry::Consul(read::<consul::Config>(name, value, &mut unused)?.at(home)?),
                Kind::ConsulKv => {
                    Registry::ConsulKv(read::<consul_kv::Config>(name, value, &mut unused)?.at(home)?)
                }
                Kind::Eureka => {
                    Registry::Eureka(read::<eureka::Config>(name, value, &mut unused)?.checked()?)
                }
                Kind::Kubernetes => {
                    let many = value.is_array();
                    let clusters = if many {
                        read::<Vec<kubernetes::Cluster>>(name, value, &mut unused)?
                    } else {
                        vec![read::<kubernetes::Cluster>(name, value, &mut unused)?]
                    };
                    Registry::Kubernetes(kubernetes::Config { many, clusters }.checked()?)
                }
                Kind::Nacos => Registry::Nacos(read::<nacos::Config>(name, value, &mut unused)?.checked()?),
            };
            self.registries.push(registry);
        }
        Ok(unused)
    }
}

impl Registry {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Consul(_) => Kind::Consul,
            Self::ConsulKv(_) => Kind::ConsulKv,
            Self::Eureka(_) => Kind::Eureka,
            Self::Kubernetes(_) => Kind::Kubernetes,
            Self::Nacos(_) => Kind::Nacos,
        }
    }

    /// How many servers or clusters are asked that know services of their own.
    pub(super) fn parts(&self) -> usize {
        match self {
            Self::Consul(conf) => conf.servers.len(),
            Self::ConsulKv(conf) => conf.consul.servers.len(),
            Self::Kubernetes(conf) => conf.clusters.len(),
            Self::Eureka(_) | Self::Nacos(_) => 1,
        }
    }

    pub(super) fn default_service(&self) -> Option<Endpoint> {
        match self {
            Self::Consul(conf) => conf.default_endpoint(),
            Self::ConsulKv(conf) => conf.consul.default_endpoint(),
            Self::Eureka(_) | Self::Kubernetes(_) | Self::Nacos(_) => None,
        }
    }

    /// Asks for as long as it is let.
    pub(super) async fn run(self, board: Arc<Board>, roots: Arc<RootCertStore>) {
        match self {
            Self::Consul(conf) => consul::run(conf, board).await,
            Self::ConsulKv(conf) => consul_kv::run(conf, board).await,
            Self::Eureka(conf) => eureka::run(conf, board).await,
            Self::Kubernetes(conf) => kubernetes::run(conf, board, roots).await,
            Self::Nacos(conf) => nacos::run(conf, board, roots).await,
        }
    }

    /// As APISIX's `/v1/discovery/{type}/dump`. Tokens and passwords are left out.
    pub(super) fn dump(&self, board: &Board) -> Value {
        match self {
            Self::Consul(conf) => serde_json::json!({"config": conf, "services": board.services()}),
            Self::ConsulKv(conf) => serde_json::json!({"config": conf, "services": board.services()}),
            Self::Eureka(conf) => serde_json::json!({"config": conf.shown(), "services": board.services()}),
            Self::Kubernetes(conf) => conf.dump(board),
            Self::Nacos(_) => nacos::dump(board),
        }
    }

    /// As APISIX's `/v1/discovery/{type}/show_dump_file`; none where this registry has no such thing.
    pub(super) fn dump_file(&self) -> Option<Result<String, String>> {
        let dump = match self {
            Self::Consul(conf) => &conf.dump,
            Self::ConsulKv(conf) => &conf.consul.dump,
            Self::Eureka(_) | Self::Kubernetes(_) | Self::Nacos(_) => return None,
        };
        Some(dump.as_ref().ok_or_else(|| "dump params is nil".to_owned()).and_then(super::dump::Dump::show))
    }
}

/// `discovery.dns` as it is written.
#[derive(Deserialize)]
struct WrittenDns {
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
    #[serde(default)]
    order: Option<Vec<String>>,
}

impl WrittenDns {
    fn services(self) -> Result<Services, Unusable> {
        if self.servers.is_empty() == self.resolv_conf.is_none() {
            return Err(Unusable::new("dns", "either `servers` or `resolv_conf` says who is asked"));
        }
        let servers: Result<_, _> = self.servers.iter().map(|server| server_address(server)).collect();
        let turn = |name: &String| match name.as_str() {
            "last" => Ok(Turn::Last),
            "SRV" => Ok(Turn::Record(RecordType::SRV)),
            "A" => Ok(Turn::Record(RecordType::A)),
            "AAAA" => Ok(Turn::Record(RecordType::AAAA)),
            "CNAME" => Ok(Turn::Record(RecordType::CNAME)),
            other => {
                Err(Unusable::new("dns.order", format!("`{other}` is none of last, SRV, A, AAAA and CNAME")))
            }
        };
        let order =
            self.order.unwrap_or_else(|| ["last", "SRV", "A", "AAAA", "CNAME"].map(str::to_owned).to_vec());
        Ok(Services {
            servers: servers.map_err(|error| Unusable::new("dns.servers", error))?,
            resolv_conf: self.resolv_conf,
            order: order.iter().map(turn).collect::<Result<_, _>>()?,
        })
    }
}

/// `1.1.1.1`, `1.1.1.1:53`, `::1`, `[::1]:53`.
pub fn server_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = || bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or_else(|_| alone()).map_err(|_| format!("`{text}` is no address of a DNS server"))
}

fn read<T: DeserializeOwned>(name: &str, value: &Value, unused: &mut Vec<String>) -> Result<T, Unusable> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read =
        serde_ignored::deserialize(tracked, |key| unused.push(format!("{name}.{key}").replace(".?", "")));
    read.map_err(|error: serde_json::Error| {
        let path = track.path().to_string();
        Unusable::new(if path == "." { name.to_owned() } else { format!("{name}.{path}") }, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn discover(conf: Value) -> Result<(Config, Vec<String>), String> {
        let mut config = Config::default();
        let Value::Object(conf) = conf else { unreachable!("an object") };
        let unused = config.discover(&conf, Path::new("/home")).map_err(|error| error.to_string())?;
        Ok((config, unused))
    }

    #[test]
    fn what_is_written_is_read_or_refused_with_its_key() {
        let (config, unused) = discover(json!({
            "dns": {"servers": ["127.0.0.1", "[::1]:8600"]},
            "consul": {"servers": ["http://127.0.0.1:8500"], "shared_size": "64m", "typo": 1},
            "kubernetes": {"service": {"schema": "http", "host": "127.0.0.1", "port": "6443"},
                           "client": {"token": "t"}},
            "tars": {},
        }))
        .unwrap();
        let servers: Vec<_> = config.dns.services.unwrap().servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.1:53", "[::1]:8600"]);
        let kinds: Vec<_> = config.registries.iter().map(|registry| registry.kind().name()).collect();
        assert_eq!(kinds, ["consul", "kubernetes"]);
        assert_eq!(unused, ["consul.typo", "tars"]);
        for (conf, error) in [
            (json!({"dns": {}}), "discovery.dns: either `servers` or `resolv_conf`"),
            (json!({"dns": {"servers": ["x"]}}), "discovery.dns.servers: `x` is no address"),
            (json!({"dns": {"servers": ["1.1.1.1"], "order": ["MX"]}}), "discovery.dns.order: `MX`"),
            (json!({"consul": {"servers": "x"}}), "discovery.consul.servers: invalid type"),
            (
                json!({"consul": {"servers": ["https://x"]}}),
                "discovery.consul.servers: only support consul http",
            ),
            (
                json!({"consul_kv": {"servers": ["http://x/"]}}),
                "discovery.consul_kv.servers: invalid consul server",
            ),
            (json!({"eureka": null}), "discovery.eureka: missing field `host`"),
            (json!({"nacos": {"host": ["x"]}}), "discovery.nacos.host: `x`"),
            (json!({"kubernetes": [{"id": "a"}]}), "discovery.kubernetes"),
        ] {
            let found = discover(conf).err().unwrap_or_default();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
