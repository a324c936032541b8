//! `limit-count`: members of a `group` share its counters, so all must say the same of it.
//!
//! The rule to know: a resource may change what it says of a group for as long as no other is a member. APISIX refuses
//! every change that it has another one in memory for (`apisix/plugins/limit-count/init.lua`).

use std::collections::HashMap;

use model::{Key, Kind};
use serde_json::Value;
use store::Store;

use super::{answer::Answer, rules::Rules};

const PLUGIN: &str = "limit-count";

/// What may have the plugin.
const HOLDERS: [Kind; 6] = [
    Kind::Routes,
    Kind::Services,
    Kind::PluginConfigs,
    Kind::ConsumerGroups,
    Kind::Consumers,
    Kind::GlobalRules,
];

/// A group, and what one member says of it, defaults filled in.
struct Member {
    group: String,
    says: Value,
}

impl Member {
    /// None where the plugin is not there, is off, is in no group, or is refused anyway.
    fn of(rules: &Rules, conf: &Value) -> Option<Self> {
        let mut says = conf.get("plugins")?.get(PLUGIN)?.clone();
        let group = says.get("group")?.as_str()?.to_owned();
        let meta = says.as_object_mut()?.shift_remove("_meta").unwrap_or_default();
        rules.fill_plugin(PLUGIN, &mut says).ok()?;
        (meta["disable"] != true).then_some(Self { group, says })
    }

    fn contradicts(&self, other: &Self) -> bool {
        self.group == other.group && self.says != other.says
    }
}

/// Whether writing this asks what others say of its group.
pub fn concerns(conf: &Value) -> bool {
    conf.get("plugins").and_then(|plugins| plugins.get(PLUGIN)?.get("group")).is_some()
}

/// Refuses what contradicts another member of the group.
pub async fn check(store: &dyn Store, rules: &Rules, key: &Key, conf: &Value) -> Result<(), Answer> {
    if !concerns(conf) {
        return Ok(());
    }
    let Some(own) = Member::of(rules, conf) else { return Ok(()) };
    for kind in HOLDERS {
        for resource in store.list(kind).await? {
            if resource.key == *key || !resource.value.contains(PLUGIN) {
                continue;
            }
            let mut other: Value = resource.read().unwrap_or_default();
            rules.reveal(kind, &mut other);
            if Member::of(rules, &other).is_some_and(|other| own.contradicts(&other)) {
                return Err(Answer::bad(mismatch(key.kind)));
            }
        }
    }
    Ok(())
}

/// The groups of a whole configuration, as its resources are gone through.
#[derive(Default)]
pub struct Groups(HashMap<String, Value>);

impl Groups {
    /// Refuses what contradicts a member before it.
    pub fn check(&mut self, rules: &Rules, kind: Kind, conf: &Value) -> Result<(), String> {
        if !HOLDERS.contains(&kind) || !concerns(conf) {
            return Ok(());
        }
        let Some(member) = Member::of(rules, conf) else { return Ok(()) };
        let first = self.0.entry(member.group).or_insert_with(|| member.says.clone());
        if *first == member.says { Ok(()) } else { Err(mismatch(kind)) }
    }
}

/// In APISIX's words.
fn mismatch(kind: Kind) -> String {
    let place = if kind == Kind::Consumers { "invalid plugins configuration: " } else { "" };
    format!("{place}failed to check the configuration of plugin {PLUGIN} err: group conf mismatched")
}
