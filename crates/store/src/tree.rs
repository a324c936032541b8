//! What decides in the stores of one process: what a commit does to what is there.
//!
//! The rule to know: a tree is a value. A clone costs nothing and can be written to and thrown away, so what is not
//! durable yet is never seen by a reader.

use std::{sync::Arc, time::Duration};

use imbl::{OrdMap, OrdSet};
use model::{Change, Key, Resource, Snapshot};

use crate::{Batch, Commit, Error, Expect, Write};

/// What a store holds at one revision, with the time at which some of it ends.
#[derive(Clone)]
pub(crate) struct Tree {
    pub snapshot: Snapshot,
    /// In milliseconds of the owner's clock.
    due: OrdMap<Key, u64>,
    soonest: OrdSet<(u64, Key)>,
}

impl Tree {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, due: OrdMap::new(), soonest: OrdSet::new() }
    }

    pub fn due(&self, key: &Key) -> Option<u64> {
        self.due.get(key).copied()
    }

    pub fn set_due(&mut self, key: &Key, due: Option<u64>) {
        if let Some(old) = self.due.remove(key) {
            self.soonest.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert(key.clone(), due);
            self.soonest.insert((due, key.clone()));
        }
    }

    pub fn next_due(&self) -> Option<u64> {
        self.soonest.get_min().map(|(due, _)| *due)
    }

    /// Does all of a commit, or nothing. `None`: there was nothing to change.
    pub fn commit(&mut self, commit: &Commit, now: u64) -> Result<Option<Arc<Batch>>, Error> {
        let broken = commit.expect.iter().find(|(key, expect)| !self.holds(key, *expect));
        if let Some((key, _)) = broken {
            return Err(Error::Conflict { key: key.clone() });
        }
        let revision = self.snapshot.revision + 1;
        let changes = commit.effective().filter_map(|write| self.write(write, revision, now)).collect();
        Ok(self.advance(revision, changes))
    }

    /// Deletes what is due.
    pub fn expire(&mut self, now: u64) -> Option<Arc<Batch>> {
        let revision = self.snapshot.revision + 1;
        let over: Vec<Key> =
            self.soonest.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key.clone()).collect();
        let changes = over.into_iter().filter_map(|key| self.delete(&key)).collect();
        self.advance(revision, changes)
    }

    fn holds(&self, key: &Key, expect: Expect) -> bool {
        let found = self.snapshot.get(key);
        match expect {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::At(revision) => found.map_or(0, |resource| resource.modified) == revision,
        }
    }

    fn write(&mut self, write: &Write, revision: u64, now: u64) -> Option<Change> {
        match write {
            Write::Delete { key } => self.delete(key),
            Write::Put { key, value, ttl } => {
                self.set_due(key, ttl.map(|ttl| now.saturating_add(ttl.saturating_mul(1000))));
                let created = self.snapshot.get(key).map_or(revision, |resource| resource.created);
                let resource =
                    Resource { key: key.clone(), value: value.clone(), created, modified: revision };
                let resource = Arc::new(resource);
                self.snapshot.put_shared(resource.clone());
                Some(Change::Put(resource))
            }
        }
    }

    fn delete(&mut self, key: &Key) -> Option<Change> {
        self.set_due(key, None);
        self.snapshot.delete(key).then(|| Change::Delete(key.clone()))
    }

    fn advance(&mut self, revision: u64, changes: Vec<Change>) -> Option<Arc<Batch>> {
        if changes.is_empty() {
            return None;
        }
        self.snapshot.revision = revision;
        Some(Arc::new(Batch { revision, changes }))
    }
}

/// A duration as the trees count time.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use model::Kind;

    use super::*;

    fn key(id: &str) -> Key {
        Key::new(Kind::Routes, id)
    }

    #[test]
    fn a_tree_expires_what_is_due_and_nothing_else() {
        let mut tree = Tree::new(Snapshot::new("s", 1));
        let put = |id: &str, ttl| Commit {
            writes: vec![Write::Put { key: key(id), value: "{}".into(), ttl }],
            ..Commit::default()
        };
        tree.commit(&put("short", Some(1)), 0).unwrap();
        tree.commit(&put("renewed", Some(1)), 0).unwrap();
        tree.commit(&put("kept", Some(1)), 0).unwrap();
        tree.commit(&put("renewed", Some(5)), 500).unwrap();
        tree.commit(&put("kept", None), 500).unwrap();
        assert_eq!(tree.next_due(), Some(1000));
        assert_eq!(tree.expire(999), None);
        let batch = tree.expire(1000).unwrap();
        assert_eq!(batch.changes, [Change::Delete(key("short"))]);
        assert_eq!((batch.revision, tree.snapshot.revision), (7, 7));
        assert_eq!(tree.next_due(), Some(5500));
        tree.commit(&Commit::delete(key("renewed")), 600).unwrap();
        assert_eq!(tree.next_due(), None);
    }
}
