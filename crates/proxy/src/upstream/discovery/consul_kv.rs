//! Consul's key/value store: `discovery.consul_kv`.
//!
//! The rule to know: a key `{prefix}/{service}/{host}:{port}` is an endpoint, its value says the weight. The service's
//! name is everything before the host, with the server before it: `http://127.0.0.1:8500/v1/kv/upstreams/webpages/`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use base64::Engine as _;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Board, Endpoint,
    board::Services,
    client::{self, Client, Pauses},
    config::Unusable,
    consul,
};

/// As `consul`'s, with these in addition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub consul: consul::Config,
    /// Default: `upstreams`.
    #[serde(default = "upstreams")]
    prefix: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    skip_keys: Vec<String>,
}

/// An entry of the store.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    #[serde(default)]
    value: Option<String>,
}

/// What an entry's value says of its endpoint.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    check_status: Option<Value>,
}

impl Config {
    pub fn at(mut self, home: &Path) -> Result<Self, Unusable> {
        consul::check_servers("consul_kv", &self.consul.servers)?;
        if let Some(dump) = &mut self.consul.dump {
            dump.at(home);
        }
        Ok(self)
    }

    /// The service and the endpoint that an entry stands for.
    fn read(&self, entry: &Entry) -> Option<(String, Endpoint)> {
        let (service, address) = entry.key.rsplit_once('/')?;
        let below = service.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (host, port) = address.rsplit_once(':')?;
        let service = format!("{service}/");
        if below.is_empty() || host.is_empty() || self.skip_keys.contains(&service) {
            return None;
        }
        let value = base64::engine::general_purpose::STANDARD.decode(entry.value.as_ref()?).ok()?;
        let said: Said = serde_json::from_slice(&value).ok()?;
        if said.check_status.is_some_and(|status| status == false || status == "false") {
            return None;
        }
        let weight = said.weight.unwrap_or(self.consul.weight);
        Some((service, Endpoint::new(host, Some(port.parse().ok()?), weight)))
    }

    fn services(&self, server: &str, entries: &[Entry]) -> Services {
        let mut services: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for entry in entries {
            match self.read(entry) {
                Some((service, endpoint)) => services.entry(service).or_default().push(endpoint),
                None => tracing::debug!(key = entry.key, "no endpoint of a service"),
            }
        }
        let named = |(service, endpoints): (String, Vec<Endpoint>)| {
            (format!("{server}/v1/kv/{service}").into(), endpoints.into())
        };
        services.into_iter().map(named).collect()
    }
}

/// Follows all servers.
pub async fn run(conf: Config, board: Arc<Board>) {
    let client = match Client::new(conf.consul.timeout.connect.duration(), None) {
        Ok(client) => client,
        Err(error) => return board.failed(0, &error),
    };
    if let Some(dump) = &conf.consul.dump {
        dump.load(&board).await;
    }
    let servers = (0..conf.consul.servers.len()).map(|at| follow(&conf, &client, &board, at));
    join_all(servers).await;
}

async fn follow(conf: &Config, client: &Client, board: &Board, at: usize) {
    let server = &conf.consul.servers[at];
    let wait = format!("{}s", conf.consul.timeout.wait);
    let (mut seen, mut pauses) = (0, Pauses::new());
    loop {
        let mut query = conf.consul.query(client, server, &format!("kv/{}?recurse=true", conf.prefix));
        if conf.consul.keepalive {
            query = query.query(&[("index", &*seen.to_string()), ("wait", &wait)]);
        }
        let answer = client::json::<Vec<Entry>>(query, conf.consul.patience()).await;
        match answer.and_then(|(headers, entries)| Ok((consul::index(&headers)?, entries))) {
            Ok((index, entries)) => {
                pauses = Pauses::new();
                if index != seen {
                    seen = index;
                    board.publish(at, conf.services(server, &entries));
                    if let Some(dump) = &conf.consul.dump {
                        dump.write(board).await;
                    }
                } else {
                    board.heard_again(at);
                }
                if !conf.consul.keepalive {
                    tokio::time::sleep(Duration::from_secs(conf.consul.fetch_interval.max(1).into())).await;
                }
            }
            Err(error) => {
                seen = 0;
                board.failed(at, &error);
                pauses.pause().await;
            }
        }
    }
}

fn upstreams() -> String {
    "upstreams".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_services_and_endpoints() {
        let conf = json!({"servers": ["http://c:8500"], "skip_keys": ["upstreams/hidden/"]});
        let conf: Config = serde_json::from_value(conf).unwrap();
        let encode = |text: &str| Some(base64::engine::general_purpose::STANDARD.encode(text));
        let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: encode(value) };
        let services = conf.services(
            "http://c:8500",
            &[
                entry("upstreams/web/a/127.0.0.1:80", r#"{"weight": 3}"#),
                entry("upstreams/web/a/127.0.0.2:80", "{}"),
                entry("upstreams/web/a/127.0.0.3:80", r#"{"check_status": "false"}"#),
                entry("upstreams/hidden/127.0.0.1:80", "{}"),
                entry("upstreams/web/b/127.0.0.1:80", "nonsense"),
                Entry { key: "upstreams/web/b/127.0.0.1:81".to_owned(), value: None },
                entry("other/127.0.0.1:80", "{}"),
            ],
        );
        let shown = serde_json::to_value(services).unwrap();
        let a = json!([{"host": "127.0.0.1", "port": 80, "weight": 3}, {"host": "127.0.0.2", "port": 80, "weight": 1}]);
        assert_eq!(shown, json!({"http://c:8500/v1/kv/upstreams/web/a/": a}));
    }
}
