//! What the model and the plugins know of a resource, as the handlers need it.
//!
//! The rule to know: a resource is checked in plain text, kept with its secrets concealed, and revealed to be read
//! or changed.

use std::sync::Arc;

use model::{
    Kind, PluginFacts,
    schema::{self, Checker},
    secrets::Keyring,
};
use serde_json::Value;

use super::{Config, proto, ssl};

/// Checks, describes, encrypts and decrypts resources.
pub struct Rules {
    pub plugins: &'static [PluginFacts],
    /// Those that stream routes may have.
    pub stream_plugins: &'static [PluginFacts],
    checker: Checker,
    keyring: Arc<Keyring>,
}

impl Rules {
    pub fn new(config: &Config) -> Result<Self, String> {
        let (plugins, stream_plugins) = (config.plugins, config.stream_plugins);
        let checker = Checker::new(plugins)?.with_streams(stream_plugins)?;
        Ok(Self { plugins, stream_plugins, checker, keyring: config.keyring.clone() })
    }

    /// The plugins of a subsystem as the Admin API names it: `http` or `stream`.
    pub fn plugins_of(&self, subsystem: &str) -> Option<&'static [PluginFacts]> {
        match subsystem {
            "http" => Some(self.plugins),
            "stream" => Some(self.stream_plugins),
            _ => None,
        }
    }

    /// Everything that can be told of a resource without knowing others. The error is APISIX's whole text.
    pub fn check(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        self.checker.check(kind, conf)?;
        match kind {
            Kind::Ssls => {
                let mut plain = conf.clone();
                self.reveal(kind, &mut plain);
                ssl::check(&plain)
            }
            Kind::Protos => proto::check(conf.get("content").and_then(Value::as_str).unwrap_or_default()),
            _ if ssl::upstream_of(kind, conf).is_some_and(|upstream| upstream.get("tls").is_some()) => {
                let mut plain = conf.clone();
                self.reveal(kind, &mut plain);
                ssl::upstream_of(kind, &plain).map_or(Ok(()), ssl::check_upstream)
            }
            _ => Ok(()),
        }
    }

    /// Against the schema of the kind alone.
    pub fn check_schema(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        self.checker.check_schema(kind, conf)
    }

    /// Fills in the defaults of a plugin that is not on a consumer's behalf; an error where it does not fit its schema.
    pub fn fill_plugin(&self, name: &str, conf: &mut Value) -> Result<(), String> {
        self.checker.fill_plugin(name, schema::Place::Elsewhere, conf)
    }

    pub fn schema(&self, kind: Kind) -> &'static Value {
        schema::of(kind)
    }

    pub fn plugin_schema(&self, facts: &PluginFacts) -> Value {
        schema::plugin_schema(facts)
    }

    /// Encrypts what must not be read in the store.
    pub fn conceal(&self, kind: Kind, conf: &mut Value) {
        self.keyring.encrypt_resource(kind, conf, self.plugins);
    }

    /// Decrypts it; what can't be decrypted stays as it is.
    pub fn reveal(&self, kind: Kind, conf: &mut Value) {
        let lost = self.keyring.decrypt_resource(kind, conf, self.plugins);
        if lost > 0 {
            tracing::warn!(%kind, fields = lost, "secret fields are encrypted under a key that is not in the keyring");
        }
    }
}
