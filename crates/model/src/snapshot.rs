//! All resources at one revision: the only thing that crosses from the control plane to a data plane.
//!
//! The rule to know: a snapshot is a value. Cloning one is cheap (the map is shared), a changed clone never
//! shows in the original, and two snapshots with a common past are compared in the time of their difference.

use std::sync::Arc;

use imbl::OrdMap;
use serde::de::DeserializeOwned;

use crate::{
    kind::{Key, Kind},
    number,
};

/// A resource as it is kept: its text, untouched, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub key: Key,
    /// The JSON text as the store keeps it; secret fields are ciphertext.
    pub value: Arc<str>,
    /// The store's revision when it was created; 0 where the source knows none.
    pub created: u64,
    /// The store's revision when it was last written; 0 where the source knows none.
    pub modified: u64,
}

impl Resource {
    /// Reads the value as `T`, with its numbers settled: see [`number::settle`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        if !number::has_floats(&self.value) {
            return serde_json::from_str(&self.value);
        }
        let mut value = serde_json::from_str(&self.value)?;
        number::settle(&mut value);
        serde_json::from_value(value)
    }
}

/// All resources at one revision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The lineage: which store these resources come from. Empty where the source knows none (a file).
    pub store_id: Arc<str>,
    /// The store's revision.
    pub revision: u64,
    resources: OrdMap<Key, Arc<Resource>>,
}

/// One resource in which two snapshots differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Arc<Resource>),
    Delete(Key),
}

impl Snapshot {
    pub fn new(store_id: impl Into<Arc<str>>, revision: u64) -> Self {
        Self { store_id: store_id.into(), revision, resources: OrdMap::new() }
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    pub fn put(&mut self, resource: Resource) {
        self.put_shared(Arc::new(resource));
    }

    pub fn put_shared(&mut self, resource: Arc<Resource>) {
        self.resources.insert(resource.key.clone(), resource);
    }

    pub fn delete(&mut self, key: &Key) -> bool {
        self.resources.remove(key).is_some()
    }

    /// Every resource, by kind and id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resources of one kind, by id.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources
            .range(Key::new(kind, "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, r)| r)
    }

    /// The resources of one kind whose id is not before `id`, by id.
    pub fn of_from(&self, kind: Kind, id: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources
            .range(Key::new(kind, id)..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, r)| r)
    }

    /// How many resources of each kind there are; kinds without any are left out.
    pub fn counts(&self) -> std::collections::BTreeMap<Kind, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for resource in self.iter() {
            *counts.entry(resource.key.kind).or_default() += 1;
        }
        counts
    }

    /// What must be done to `old` to get `self`. Resources with the same text are not changes.
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        use imbl::ordmap::DiffItem;
        old.resources
            .diff(&self.resources)
            .filter_map(|item| match item {
                DiffItem::Add(_, new) => Some(Change::Put(new.clone())),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    (old.value != new.value).then(|| Change::Put(new.clone()))
                }
                DiffItem::Remove(key, _) => Some(Change::Delete(key.clone())),
            })
            .collect()
    }
}

impl FromIterator<Resource> for Snapshot {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut snapshot = Self::default();
        for resource in resources {
            snapshot.put(resource);
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: &str, value: &str) -> Resource {
        Resource { key: Key::new(Kind::Routes, id), value: value.into(), created: 1, modified: 1 }
    }

    #[test]
    fn changes_are_found_whether_or_not_the_maps_share_a_past() {
        let old: Snapshot = [route("1", "{}"), route("2", "{}"), route("3", "{}")].into_iter().collect();
        let mut new = old.clone();
        new.put(route("2", "{\"a\":1}"));
        new.put(route("3", "{}"));
        new.put(route("4", "{}"));
        new.delete(&Key::new(Kind::Routes, "1"));
        let fresh: Snapshot = new.iter().map(|r| (**r).clone()).collect();
        for new in [&new, &fresh] {
            let changes = new.changes_since(&old);
            let names: Vec<String> = changes
                .iter()
                .map(|c| match c {
                    Change::Put(r) => format!("+{}", r.key.id),
                    Change::Delete(k) => format!("-{}", k.id),
                })
                .collect();
            assert_eq!(names, ["-1", "+2", "+4"]);
        }
        assert_eq!(new.of(Kind::Routes).count(), 3);
        assert_eq!(new.of(Kind::Services).count(), 0);
    }
}
