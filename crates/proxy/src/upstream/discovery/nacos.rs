//! Nacos: `discovery.nacos`.
//!
//! The rule to know: only services that an upstream names are asked for, all of them every `fetch_interval`, and a
//! new one at once.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::Engine as _;
use model::resource::Hidden;
use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Board, Endpoint,
    client::{self, Client, Timeouts},
    config::Unusable,
};

/// APISIX's keys and defaults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Config {
    /// `http://user:password@127.0.0.1:8848`.
    host: Vec<Hidden>,
    /// Seconds. Default: 30.
    #[serde(default = "thirty")]
    fetch_interval: u32,
    /// Default: `/nacos/v1/`.
    #[serde(default = "v1")]
    prefix: String,
    /// Where an instance says none. Default: 100.
    #[serde(default = "hundred")]
    weight: u32,
    #[serde(default)]
    timeout: Timeouts,
    #[serde(default)]
    access_key: Option<Hidden>,
    #[serde(default)]
    secret_key: Option<Hidden>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    access_token: String,
}

/// Without `hosts` it is no answer: whoever says `{}` does not say that there are no instances.
#[derive(Deserialize)]
struct Service {
    hosts: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    ip: Box<str>,
    port: u16,
    #[serde(default)]
    weight: Option<f64>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

/// Where and as whom to ask.
struct Server<'a> {
    /// Ends with a slash.
    base: String,
    user: Option<(&'a str, &'a str)>,
}

/// The name under which a service of this namespace and group is followed.
pub fn key(namespace: Option<&str>, group: Option<&str>, service: &str) -> String {
    format!("{}/{}/{service}", namespace.unwrap_or("public"), group.unwrap_or("DEFAULT_GROUP"))
}

impl Config {
    pub fn checked(self) -> Result<Self, Unusable> {
        if self.host.is_empty() {
            return Err(Unusable::new("nacos.host", "name at least one, such as http://127.0.0.1:8848"));
        }
        for host in &self.host {
            let host = host.reveal();
            if !host.starts_with("http://") && !host.starts_with("https://") {
                // What comes before an `@` is a secret.
                let shown = host.rsplit('@').next().unwrap_or_default();
                let text = format!("`{shown}` must begin with http:// or https://");
                return Err(Unusable::new("nacos.host", text));
            }
        }
        Ok(self)
    }

    fn server<'a>(&self, host: &'a Hidden) -> Server<'a> {
        let host = host.reveal();
        let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (user.split_once(':'), address),
            None => (None, rest),
        };
        let base = format!("{scheme}://{address}{}", self.prefix);
        Server { base: format!("{}/", base.trim_end_matches('/')), user }
    }

    fn limit(&self) -> Duration {
        self.timeout.send.duration() + self.timeout.read.duration()
    }

    /// Asks the servers for all of `wanted`, from any one on, until one answers for any.
    async fn fetch(&self, client: &Client, board: &Board, wanted: &[Arc<str>]) -> Result<(), String> {
        let mut errors = Vec::new();
        let first = rand::random_range(0..self.host.len());
        for host in self.host[first..].iter().chain(&self.host[..first]) {
            let server = self.server(host);
            let token = match self.login(client, &server).await {
                Ok(token) => token,
                Err(error) => {
                    errors.push(format!("login: {error}"));
                    continue;
                }
            };
            let mut unheard = Vec::new();
            for key in wanted {
                match self.service(client, &server, token.as_deref(), key).await {
                    Ok(endpoints) => board.publish_one(key, endpoints),
                    Err(error) => unheard.push(format!("{key}: {error}")),
                }
            }
            if unheard.is_empty() {
                return Ok(());
            }
            let all = unheard.len() == wanted.len();
            errors.append(&mut unheard);
            if !all {
                break;
            }
        }
        Err(errors.join("; "))
    }

    async fn login(&self, client: &Client, server: &Server<'_>) -> Result<Option<String>, String> {
        let Some((user, password)) = server.user else { return Ok(None) };
        let query = client
            .post(&format!("{}auth/login", server.base))
            .query(&[("username", user), ("password", password)]);
        let (_, login) = client::json::<Login>(query, self.limit()).await?;
        Ok(Some(login.access_token))
    }

    async fn service(
        &self,
        client: &Client,
        server: &Server<'_>,
        token: Option<&str>,
        key: &str,
    ) -> Result<Arc<[Endpoint]>, String> {
        let mut parts = key.splitn(3, '/');
        let (namespace, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let service = parts.next().unwrap_or_default();
        let mut query = vec![
            ("healthyOnly", "true".to_owned()),
            ("serviceName", service.to_owned()),
            ("namespaceId", namespace.to_owned()),
            ("groupName", group.to_owned()),
        ];
        if let Some(token) = token {
            query.push(("accessToken", token.to_owned()));
        }
        query.extend(self.signed(group, service));
        let request = client.get(&format!("{}ns/instance/list", server.base)).query(&query);
        let (_, found) = client::json::<Service>(request, self.limit()).await?;
        Ok(found.hosts.into_iter().map(|instance| instance.endpoint(self.weight)).collect())
    }

    /// Aliyun's signature, where there are keys.
    fn signed(&self, group: &str, service: &str) -> Vec<(&'static str, String)> {
        let given = |key: &'_ Option<Hidden>| key.clone().filter(|key| !key.reveal().is_empty());
        let (Some(access), Some(secret)) = (given(&self.access_key), given(&self.secret_key)) else {
            return Vec::new();
        };
        let data = format!("{}@@{group}@@{service}", chrono::Utc::now().timestamp_millis());
        let secret = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
        let signature = hmac::sign(&secret, data.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        vec![("ak", access.reveal().to_owned()), ("data", data), ("signature", signature)]
    }
}

impl Instance {
    fn endpoint(self, weight: u32) -> Endpoint {
        // Nacos's weights may have a fraction; a small one is still some weight.
        let weight = match self.weight {
            None => weight,
            Some(own) if own <= 0.0 => 0,
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            Some(own) => own.round().clamp(1.0, 1_000_000.0) as u32,
        };
        let grpc_port = self.metadata.as_ref().and_then(|metadata| metadata.get("gRPC_port")).and_then(port);
        Endpoint { grpc_port, ..Endpoint::new(&self.ip, Some(self.port), weight) }
    }
}

fn port(value: &Value) -> Option<u16> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|port| port.try_into().ok()),
    }
}

/// Asks again and again for what is followed.
pub async fn run(conf: Config, board: Arc<Board>, roots: Arc<RootCertStore>) {
    let client = match Client::new(conf.timeout.connect.duration(), Some(&roots)) {
        Ok(client) => client,
        Err(error) => return board.failed(0, &error),
    };
    let interval = Duration::from_secs(conf.fetch_interval.max(1).into());
    loop {
        let wanted = board.wanted();
        board.retain(&wanted);
        if !wanted.is_empty()
            && let Err(error) = conf.fetch(&client, &board, &wanted).await
        {
            board.failed(0, &error);
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            // Many are followed at once, when a configuration comes.
            () = board.woken() => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// As APISIX's.
pub fn dump(board: &Board) -> Value {
    let services = board.services().into_iter();
    let services: Map<_, _> =
        services.map(|(key, nodes)| (format!("default/{key}"), json!({ "nodes": nodes }))).collect();
    json!({ "services": services })
}

fn thirty() -> u32 {
    30
}

fn hundred() -> u32 {
    100
}

fn v1() -> String {
    "/nacos/v1/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_of_none_says_that_there_are_none() {
        let read = |text: &str| serde_json::from_str::<Service>(text).map(|service| service.hosts.len());
        assert_eq!(read(r#"{"name": "g@@s", "hosts": []}"#).unwrap(), 0);
        assert_eq!(read(r#"{"hosts": [{"ip": "10.0.0.1", "port": 80}]}"#).unwrap(), 1);
        for no_answer in ["{}", r#"{"hosts": null}"#, "[]", r#"{"code": 500, "message": "caused: ..."}"#] {
            assert!(read(no_answer).is_err(), "{no_answer}");
        }
    }
}
