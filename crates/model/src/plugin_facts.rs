//! What the control plane must know of a plugin to accept its configuration, without knowing how it works.
//!
//! The rule to know: the data plane's list of plugins gives these facts; the Admin API, encryption at rest, the
//! schema endpoints and the reference page are served from them, so that there is no second registry.

use serde_json::Value;

/// The facts of one plugin, as pure data and functions.
#[derive(Clone, Copy, Debug)]
pub struct PluginFacts {
    /// APISIX's name: `key-auth`.
    pub name: &'static str,
    /// APISIX's number: higher runs first.
    pub priority: i32,
    /// JSON Schema of its configuration on a route, service, plugin config, consumer group or global rule, with
    /// APISIX's defaults. `_meta` is added by the reader of this list.
    pub schema: fn() -> Value,
    /// JSON Schema of its configuration on a consumer or credential, for authentication plugins.
    pub consumer_schema: Option<fn() -> Value>,
    /// JSON Schema of its plugin metadata, where it has any.
    pub metadata_schema: Option<fn() -> Value>,
    /// Fields kept encrypted in the store, dots between levels: `key`, `auth.password`.
    pub secrets: &'static [&'static str],
    /// Builds the plugin from a configuration that fits the schema and throws it away: what the data plane could
    /// not build is refused with its reason.
    pub check: fn(&Value) -> Result<(), String>,
}

/// Finds a plugin by name.
pub fn find<'a>(all: &'a [PluginFacts], name: &str) -> Option<&'a PluginFacts> {
    all.iter().find(|facts| facts.name == name)
}
