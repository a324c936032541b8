//! Endpoints and EndpointSlices, and the services they make up.

use std::{collections::BTreeMap, sync::Arc};

use regex::Regex;
use serde::{Deserialize, Deserializer};

use crate::upstream::discovery::{Endpoint, board::Services};

/// Either kind of object: Endpoints have `subsets`, EndpointSlices the rest.
#[derive(Deserialize)]
pub struct Object {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_nothing")]
    subsets: Vec<Subset>,
    #[serde(default, deserialize_with = "or_nothing")]
    endpoints: Vec<Slice>,
    #[serde(default, deserialize_with = "or_nothing")]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
    #[serde(default, deserialize_with = "or_nothing")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Subset {
    #[serde(default, deserialize_with = "or_nothing")]
    addresses: Vec<Address>,
    #[serde(default, deserialize_with = "or_nothing")]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
struct Address {
    ip: Box<str>,
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default, deserialize_with = "or_nothing")]
    addresses: Vec<Box<str>>,
    #[serde(default, deserialize_with = "or_nothing")]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

/// Namespace and name.
type Name = (String, String);
/// By port.
type Ports = BTreeMap<String, Vec<Endpoint>>;

/// What was listed and what changed since.
pub struct Table {
    prefix: String,
    weight: u32,
    /// Whether a match is wanted, and of what.
    namespaces: Option<(bool, Vec<Regex>)>,
    /// By service, and by the object that has told of it.
    known: BTreeMap<Name, BTreeMap<String, Ports>>,
}

impl Table {
    pub fn new(prefix: &str, weight: u32, namespaces: Option<(bool, Vec<Regex>)>) -> Self {
        Self { prefix: prefix.to_owned(), weight, namespaces, known: BTreeMap::new() }
    }

    /// An object is new, changed or gone.
    pub fn change(&mut self, object: Object, gone: bool) {
        const SERVICE: &str = "kubernetes.io/service-name";
        let Metadata { namespace, name, labels } = &object.metadata;
        if let Some((wanted, patterns)) = &self.namespaces
            && patterns.iter().any(|pattern| pattern.is_match(namespace)) != *wanted
        {
            return;
        }
        // A slice is part of the service that its label names.
        let service = labels.get(SERVICE).unwrap_or(name);
        let key = (namespace.clone(), service.clone());
        let name = name.clone();
        if gone {
            if let Some(objects) = self.known.get_mut(&key) {
                objects.remove(&name);
                if objects.is_empty() {
                    self.known.remove(&key);
                }
            }
        } else {
            let ports = object.ports(self.weight);
            self.known.entry(key).or_default().insert(name, ports);
        }
    }

    /// All services: `namespace/name:port`.
    pub fn services(&self) -> Services {
        let mut services = Services::new();
        for ((namespace, name), objects) in &self.known {
            let mut ports = Ports::new();
            for (port, endpoints) in objects.values().flatten() {
                ports.entry(port.clone()).or_default().extend(endpoints.iter().cloned());
            }
            for (port, mut endpoints) in ports {
                endpoints.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
                let key = format!("{}{namespace}/{name}:{port}", self.prefix);
                services.insert(Arc::from(key), endpoints.into());
            }
        }
        services
    }
}

impl Object {
    fn ports(self, weight: u32) -> Ports {
        let mut ports = Ports::new();
        let mut add = |port: &Port, addresses: &[Box<str>]| {
            let Some(number) = port.port else { return };
            let name = port.name.clone().unwrap_or_else(|| number.to_string());
            let endpoints = addresses.iter().map(|ip| Endpoint::new(ip, Some(number), weight));
            ports.entry(name).or_default().extend(endpoints);
        };
        for subset in self.subsets {
            let addresses: Vec<_> = subset.addresses.into_iter().map(|address| address.ip).collect();
            if !addresses.is_empty() {
                subset.ports.iter().for_each(|port| add(port, &addresses));
            }
        }
        for slice in self.endpoints.iter().filter(|slice| slice.conditions.ready == Some(true)) {
            self.ports.iter().for_each(|port| add(port, &slice.addresses));
        }
        ports
    }
}

/// `null` as what is not there.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn change(table: &mut Table, object: Value, gone: bool) {
        table.change(serde_json::from_value(object).unwrap(), gone);
    }

    #[test]
    fn a_services_slices_are_put_together() {
        let mut table = Table::new("a/", 50, Some((true, vec![Regex::new("^(?:d.*)$").unwrap()])));
        let slice = |name: &str, ips: Value, ready: Value| {
            json!({"metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": [{"addresses": ips, "conditions": {"ready": ready}}],
                "ports": [{"name": "http", "port": 80}, {"port": 81}, {"name": "none", "port": null}]})
        };
        change(&mut table, slice("web-1", json!(["10.0.0.2"]), json!(true)), false);
        change(&mut table, slice("web-2", json!(["10.0.0.1"]), json!(true)), false);
        change(&mut table, slice("web-3", json!(["10.0.0.3"]), json!(null)), false);
        let other = json!({"metadata": {"namespace": "other", "name": "web"}, "subsets": null});
        change(&mut table, other, false);
        let hosts = |table: &Table, key: &str| {
            let services = table.services();
            services.get(key).map(|all| all.iter().map(|one| one.host.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(hosts(&table, "a/default/web:http").unwrap(), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(hosts(&table, "a/default/web:81").unwrap().len(), 2);
        assert_eq!(table.services().len(), 2);
        change(&mut table, slice("web-2", json!([]), json!(true)), true);
        assert_eq!(hosts(&table, "a/default/web:http").unwrap(), ["10.0.0.2"]);
    }

    #[test]
    fn subsets_are_endpoints() {
        let mut table = Table::new("", 7, None);
        let object = json!({"metadata": {"namespace": "default", "name": "plat-dev"}, "subsets": [
            {"addresses": [{"ip": "10.5.10.110"}, {"ip": "10.5.10.109"}], "ports": [{"port": 3306, "name": "port"}]},
            {"notReadyAddresses": [{"ip": "10.5.10.111"}], "ports": [{"port": 3306, "name": "port"}]},
        ]});
        change(&mut table, object, false);
        let expected = json!({"default/plat-dev:port": [
            {"host": "10.5.10.109", "port": 3306, "weight": 7}, {"host": "10.5.10.110", "port": 3306, "weight": 7},
        ]});
        assert_eq!(serde_json::to_value(table.services()).unwrap(), expected);
    }
}
