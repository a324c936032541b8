//! What the model and the plugins know of a resource, as the handlers need it.
//!
//! The rule to know: a resource is checked in plain text, kept with its secrets concealed, and revealed to be read
//! or changed.

use std::sync::Arc;

use model::{
    Key, Kind, PluginFacts,
    schema::{self, Checker},
    secrets::Keyring,
};
use serde_json::Value;

use super::{Config, Serves, proto, ssl};

/// Checks, describes, encrypts and decrypts resources.
pub struct Rules {
    pub plugins: &'static [PluginFacts],
    /// Those that stream routes may have.
    pub stream_plugins: &'static [PluginFacts],
    checker: Checker,
    keyring: Arc<Keyring>,
    serves: Serves,
    /// Of keys in answers.
    prefix: Arc<str>,
}

impl Rules {
    pub fn new(config: &Config) -> Result<Self, String> {
        let (plugins, stream_plugins) = (config.plugins, config.stream_plugins);
        let checker = Checker::new(plugins)?.with_streams(stream_plugins)?;
        Ok(Self {
            plugins,
            stream_plugins,
            checker,
            keyring: config.keyring.clone(),
            serves: config.serves.clone(),
            prefix: config.prefix.clone(),
        })
    }

    /// The plugins of a subsystem as the Admin API names it: `http` or `stream`.
    pub fn plugins_of(&self, subsystem: &str) -> Option<&'static [PluginFacts]> {
        match subsystem {
            "http" => Some(self.plugins),
            "stream" => Some(self.stream_plugins),
            _ => None,
        }
    }

    /// A resource's key as answers name it: as etcd has it.
    pub fn path_of(&self, key: &Key) -> String {
        format!("{}/{key}", self.prefix)
    }

    /// Everything that can be told of a resource without knowing others. The error is APISIX's whole text.
    pub fn check(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        self.checker.check(kind, conf)?;
        if let Some(id @ ("." | "..")) = conf.get("id").and_then(Value::as_str) {
            // It would be gone from every path.
            return Err(format!("invalid configuration: property \"id\" validation failed: {id} is no id"));
        }
        match kind {
            Kind::Protos => proto::check(conf.get("content").and_then(Value::as_str).unwrap_or_default()),
            Kind::Ssls | Kind::Routes | Kind::Services | Kind::Upstreams | Kind::StreamRoutes => {
                let mut plain = conf.clone();
                self.reveal(kind, &mut plain);
                match kind {
                    Kind::Ssls => ssl::check(&plain)?,
                    _ => ssl::upstream_of(kind, &plain).map_or(Ok(()), ssl::check_upstream)?,
                }
                (self.serves)(kind, &plain).map_err(|error| format!("invalid configuration: {error}"))
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
        told(kind, self.keyring.decrypt_resource(kind, conf, self.plugins));
    }

    /// Decrypts what is shown: the secrets of plugins, as APISIX does it, and no private keys.
    pub fn reveal_plugins(&self, kind: Kind, conf: &mut Value) {
        told(kind, self.keyring.decrypt_plugins(kind, conf, self.plugins));
    }
}

fn told(kind: Kind, lost: usize) {
    if lost > 0 {
        tracing::warn!(%kind, fields = lost, "secret fields are encrypted under a key that is not in the keyring");
    }
}
