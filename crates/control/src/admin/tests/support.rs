//! An Admin API over a store in memory, and scripts of requests and answers.

pub use std::sync::Arc;

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderMap, Request};
pub use model::{Key, Kind};
use model::{PluginFacts, instance::DataEncryption, secrets::Keyring};
pub use serde_json::{Value, json};
pub use store::{Store, memory::Memory};
use tower::ServiceExt;

pub use crate::admin::{AdminKey, Config, Role, Version, router};

/// What a client gets.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| Value::String(self.text.clone()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An Admin API that asks for no key.
pub struct Api {
    pub router: Router,
    pub store: Arc<dyn Store>,
}

pub fn config(store: Arc<dyn Store>) -> Config {
    let keyring = vec!["qeddd145sfvddff3".to_owned()];
    let keys = DataEncryption { enable_encrypt_fields: true, keyring, ..DataEncryption::default() };
    Config {
        key_required: false,
        stream: true,
        plugins: PLUGINS,
        stream_plugins: STREAM_PLUGINS,
        keyring: Arc::new(Keyring::new(&keys).unwrap()),
        ..Config::new(store)
    }
}

pub fn api() -> Api {
    over(Arc::new(Memory::default()))
}

pub fn over(store: Arc<dyn Store>) -> Api {
    Api { router: router(config(store.clone())).unwrap(), store }
}

impl Api {
    /// `"PUT /routes/1"` and a body; null sends none, a string is sent as it is.
    pub async fn call(&self, what: &str, body: &Value) -> Got {
        let body = match body {
            Value::Null => Body::empty(),
            Value::String(raw) => Body::from(raw.clone()),
            other => Body::from(other.to_string()),
        };
        self.send(what, &[], body).await
    }

    pub async fn send(&self, what: &str, headers: &[(&str, &str)], body: Body) -> Got {
        let (method, path) = what.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(format!("/apisix/admin{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(std::net::SocketAddr::from(([127, 0, 0, 1], 4711))));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    /// Runs requests in order; each answer must have the status and contain the expected part.
    pub async fn script(&self, steps: &[(&str, Value, u16, Value)]) {
        for (at, (what, body, status, expected)) in steps.iter().enumerate() {
            let got = self.call(what, body).await;
            assert_eq!(got.status, *status, "step {at}: {what} {body}\n{}", got.text);
            if let Err(difference) = contains(&got.json(), expected, "") {
                panic!("step {at}: {what} {body}\n{difference}\nin {}", got.text);
            }
        }
    }

    /// What the store holds, untouched.
    pub async fn stored(&self, key: &str) -> Value {
        let resource =
            self.store.get(&key.parse().unwrap()).await.unwrap().unwrap_or_else(|| panic!("no {key}"));
        resource.read().unwrap()
    }
}

/// Whether everything expected is in `got`; an expected null must not be there.
fn contains(got: &Value, expected: &Value, at: &str) -> Result<(), String> {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => expected.iter().try_for_each(|(name, part)| {
            let at = format!("{at}/{name}");
            match got.get(name) {
                Some(found) if part.is_null() && !found.is_null() => Err(format!("{at} is there: {found}")),
                Some(found) => contains(found, part, &at),
                None if part.is_null() => Ok(()),
                None => Err(format!("{at} is missing, expected {part}")),
            }
        }),
        (_, Value::Null) if at.is_empty() => Ok(()),
        (Value::String(got), Value::String(expected)) if expected.contains('…') => {
            let mut rest = got.as_str();
            for part in expected.split('…') {
                let found =
                    rest.find(part).ok_or_else(|| format!("{at}: `{got}` is not like `{expected}`"))?;
                rest = &rest[found + part.len()..];
            }
            Ok(())
        }
        _ if got == expected => Ok(()),
        _ => Err(format!("{at}: expected {expected}, got {got}")),
    }
}

/// `{"error_msg":…}`
pub fn error(message: &str) -> Value {
    json!({ "error_msg": message })
}

/// A body for an upstream.
pub fn upstream() -> Value {
    json!({ "nodes": { "127.0.0.1:8080": 1 }, "type": "roundrobin" })
}

/// A body for a route with its own upstream.
pub fn route(uri: &str) -> Value {
    json!({ "uri": uri, "upstream": upstream() })
}

/// Some plugins, as the data plane would list them.
pub static PLUGINS: &[PluginFacts] = &[
    PluginFacts {
        name: "key-auth",
        priority: 2500,
        consumer_schema: Some(
            || json!({ "type": "object", "properties": { "key": { "type": "string" } }, "required": ["key"] }),
        ),
        secrets: &["key"],
        ..PLAIN
    },
    PluginFacts {
        name: "basic-auth",
        priority: 2520,
        consumer_schema: Some(|| {
            let text = json!({ "type": "string" });
            json!({
                "type": "object",
                "properties": { "username": text, "password": text },
                "required": ["username", "password"],
            })
        }),
        secrets: &["password"],
        ..PLAIN
    },
    PluginFacts {
        name: "limit-count",
        priority: 1002,
        schema: || {
            json!({
                "type": "object",
                "properties": {
                    "count": { "type": "integer", "exclusiveMinimum": 0 },
                    "time_window": { "type": "integer", "exclusiveMinimum": 0 },
                    "rejected_code": { "type": "integer", "default": 503 },
                    "key": { "type": "string", "default": "remote_addr" },
                },
                "required": ["count", "time_window"],
            })
        },
        ..PLAIN
    },
    PluginFacts {
        name: "example-plugin",
        metadata_schema: Some(|| {
            json!({
                "type": "object",
                "properties": { "ikey": { "type": "number", "minimum": 0 }, "skey": { "type": "string" } },
                "required": ["ikey", "skey"],
            })
        }),
        ..PLAIN
    },
    PluginFacts { name: "traffic-split", priority: 966, ..PLAIN },
    PluginFacts { name: "grpc-transcode", priority: 506, ..PLAIN },
    PluginFacts { name: "proxy-rewrite", priority: 1008, ..PLAIN },
    PluginFacts { name: "picky", check: |_| Err("it is never content".to_owned()), ..PLAIN },
];

/// The plugins that stream routes may have.
const STREAM_PLUGINS: &[PluginFacts] = &[
    PluginFacts { name: "ip-restriction", priority: 3000, ..PLAIN },
    PluginFacts { name: "picky", check: |_| Err("it is never content".to_owned()), ..PLAIN },
];

/// A plugin that takes anything.
const PLAIN: PluginFacts = PluginFacts {
    name: "",
    priority: 0,
    schema: || json!({ "type": "object", "properties": {} }),
    consumer_schema: None,
    metadata_schema: None,
    secrets: &[],
    check: |_| Ok(()),
};
