//! What the model and the plugins know of a resource, as the handlers need it.

use std::sync::Arc;

use model::{Kind, PluginFacts};
use serde_json::Value;

use super::ssl;

/// TEMPORARY seam.
#[derive(Default)]
pub struct Keyring;

impl Keyring {
    pub fn new(_: &[String]) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Checks and encrypts resources.
pub struct Rules {
    pub plugins: &'static [PluginFacts],
    _keyring: Arc<Keyring>,
}

impl Rules {
    pub fn new(plugins: &'static [PluginFacts], keyring: Arc<Keyring>) -> Result<Self, String> {
        Ok(Self { plugins, _keyring: keyring })
    }

    pub fn check(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        match kind {
            Kind::Ssls => ssl::check(conf),
            Kind::Upstreams => ssl::check_upstream(conf),
            _ => conf.get("upstream").map_or(Ok(()), ssl::check_upstream),
        }
    }

    pub fn check_schema(&self, _kind: Kind, _conf: &Value) -> Result<(), String> {
        Ok(())
    }

    pub fn schema(&self, _kind: Kind) -> &'static Value {
        &Value::Null
    }

    pub fn plugin_schema(&self, facts: &PluginFacts) -> Value {
        (facts.schema)()
    }

    pub fn conceal(&self, _kind: Kind, _conf: &mut Value) {}

    pub fn reveal(&self, _kind: Kind, _conf: &mut Value) {}
}
