//! Eureka: `discovery.eureka`.
//!
//! The rule to know: the whole registry is read every `fetch_interval`, from the first server that answers. A server
//! that knows no application at all has just been started and is not believed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::header;
use model::resource::Hidden;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Board, Endpoint,
    board::Services,
    client::{self, Client, Timeouts},
    config::Unusable,
};

/// APISIX's keys and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `http://user:password@127.0.0.1:8761`.
    #[serde(skip_serializing)]
    host: Vec<Hidden>,
    #[serde(default)]
    prefix: String,
    /// Seconds. Default: 30.
    #[serde(default = "thirty")]
    fetch_interval: u32,
    /// Where an instance says none. Default: 100.
    #[serde(default = "hundred")]
    weight: u32,
    #[serde(default)]
    timeout: Timeouts,
}

#[derive(Deserialize)]
struct Registry {
    applications: Applications,
}

#[derive(Deserialize)]
struct Applications {
    #[serde(default, deserialize_with = "one_or_many")]
    application: Vec<Application>,
}

#[derive(Deserialize)]
struct Application {
    name: String,
    #[serde(default, deserialize_with = "one_or_many")]
    instance: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    ip_addr: Box<str>,
    status: String,
    #[serde(default, alias = "overriddenstatus")]
    overridden_status: Option<String>,
    #[serde(default)]
    port: Port,
    #[serde(default)]
    secure_port: Port,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
struct Port {
    #[serde(rename = "$", default)]
    number: Option<u16>,
    /// `"true"` or `true`.
    #[serde(rename = "@enabled", default)]
    enabled: Value,
}

impl Config {
    pub fn checked(self) -> Result<Self, Unusable> {
        for host in self.host.iter().map(Hidden::reveal) {
            if !host.starts_with("http://") && !host.starts_with("https://") {
                let text = format!("`{}` must begin with http:// or https://", without_password(host));
                return Err(Unusable::new("eureka.host", text));
            }
        }
        if self.host.is_empty() {
            return Err(Unusable::new("eureka.host", "name at least one, such as http://127.0.0.1:8761"));
        }
        Ok(self)
    }

    /// Without passwords.
    pub fn shown(&self) -> Value {
        let mut shown = json!(self);
        shown["host"] = self.host.iter().map(|host| without_password(host.reveal())).collect();
        shown
    }

    /// Asks the servers, from any one on, until one answers.
    async fn fetch(&self, client: &Client) -> Result<Services, String> {
        let mut errors = Vec::new();
        let first = rand::random_range(0..self.host.len());
        for host in self.host[first..].iter().chain(&self.host[..first]).map(Hidden::reveal) {
            let limit = self.timeout.send.duration() + self.timeout.read.duration();
            let url = format!("{host}{}", self.prefix);
            // reqwest takes name and password out of the URL.
            let query = client.get(&format!("{}/apps", url.trim_end_matches('/')));
            match client::json::<Registry>(query.header(header::ACCEPT, "application/json"), limit).await {
                Ok((_, registry)) if registry.applications.application.is_empty() => {
                    errors.push(format!("{}: it knows no application", without_password(host)));
                }
                Ok((_, registry)) => return Ok(self.services(registry.applications.application)),
                Err(error) => errors.push(format!("{}: {error}", without_password(host))),
            }
        }
        Err(errors.join("; "))
    }

    fn services(&self, applications: Vec<Application>) -> Services {
        let mut services: BTreeMap<Arc<str>, Vec<Endpoint>> = BTreeMap::new();
        for application in applications {
            let endpoints =
                application.instance.into_iter().filter_map(|instance| instance.endpoint(self.weight));
            services.entry(application.name.into()).or_default().extend(endpoints);
        }
        let found = services.into_iter().filter(|(_, endpoints)| !endpoints.is_empty());
        found.map(|(name, endpoints)| (name, endpoints.into())).collect()
    }
}

impl Instance {
    fn endpoint(self, weight: u32) -> Option<Endpoint> {
        let overridden = self.overridden_status.filter(|status| status != "UNKNOWN");
        if overridden.unwrap_or(self.status) != "UP" {
            return None;
        }
        let port = self.secure_port.if_enabled().or_else(|| self.port.if_enabled())?;
        let mut metadata = self.metadata;
        let own = metadata.as_mut().and_then(|metadata| metadata.remove("weight"));
        let weight = own.as_ref().and_then(number).unwrap_or(weight);
        Some(Endpoint { metadata, ..Endpoint::new(&self.ip_addr, Some(port), weight) })
    }
}

impl Port {
    fn if_enabled(&self) -> Option<u16> {
        let enabled = self.enabled == true || self.enabled == "true";
        self.number.filter(|_| enabled)
    }
}

/// Reads the registry again and again.
pub async fn run(conf: Config, board: Arc<Board>) {
    // As APISIX: certificates are not checked.
    let client = match Client::new(conf.timeout.connect.duration(), None) {
        Ok(client) => client,
        Err(error) => return board.failed(0, &error),
    };
    let interval = Duration::from_secs(conf.fetch_interval.max(1).into());
    loop {
        match conf.fetch(&client).await {
            Ok(services) => board.publish(0, services),
            Err(error) => board.failed(0, &error),
        }
        tokio::time::sleep(interval).await;
    }
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// A number, or a text that is one: metadata are texts where Spring writes them.
fn number(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|number| number.try_into().ok()),
    }
}

/// A list of one is written without a list by converters from XML.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(match Option::deserialize(from)? {
        None => Vec::new(),
        Some(Written::Many(many)) => many,
        Some(Written::One(one)) => vec![one],
    })
}

fn thirty() -> u32 {
    30
}

fn hundred() -> u32 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_are_up_are_endpoints() {
        let conf: Config = serde_json::from_value(json!({"host": ["http://u:secret@e:8761"]})).unwrap();
        let on = json!({"$": 8761, "@enabled": "true"});
        let instance = |more: Value| {
            let mut instance = json!({"ipAddr": "10.0.0.1", "status": "UP", "port": on,
                "securePort": {"$": 443, "@enabled": "false"}});
            instance.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            instance
        };
        let instances = json!([
            instance(json!({"metadata": {"weight": "7", "zone": "a"}})),
            instance(json!({"status": "DOWN"})),
            instance(json!({"status": "DOWN", "overriddenStatus": "UP", "ipAddr": "10.0.0.2"})),
            instance(json!({"overriddenstatus": "OUT_OF_SERVICE"})),
            instance(json!({"ipAddr": "10.0.0.3", "securePort": {"$": 443, "@enabled": true}})),
        ]);
        let registry = json!({"applications": {"application": [
            {"name": "A", "instance": instances},
            {"name": "B", "instance": instance(json!({"status": "STARTING"}))},
        ]}});
        let registry: Registry = serde_json::from_value(registry).unwrap();
        let services = serde_json::to_value(conf.services(registry.applications.application)).unwrap();
        let expected = json!({"A": [
            {"host": "10.0.0.1", "port": 8761, "weight": 7, "metadata": {"zone": "a"}},
            {"host": "10.0.0.2", "port": 8761, "weight": 100},
            {"host": "10.0.0.3", "port": 443, "weight": 100},
        ]});
        assert_eq!(services, expected);
        assert_eq!(conf.shown()["host"], json!(["http://e:8761"]));
    }
}
