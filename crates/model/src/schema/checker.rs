//! The one check: schema, what lies beyond it, plugins.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{extra, of, secret_managers, validator::Validator};
use crate::{expr::Expr, kind::Kind, plugin_facts::PluginFacts};

/// Checks resources of all kinds. Made once: everything in it is compiled.
#[derive(Debug)]
pub struct Checker {
    kinds: Vec<Validator>,
    managers: Vec<(&'static str, Validator)>,
    plugins: HashMap<&'static str, Plugin>,
    /// Those that stream routes may have.
    stream_plugins: HashMap<&'static str, Plugin>,
}

#[derive(Debug)]
struct Plugin {
    facts: PluginFacts,
    conf: Validator,
    /// On a consumer.
    identity: Option<Validator>,
    metadata: Option<Validator>,
}

/// Where a plugin's configuration stands: each place has its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a consumer or a credential.
    Consumer,
    /// In plugin metadata.
    Metadata,
    /// On a stream route.
    Stream,
    /// On a route and everything else that has plugins.
    Elsewhere,
}

/// A plugin's schema as it is served and checked: with `_meta`, which every plugin takes.
pub fn plugin_schema(facts: &PluginFacts) -> Value {
    let mut schema = (facts.schema)();
    if let Some(schema) = schema.as_object_mut()
        && let Some(properties) = schema.entry("properties").or_insert_with(|| json!({})).as_object_mut()
    {
        properties.insert("_meta".to_owned(), meta());
    }
    schema
}

fn meta() -> Value {
    json!({
        "type": "object",
        "properties": {
            "disable": {"type": "boolean"},
            "error_response": {"oneOf": [{"type": "string"}, {"type": "object"}]},
            "priority": {"type": "integer"},
            "filter": {"type": "array"},
            "pre_function": {"type": "string"},
        },
        "additionalProperties": false,
    })
}

impl Checker {
    /// Compiles every schema; an error names the plugin whose schema is at fault.
    pub fn new(plugins: &[PluginFacts]) -> Result<Self, String> {
        let kinds = Kind::ALL.iter().map(|kind| Validator::new(of(*kind))).collect::<Result<_, _>>()?;
        let managers = secret_managers::ALL
            .iter()
            .map(|(name, schema)| Ok((*name, Validator::new(schema)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { kinds, managers, plugins: compiled(plugins)?, stream_plugins: HashMap::new() })
    }

    /// Lets stream routes have these plugins.
    pub fn with_streams(self, plugins: &[PluginFacts]) -> Result<Self, String> {
        Ok(Self { stream_plugins: compiled(plugins)?, ..self })
    }

    /// Checks a resource and leaves it alone. The error is what APISIX's Admin API answers as `error_msg`.
    ///
    /// Plugin metadata must carry its plugin's name as its `id`, a secret `manager/id`.
    pub fn check(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        extra::before_schema(kind, conf)?;
        self.schema(kind, conf)?.check(conf).map_err(|error| format!("invalid configuration: {error}"))?;
        for (name, plugin) in conf.get("plugins").and_then(Value::as_object).into_iter().flatten() {
            // A plugin is built from what it will be built from: its configuration with its defaults.
            self.plugin(kind, name, &mut plugin.clone())?;
        }
        extra::extra_checks(kind, conf)
    }

    /// Checks a resource and fills in all defaults, those of its plugins too.
    pub fn fill(&self, kind: Kind, conf: &mut Value) -> Result<(), String> {
        extra::before_schema(kind, conf)?;
        self.schema(kind, conf)?.fill(conf).map_err(|error| format!("invalid configuration: {error}"))?;
        for (name, plugin) in conf.get_mut("plugins").and_then(Value::as_object_mut).into_iter().flatten() {
            self.plugin(kind, name, plugin)?;
        }
        extra::extra_checks(kind, conf)
    }

    /// Checks against the kind's schema alone, with an error without a prefix.
    pub fn check_schema(&self, kind: Kind, conf: &Value) -> Result<(), String> {
        self.kinds[kind as usize].check(conf)
    }

    /// Checks a plugin's configuration against its schema and fills in the defaults: what a plugin is built from.
    /// The error has no prefix.
    pub fn fill_plugin(&self, name: &str, place: Place, conf: &mut Value) -> Result<(), String> {
        let plugin = self.plugins.get(name).ok_or_else(|| format!("unknown plugin [{name}]"))?;
        plugin.validator(place).map_or(Ok(()), |validator| validator.fill(conf))
    }

    fn plugin(&self, kind: Kind, name: &str, conf: &mut Value) -> Result<(), String> {
        let on_consumer = matches!(kind, Kind::Consumers | Kind::Credentials);
        let place = match kind {
            Kind::Consumers | Kind::Credentials => Place::Consumer,
            Kind::StreamRoutes => Place::Stream,
            _ => Place::Elsewhere,
        };
        self.used_plugin(name, place, conf).map_err(|error| {
            if on_consumer { format!("invalid plugins configuration: {error}") } else { error }
        })?;
        let identifies = self.plugins.get(name).is_some_and(|plugin| plugin.identity.is_some());
        if kind == Kind::Credentials && !identifies {
            return Err("only supports auth type plugins in consumer credential".to_owned());
        }
        Ok(())
    }

    fn used_plugin(&self, name: &str, place: Place, conf: &mut Value) -> Result<(), String> {
        if !conf.is_object() && *conf != json!([]) {
            return Err(format!("invalid plugin conf {conf} for plugin [{name}]"));
        }
        let known = if place == Place::Stream { &self.stream_plugins } else { &self.plugins };
        let plugin = known.get(name).ok_or_else(|| format!("unknown plugin [{name}]"))?;
        let disabled = conf.pointer("/_meta/disable") == Some(&Value::Bool(true));
        match plugin.check(conf, place) {
            Err(error) if !disabled && place == Place::Stream => {
                return Err(format!("failed to check the configuration of stream plugin [{name}]: {error}"));
            }
            Err(error) if !disabled => {
                return Err(format!("failed to check the configuration of plugin {name} err: {error}"));
            }
            _ => {}
        }
        if let Some(filter) = conf.pointer("/_meta/filter") {
            Expr::compile(filter)
                .map_err(|error| format!("failed to validate the 'vars' expression: {error}"))?;
        }
        if conf.pointer("/_meta/pre_function").is_some() {
            let why = "this gateway does not run Lua";
            return Err(format!("failed to load _meta.pre_function in plugin {name}: {why}"));
        }
        Ok(())
    }

    /// The schema that a resource must fit.
    fn schema(&self, kind: Kind, conf: &Value) -> Result<&Validator, String> {
        let any = &self.kinds[kind as usize];
        let id = conf.get("id").and_then(Value::as_str).unwrap_or_default();
        match kind {
            Kind::PluginMetadata => match self.plugins.get(id) {
                None if id.is_empty() => Err("missing plugin name".to_owned()),
                None => Err("invalid plugin name".to_owned()),
                Some(plugin) => Ok(plugin.metadata.as_ref().unwrap_or(any)),
            },
            Kind::Secrets => match id.split_once('/') {
                None => Err(format!("invalid secret id: {id}")),
                Some((manager, _)) => match self.managers.iter().find(|(known, _)| *known == manager) {
                    None => Err(format!("invalid secret manager: {manager}")),
                    Some((_, validator)) => Ok(validator),
                },
            },
            _ => Ok(any),
        }
    }
}

fn compiled(plugins: &[PluginFacts]) -> Result<HashMap<&'static str, Plugin>, String> {
    let compile = |facts: &PluginFacts| match Plugin::new(*facts) {
        Ok(plugin) => Ok((facts.name, plugin)),
        Err(error) => Err(format!("the schema of plugin {}: {error}", facts.name)),
    };
    plugins.iter().map(compile).collect()
}

impl Plugin {
    fn new(facts: PluginFacts) -> Result<Self, String> {
        let optional =
            |schema: Option<fn() -> Value>| schema.map(|schema| Validator::new(&schema())).transpose();
        Ok(Self {
            facts,
            conf: Validator::new(&plugin_schema(&facts))?,
            identity: optional(facts.consumer_schema)?,
            metadata: optional(facts.metadata_schema)?,
        })
    }

    /// A plugin that does not tell consumers apart is on a consumer what it is elsewhere.
    fn validator(&self, place: Place) -> Option<&Validator> {
        match (place, &self.identity) {
            (Place::Metadata, _) => self.metadata.as_ref(),
            (Place::Consumer, Some(identity)) => Some(identity),
            (Place::Consumer, None) | (Place::Elsewhere | Place::Stream, _) => Some(&self.conf),
        }
    }

    fn check(&self, conf: &mut Value, place: Place) -> Result<(), String> {
        self.validator(place).map_or(Ok(()), |validator| validator.fill(conf))?;
        match (place, &self.identity) {
            (Place::Consumer, Some(_)) => Ok(()),
            _ => (self.facts.check)(conf),
        }
    }
}
