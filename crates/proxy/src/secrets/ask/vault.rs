//! HashiCorp Vault: <https://developer.hashicorp.com/vault/api-docs/secret/kv>.
//!
//! The rule to know: APISIX reads version 1 of the engine. Version 2 wraps the same in one more `data`, and is read
//! too where `prefix` has the `data` of its paths.

use serde_json::{Map, Value};

use super::{Answer, Asker, Failure, Secret, below};
use crate::secrets::manager::Vault;

impl Asker {
    pub(super) async fn vault(&self, vault: &Vault, name: &str) -> Result<Secret, Failure> {
        let segments: Vec<&str> = ["v1"]
            .into_iter()
            .chain(vault.prefix.split('/'))
            .chain(name.split('/'))
            .filter(|segment| !segment.is_empty())
            .collect();
        let url = below(&vault.uri, &segments)?;
        let mut request = self.client.get(url.as_str()).header("X-Vault-Token", vault.token.reveal());
        if let Some(namespace) = &vault.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let answer = Answer::to(request).await?;
        match answer.status {
            200 => match answer.json()?["data"].take() {
                Value::Object(data) => Ok(Secret::Members(unwrapped(data))),
                _ => Err(Failure::Refused("it answers without data".to_owned())),
            },
            404 => Err(Failure::Missing),
            _ => Err(answer.failure(|body| {
                let errors = body["errors"].as_array()?.iter().filter_map(Value::as_str);
                Some(errors.collect::<Vec<_>>().join(", "))
            })),
        }
    }
}

/// Version 2: `data` and `metadata` with a version, and nothing else.
fn unwrapped(mut data: Map<String, Value>) -> Map<String, Value> {
    let is_wrapped = data.len() == 2
        && data.get("metadata").is_some_and(|metadata| metadata["version"].is_number())
        && data.get("data").is_some_and(Value::is_object);
    match data.get_mut("data") {
        Some(Value::Object(inner)) if is_wrapped => std::mem::take(inner),
        _ => data,
    }
}
