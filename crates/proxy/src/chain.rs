//! A route's plugins, sorted by phase and priority, and how they are run.
//!
//! The rule to know: in every phase the global rules come first. A consumer found in rewrite brings its own plugins:
//! they replace the route's of the same name from then on, and those the route has not run rewrite there and then.
//! A phase without hooks costs the comparison of two numbers.

mod fitted;
mod run;

use std::{cmp::Reverse, sync::Arc};

use rustc_hash::FxHashSet;

pub use fitted::{Fitted, PluginSet};
pub use run::{before_proxy, body_filter, header_filter, log, on_request, preread};

use crate::plugin::Phase;

/// Every phase, in the order in which they run.
const PHASES: [Phase; 7] = [
    Phase::Preread,
    Phase::Rewrite,
    Phase::Access,
    Phase::BeforeProxy,
    Phase::HeaderFilter,
    Phase::BodyFilter,
    Phase::Log,
];

/// Plugins sorted by phase and priority.
#[derive(Default)]
pub struct Chain {
    plugins: PluginSet,
    /// The hooks of all phases, one after the other, those of a phase by priority.
    hooks: Box<[Arc<Fitted>]>,
    /// Whether a plugin's filter looks at the request's body.
    reads_body: bool,
    /// Where each phase ends in `hooks`.
    ends: [u16; PHASES.len()],
}

impl Chain {
    pub fn new(plugins: PluginSet) -> Self {
        let mut sorted: Vec<&Arc<Fitted>> = plugins.iter().filter(|plugin| plugin.is_on()).collect();
        // The set is sorted by name, and the sort is stable: equals run in the order of their names.
        sorted.sort_by_key(|plugin| Reverse(plugin.priority()));
        let mut hooks = Vec::new();
        let ends = PHASES.map(|phase| {
            hooks.extend(
                sorted.iter().filter(|plugin| plugin.runs_in(phase)).map(|plugin| Arc::clone(plugin)),
            );
            u16::try_from(hooks.len()).unwrap_or(u16::MAX)
        });
        let reads_body = sorted.iter().any(|plugin| plugin.reads_body());
        Self { hooks: hooks.into(), reads_body, ends, plugins }
    }

    /// Whether the request's body must be there before its plugins run.
    pub fn reads_body(&self) -> bool {
        self.reads_body
    }

    /// Whether no plugin has a hook in `phase`.
    pub fn is_empty(&self, phase: Phase) -> bool {
        self.bounds(phase).is_empty()
    }

    /// Whether nothing runs at all.
    pub fn has_no_hooks(&self) -> bool {
        self.hooks.is_empty()
    }

    /// The names of the plugins that run, highest priority first within each phase.
    pub fn names(&self) -> Vec<&'static str> {
        let mut seen = FxHashSet::default();
        self.hooks.iter().map(|plugin| plugin.name()).filter(|name| seen.insert(*name)).collect()
    }

    /// Whether it has this plugin and it is not switched off.
    pub fn has(&self, name: &str) -> bool {
        self.plugins.get(name).is_some_and(|plugin| plugin.is_on())
    }

    pub(crate) fn plugins(&self) -> &PluginSet {
        &self.plugins
    }

    fn hooks(&self, phase: Phase) -> &[Arc<Fitted>] {
        &self.hooks[self.bounds(phase)]
    }

    fn bounds(&self, phase: Phase) -> std::ops::Range<usize> {
        let at = phase as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        usize::from(start)..usize::from(self.ends[at])
    }
}

/// A route's chain once a consumer is known.
pub struct Joined {
    pub chain: Arc<Chain>,
    /// What the consumer brings that the route has not: its rewrite hooks run when it joins.
    newcomers: Chain,
}

impl Joined {
    pub(crate) fn new(route: &Chain, consumer: &PluginSet) -> Self {
        let newcomers = consumer.without(&route.plugins);
        Self { chain: Arc::new(Chain::new(consumer.over(&route.plugins))), newcomers: Chain::new(newcomers) }
    }
}

#[cfg(test)]
mod tests;
