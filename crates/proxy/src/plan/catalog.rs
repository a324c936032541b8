//! The plugins that configuration may name, ready to be built.
//!
//! The rule to know: a configuration is decrypted, checked against the plugin's schema, filled with its defaults and
//! only then shown to the plugin. What the catalog does not know is refused, never left out: a route without its
//! authentication must not serve.

use std::sync::Arc;

use model::{PluginFacts, resource::Plugins, schema::Validator};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use crate::{
    chain::{Fitted, PluginSet},
    plugin::{ConsumerSide, Env, Spec},
};

/// The plugins that configuration may name. Made once: their schemas are compiled here.
pub struct Catalog {
    plugins: FxHashMap<&'static str, Known>,
    facts: Vec<PluginFacts>,
}

struct Known {
    spec: &'static Spec,
    conf: Validator,
    identity: Option<(ConsumerSide, Validator)>,
    metadata: Option<Validator>,
}

/// An authentication plugin's part of a consumer or credential.
pub(super) struct Identity {
    pub plugin: &'static str,
    /// What the plugin knows the consumer by.
    pub key: Arc<str>,
    pub conf: Value,
}

impl Catalog {
    /// An error names the plugin whose schema is at fault.
    pub fn new(specs: impl IntoIterator<Item = &'static Spec>) -> Result<Self, String> {
        let known = |spec: &'static Spec| {
            let compile = |schema: Value| {
                Validator::new(&schema).map_err(|e| format!("the schema of plugin {}: {e}", spec.facts.name))
            };
            Ok::<_, String>(Known {
                spec,
                conf: compile(model::schema::plugin_schema(&spec.facts))?,
                identity: spec
                    .consumer
                    .map(|side| Ok::<_, String>((side, compile((side.schema)())?)))
                    .transpose()?,
                metadata: spec.facts.metadata_schema.map(|schema| compile(schema())).transpose()?,
            })
        };
        let mut plugins = FxHashMap::default();
        let mut facts = Vec::new();
        for spec in specs {
            plugins.insert(spec.facts.name, known(spec)?);
            facts.push(spec.facts);
        }
        Ok(Self { plugins, facts })
    }

    /// What decrypting needs to know.
    pub(super) fn facts(&self) -> &[PluginFacts] {
        &self.facts
    }

    /// Builds all plugins of one place; `env` gives each what it may ask for.
    pub(super) fn build<'e>(
        &self,
        confs: Plugins,
        mut env: impl FnMut(&'static Spec) -> Env<'e>,
    ) -> Result<PluginSet, String> {
        let build = |(name, conf): (String, Value)| {
            let known = self.known(&name)?;
            if is_off(&conf) {
                return Ok(Arc::new(Fitted::off(known.spec)));
            }
            let conf = filled(&known.conf, conf).map_err(|e| refused(&name, &e))?;
            Fitted::new(known.spec, &conf, &env(known.spec)).map(Arc::new).map_err(|e| refused(&name, &e))
        };
        confs.into_iter().map(build).collect()
    }

    /// Takes what authentication plugins keep on a consumer or credential out of `confs`.
    pub(super) fn identities(&self, confs: &mut Plugins) -> Result<Vec<Identity>, String> {
        let mut identities = Vec::new();
        let names: Vec<String> = confs.keys().cloned().collect();
        for name in names {
            let known = self.known(&name)?;
            let Some((side, schema)) = &known.identity else { continue };
            let Some(conf) = confs.remove(&name).filter(|conf| !is_off(conf)) else { continue };
            let conf = filled(schema, conf).map_err(|e| refused(&name, &e))?;
            let Some(key) = (side.key)(&conf) else {
                return Err(refused(&name, "nothing to know the consumer by"));
            };
            identities.push(Identity { plugin: known.spec.facts.name, key: key.into(), conf });
        }
        Ok(identities)
    }

    /// Checks plugin metadata and fills in its defaults.
    pub(super) fn metadata(&self, plugin: &str, conf: Value) -> Result<Value, String> {
        match &self.known(plugin)?.metadata {
            Some(schema) => filled(schema, conf),
            None => Ok(conf),
        }
    }

    fn known(&self, name: &str) -> Result<&Known, String> {
        self.plugins.get(name).ok_or_else(|| format!("unknown plugin [{name}]"))
    }
}

fn is_off(conf: &Value) -> bool {
    conf.pointer("/_meta/disable") == Some(&Value::Bool(true))
}

fn filled(schema: &Validator, mut conf: Value) -> Result<Value, String> {
    if conf == json!([]) {
        // An empty table of Lua's.
        conf = json!({});
    }
    resolve_environment(&mut conf)?;
    schema.fill(&mut conf)?;
    Ok(conf)
}

/// Puts `$env://NAME` and `$ENV://NAME` in force. A secret that can't be had is an error: nothing may be taken for
/// a password because it could not be replaced by one.
fn resolve_environment(conf: &mut Value) -> Result<(), String> {
    match conf {
        Value::String(text) => {
            let lower = text.get(..10).map(str::to_ascii_lowercase).unwrap_or_default();
            if lower.starts_with("$env://") {
                let name = text[7..].to_owned();
                *text = std::env::var(&name).map_err(|_| format!("the environment has no {name}"))?;
            } else if lower == "$secret://" {
                return Err("references to secret managers are not supported yet".to_owned());
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(resolve_environment),
        Value::Object(members) => members.values_mut().try_for_each(resolve_environment),
        _ => Ok(()),
    }
}

fn refused(plugin: &str, reason: &str) -> String {
    format!("failed to check the configuration of plugin {plugin} err: {reason}")
}
