//! What outlives a plan: counters, pools, health. Keyed by name, so that an unrelated change of configuration
//! loses nothing.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{secrets::Secrets, upstream::discovery::Directory};

/// A table of shared things by name. An entry lives as long as someone holds it, plus until the next
/// [`Lasting::sweep`].
#[derive(Default)]
pub struct Lasting {
    /// What names and services lead to.
    pub directory: Directory,
    /// What references to secrets stand for.
    pub secrets: Secrets,
    entries: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
}

impl Lasting {
    /// Where names and services lead is looked up in this directory, secrets in those; the default ones ask nobody.
    pub fn new(directory: Directory, secrets: Secrets) -> Self {
        Self { directory, secrets, ..Self::default() }
    }

    /// For plans that nobody is served by: references to secrets stay as they are.
    pub fn blind() -> Self {
        Self { secrets: Secrets::blind(), ..Self::default() }
    }

    /// The entry of this name and type, if there is one.
    pub fn get<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).and_then(|entry| Arc::clone(entry).downcast().ok())
    }

    /// The entry of this name and type, made by `make` if there is none.
    pub fn get_or<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = entries.get(name).and_then(|entry| Arc::clone(entry).downcast::<T>().ok()) {
            return found;
        }
        let made = Arc::new(make());
        entries.insert(name.to_owned(), made.clone());
        made
    }

    /// Drops every entry that nobody else holds. Called after a plan has replaced another and the last request of
    /// the old one is done.
    pub fn sweep(&self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| Arc::strong_count(entry) > 1);
        drop(entries);
        self.directory.sweep();
        self.secrets.sweep();
    }
}
