//! Who a request may be authenticated as.
//!
//! The rule to know: where two consumers claim the same key, the one compiled last answers to it, and the other
//! again once that is gone.

use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use smallvec::SmallVec;

use crate::ctx::Consumer;

/// Consumers by what authentication plugins know them by, and by name.
#[derive(Clone, Default)]
pub struct Consumers {
    by_key: OrdMap<&'static str, HashMap<Arc<str>, Claims>>,
    by_name: HashMap<Arc<str>, Arc<Consumer>>,
}

type Claims = SmallVec<[Arc<Consumer>; 1]>;

/// What one consumer or credential answers to.
pub(super) struct Identities(pub Vec<(&'static str, Arc<str>, Arc<Consumer>)>);

impl Consumers {
    /// The consumer that `plugin` knows by `key`.
    pub fn by_key(&self, plugin: &str, key: &str) -> Option<&Arc<Consumer>> {
        self.by_key.get(plugin)?.get(key)?.last()
    }

    /// The consumer of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name)
    }

    pub(super) fn insert(&mut self, identities: &Identities) {
        for (plugin, key, consumer) in &identities.0 {
            self.by_key.entry(plugin).or_default().entry(key.clone()).or_default().push(consumer.clone());
        }
    }

    pub(super) fn remove(&mut self, identities: &Identities) {
        for (plugin, key, consumer) in &identities.0 {
            let Some(keys) = self.by_key.get_mut(plugin) else { continue };
            let Some(mut claims) = keys.remove(key) else { continue };
            claims.retain(|other| !Arc::ptr_eq(other, consumer));
            if !claims.is_empty() {
                keys.insert(key.clone(), claims);
            }
        }
    }

    pub(super) fn insert_named(&mut self, consumer: &Arc<Consumer>) {
        self.by_name.insert(consumer.name.clone(), consumer.clone());
    }

    pub(super) fn remove_named(&mut self, consumer: &Arc<Consumer>) {
        if self.by_name.get(&consumer.name).is_some_and(|known| Arc::ptr_eq(known, consumer)) {
            self.by_name.remove(&consumer.name);
        }
    }
}
