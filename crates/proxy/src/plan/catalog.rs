//! The plugins that configuration may name, ready to be built.
//!
//! The rule to know: a configuration is decrypted, its references to secrets are replaced, it is checked against the plugin's schema, filled with its defaults and
//! only then shown to the plugin. What the catalog does not know is refused, never left out: a route without its
//! authentication must not serve.

use std::sync::Arc;

use model::{
    Kind, PluginFacts, Resource,
    resource::Plugins,
    schema::{Checker, Validator, extra_checks},
};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use crate::{
    chain::{Fitted, PluginSet},
    plugin::{ConsumerSide, Env, Spec},
};

/// The plugins that configuration may name. Made once: their schemas are compiled here.
#[derive(Default)]
pub struct Catalog {
    plugins: Table,
    /// Those that stream routes may name.
    stream_plugins: Table,
    facts: Vec<PluginFacts>,
    /// What resources must fit that nobody has checked yet.
    kinds: Option<Checker>,
}

type Table = FxHashMap<&'static str, Known>;

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
        let mut catalog = Self::default();
        for spec in specs {
            catalog.plugins.insert(spec.facts.name, Known::new(spec)?);
            catalog.facts.push(spec.facts);
        }
        Ok(catalog)
    }

    /// Lets stream routes name these.
    pub fn with_streams(mut self, specs: impl IntoIterator<Item = &'static Spec>) -> Result<Self, String> {
        for spec in specs {
            self.stream_plugins.insert(spec.facts.name, Known::new(spec)?);
            if !self.plugins.contains_key(spec.facts.name) {
                self.facts.push(spec.facts);
            }
        }
        Ok(self)
    }

    /// For resources of a file, which no Admin API has checked: each must fit the schema of its kind.
    pub fn with_schemas(self) -> Result<Self, String> {
        Ok(Self { kinds: Some(Checker::new(&[])?), ..self })
    }

    /// The error is what APISIX's Admin API answers as `error_msg`.
    pub(super) fn check(&self, resource: &Resource) -> Result<(), String> {
        let Some(kinds) = &self.kinds else { return Ok(()) };
        // These two have no schema but their plugin's and their manager's.
        if matches!(resource.key.kind, Kind::PluginMetadata | Kind::Secrets) {
            return Ok(());
        }
        let conf: Value = resource.read().map_err(|error| error.to_string())?;
        let checked = kinds.check_schema(resource.key.kind, &conf);
        checked.map_err(|error| format!("invalid configuration: {error}"))?;
        extra_checks(resource.key.kind, &conf)
    }

    /// Whether stream routes may name this plugin.
    pub(super) fn is_for_streams(&self, name: &str) -> bool {
        self.stream_plugins.contains_key(name)
    }

    /// What decrypting needs to know.
    pub(super) fn facts(&self) -> &[PluginFacts] {
        &self.facts
    }

    /// Builds all plugins of one place, on a resource of this kind; `env` gives each what it may ask for.
    pub(super) fn build<'e>(
        &self,
        kind: Kind,
        confs: Plugins,
        mut env: impl FnMut(&'static Spec) -> Env<'e>,
    ) -> Result<PluginSet, String> {
        let on_stream = kind == Kind::StreamRoutes;
        let table = if on_stream { &self.stream_plugins } else { &self.plugins };
        let build = |(name, conf): (String, Value)| {
            let known = table.get(&*name).ok_or_else(|| unknown(&name))?;
            known.build(conf, &mut env).map_err(|error| match on_stream {
                true => format!("failed to check the configuration of stream plugin [{name}]: {error}"),
                false => refused(&name, &error),
            })
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

    /// Whether there is such a plugin.
    pub(super) fn has(&self, name: &str) -> bool {
        self.plugins.contains_key(name)
    }

    fn known(&self, name: &str) -> Result<&Known, String> {
        self.plugins.get(name).ok_or_else(|| unknown(name))
    }
}

impl Known {
    fn new(spec: &'static Spec) -> Result<Self, String> {
        let compile = |schema: Value| {
            Validator::new(&schema).map_err(|e| format!("the schema of plugin {}: {e}", spec.facts.name))
        };
        Ok(Self {
            spec,
            conf: compile(model::schema::plugin_schema(&spec.facts))?,
            identity: spec
                .consumer
                .map(|side| Ok::<_, String>((side, compile((side.schema)())?)))
                .transpose()?,
            metadata: spec.facts.metadata_schema.map(|schema| compile(schema())).transpose()?,
        })
    }

    fn build<'e>(
        &self,
        conf: Value,
        env: &mut impl FnMut(&'static Spec) -> Env<'e>,
    ) -> Result<Arc<Fitted>, String> {
        if is_off(&conf) {
            return Ok(Arc::new(Fitted::off(self.spec)));
        }
        let conf = filled(&self.conf, conf)?;
        Fitted::new(self.spec, &conf, &env(self.spec)).map(Arc::new)
    }
}

fn unknown(name: &str) -> String {
    format!("unknown plugin [{name}]")
}

pub(super) fn is_off(conf: &Value) -> bool {
    conf.pointer("/_meta/disable") == Some(&Value::Bool(true))
}

fn filled(schema: &Validator, mut conf: Value) -> Result<Value, String> {
    if conf == json!([]) {
        // An empty table of Lua's.
        conf = json!({});
    }
    schema.fill(&mut conf)?;
    Ok(conf)
}

pub(super) fn refused(plugin: &str, reason: &str) -> String {
    format!("failed to check the configuration of plugin {plugin} err: {reason}")
}
