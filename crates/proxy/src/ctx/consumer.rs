//! Who a request was authenticated as.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::chain::PluginSet;

/// Who a request was authenticated as: a consumer, by one authentication plugin or credential of its.
pub struct Consumer {
    pub name: Arc<str>,
    pub credential_id: Option<Arc<str>>,
    pub group_id: Option<Arc<str>>,
    pub labels: Map<String, Value>,
    /// The authentication plugin's part of the consumer or credential, decrypted. Null for a consumer found by
    /// its name.
    pub auth_conf: Value,
    /// The consumer group's plugins, overridden by the consumer's own; authentication plugins left out.
    pub(crate) plugins: PluginSet,
}

impl Consumer {
    /// The label `custom_id`, told to the upstream as `X-Consumer-Custom-ID`.
    pub fn custom_id(&self) -> Option<&str> {
        self.labels.get("custom_id")?.as_str()
    }

    /// Sets the headers by which the upstream knows the consumer, and removes those that the client made up.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap) {
        const USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
        const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
        const CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
        for (name, value) in [
            (USERNAME, Some(&*self.name)),
            (CREDENTIAL, self.credential_id.as_deref()),
            (CUSTOM_ID, self.custom_id()),
        ] {
            match value.and_then(|value| HeaderValue::from_str(value).ok()) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
    }
}
