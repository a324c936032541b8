//! Plugins built for one place.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::Value;

use crate::{
    ctx::Ctx,
    plugin::{Built, Env, Phase, Reply, Spec},
    vars::Condition,
};

/// A plugin built for one place, with its `_meta`.
pub struct Fitted {
    spec: &'static Spec,
    /// None where `_meta.disable` switches it off: there it only hides the plugin of the same name below it.
    hooks: Option<Built>,
    priority: i32,
    filter: Option<Condition>,
    error_response: Option<Value>,
}

impl Fitted {
    /// Builds a plugin from its configuration, which is checked and has its defaults.
    pub fn new(spec: &'static Spec, conf: &Value, env: &Env<'_>) -> Result<Self, String> {
        let meta = &conf["_meta"];
        if meta.get("pre_function").is_some() {
            return Err("_meta.pre_function is Lua, which this gateway does not run: leave it out".to_owned());
        }
        Ok(Self {
            spec,
            hooks: Some((spec.build)(conf, env)?),
            priority: meta["priority"].as_i64().map_or(spec.facts.priority, |priority| {
                i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX })
            }),
            filter: meta.get("filter").map(Condition::compile).transpose()?,
            error_response: meta.get("error_response").cloned(),
        })
    }

    /// A plugin that is switched off.
    pub fn off(spec: &'static Spec) -> Self {
        Self { spec, hooks: None, priority: spec.facts.priority, filter: None, error_response: None }
    }

    pub fn name(&self) -> &'static str {
        self.spec.facts.name
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn is_on(&self) -> bool {
        self.hooks.is_some()
    }

    pub(super) fn runs_in(&self, phase: Phase) -> bool {
        self.spec.phases.contains(&phase)
    }

    pub(super) fn yields_to_routes(&self) -> bool {
        self.spec.prefer_route
    }

    pub(super) fn hooks(&self) -> Option<&Built> {
        self.hooks.as_ref()
    }

    /// Whether `_meta.filter` lets it run; None where there is no filter.
    pub(crate) fn admits(&self, ctx: &Ctx) -> Option<bool> {
        self.filter.as_ref().map(|filter| filter.holds(ctx))
    }

    /// Whether `_meta.filter` looks at the request's body.
    pub(super) fn reads_body(&self) -> bool {
        self.filter.as_ref().is_some_and(Condition::reads_body)
    }

    /// Puts `_meta.error_response` in the place of what the plugin says of an error.
    pub(super) fn cover(&self, reply: &mut Reply) {
        let Some(response) = &self.error_response else { return };
        if reply.status.as_u16() < 400 {
            return;
        }
        let (body, kind) = match response {
            Value::String(text) => (text.clone(), "text/plain"),
            json => (format!("{json}\n"), "application/json"),
        };
        reply.body = Bytes::from(body);
        reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
}

/// Plugins built for one place, by name.
#[derive(Clone, Default)]
pub struct PluginSet(Option<Arc<[Arc<Fitted>]>>);

impl PluginSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Fitted>> {
        self.0.iter().flat_map(|all| all.iter())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Fitted>> {
        let all = self.0.as_ref()?;
        all.binary_search_by_key(&name, |plugin| plugin.name()).ok().map(|at| &all[at])
    }

    /// Both; of a name in both, this one's.
    pub fn over(&self, under: &Self) -> Self {
        if under.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return under.clone();
        }
        self.iter().chain(under.without(self).iter()).cloned().collect()
    }

    /// Those whose names are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.iter().filter(|plugin| other.get(plugin.name()).is_none()).cloned().collect()
    }

    /// Those of which `stays` says so by name.
    pub fn only(&self, stays: impl Fn(&str) -> bool) -> Self {
        self.iter().filter(|plugin| stays(plugin.name())).cloned().collect()
    }

    /// Those that tell no consumers apart.
    pub fn without_authentication(&self) -> Self {
        self.iter().filter(|plugin| plugin.spec.consumer.is_none()).cloned().collect()
    }

    /// Tells two sets apart while both live.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |all| Arc::as_ptr(all).addr())
    }
}

impl FromIterator<Arc<Fitted>> for PluginSet {
    fn from_iter<I: IntoIterator<Item = Arc<Fitted>>>(plugins: I) -> Self {
        let mut all: Vec<_> = plugins.into_iter().collect();
        all.sort_unstable_by_key(|plugin| plugin.name());
        Self(if all.is_empty() { None } else { Some(all.into()) })
    }
}
