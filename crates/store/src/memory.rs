//! A store in memory, and the core of the embedded one.
//!
//! The rule to know: a [`Tree`] decides, the [`Log`] publishes. A tree is a value: a clone costs nothing and can be
//! written to and thrown away, so what is not durable yet is never seen by a reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use imbl::{OrdMap, OrdSet};
use model::{Change, Key, Kind, Resource, Snapshot};
use tokio::{sync::watch, time::Instant};

use crate::{Batch, Commit, Error, Expect, Store, Write};

/// How many batches are kept for watchers that fall behind.
pub const HISTORY: usize = 10_000;

/// As in etcd: 0 is no revision, and a store is born at 1.
const FIRST_REVISION: u64 = 1;

/// A store that is gone with its process.
pub struct Memory {
    log: Arc<Log>,
    /// Its clock starts here.
    born: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    pub fn new() -> Self {
        Self::with_history(HISTORY)
    }

    /// Keeps this many batches for watchers.
    pub fn with_history(batches: usize) -> Self {
        let store_id = uuid::Uuid::new_v4().to_string();
        let tree = Tree::new(Snapshot::new(store_id, FIRST_REVISION));
        Self { log: Arc::new(Log::new(tree, batches)), born: Instant::now() }
    }
}

#[async_trait]
impl Store for Memory {
    fn store_id(&self) -> Arc<str> {
        self.log.tree().snapshot.store_id
    }

    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error> {
        Ok(self.log.tree().snapshot.get(key).cloned())
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error> {
        Ok(self.log.tree().snapshot.of(kind).cloned().collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(self.log.tree().snapshot)
    }

    async fn commit(&self, commit: Commit) -> Result<u64, Error> {
        let born = self.born;
        let revision = self.log.change(|tree| tree.commit(&commit, millis(born.elapsed())))?;
        let soonest = commit.writes.iter().filter_map(Write::ttl).min();
        if let Some(ttl) = soonest {
            let log = Arc::downgrade(&self.log);
            tokio::spawn(expire(log, born, Duration::from_secs(ttl)));
        }
        Ok(revision)
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.log.watch(revision)
    }
}

/// Deletes what has outlived its ttl, now that `first` of them has, until nothing is left to wait for.
async fn expire(log: Weak<Log>, born: Instant, first: Duration) {
    let mut wait = Some(first);
    while let Some(time) = wait {
        tokio::time::sleep(time).await;
        let Some(log) = log.upgrade() else { return };
        let now = millis(born.elapsed());
        // Nothing can be in the way of an expiry: it expects nothing.
        let _ = log.change(|tree| Ok(tree.expire(now)));
        wait = log.tree().next_due().map(|due| Duration::from_millis(due.saturating_sub(now)));
    }
}

/// A duration as the trees count time.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

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

/// The newest tree, the batches that led to it, and those who wait for the next.
pub(crate) struct Log {
    state: Mutex<State>,
    /// The newest revision. Watchers sleep on it.
    newest: watch::Sender<u64>,
    /// How many batches are kept.
    keep: usize,
}

struct State {
    tree: Tree,
    /// One batch a revision, without holes, up to the tree's.
    history: VecDeque<Arc<Batch>>,
}

impl Log {
    pub fn new(tree: Tree, keep: usize) -> Self {
        let newest = watch::Sender::new(tree.snapshot.revision);
        Self { state: Mutex::new(State { tree, history: VecDeque::new() }), newest, keep }
    }

    pub fn tree(&self) -> Tree {
        self.lock().tree.clone()
    }

    /// Changes the tree in place and publishes the batch. Gives the newest revision.
    pub fn change(
        &self,
        work: impl FnOnce(&mut Tree) -> Result<Option<Arc<Batch>>, Error>,
    ) -> Result<u64, Error> {
        let mut state = self.lock();
        let batch = work(&mut state.tree)?;
        let revision = state.tree.snapshot.revision;
        self.add(state, batch);
        Ok(revision)
    }

    /// Publishes a tree and the batches that lead to it from the last one.
    pub fn publish(&self, tree: Tree, batches: Vec<Arc<Batch>>) {
        let mut state = self.lock();
        state.tree = tree;
        self.add(state, batches);
    }

    /// Publishes a tree that no batches lead to: who watches must take a snapshot.
    pub fn replace(&self, tree: Tree) {
        let mut state = self.lock();
        state.tree = tree;
        state.history.clear();
        self.add(state, None);
    }

    /// Every batch after `revision`, then new ones.
    pub fn watch(self: &Arc<Self>, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.after(revision)?;
        // Not the log itself: whoever only watches must not keep a dropped store alive.
        let watcher = Watcher { log: Arc::downgrade(self), newest: self.newest.subscribe(), seen: revision };
        let batches = stream::unfold(Some(watcher), async |watcher| {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(batches) => {
                    Some((stream::iter(batches.into_iter().map(Ok).collect::<Vec<_>>()), Some(watcher)))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        });
        Ok(batches.flatten().boxed())
    }

    /// Some of the batches after `revision`; none if it is the newest.
    fn after(&self, revision: u64) -> Result<Vec<Batch>, Error> {
        const AT_ONCE: usize = 256;
        let state = self.lock();
        let newest = state.tree.snapshot.revision;
        let oldest = state.history.front().map_or(newest, |batch| batch.revision - 1);
        if revision < oldest || revision > newest {
            return Err(Error::Compacted { asked: revision, oldest });
        }
        let seen = usize::try_from(revision - oldest).unwrap_or(usize::MAX);
        Ok(state.history.iter().skip(seen).take(AT_ONCE).map(|batch| (**batch).clone()).collect())
    }

    fn add(&self, mut state: MutexGuard<'_, State>, batches: impl IntoIterator<Item = Arc<Batch>>) {
        state.history.extend(batches);
        let excess = state.history.len().saturating_sub(self.keep);
        state.history.drain(..excess);
        let revision = state.tree.snapshot.revision;
        drop(state);
        // Late-comers may overtake each other here: never tell watchers of an older revision than they know.
        self.newest.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watcher {
    log: Weak<Log>,
    newest: watch::Receiver<u64>,
    seen: u64,
}

impl Watcher {
    /// Waits for batches it has not seen.
    async fn next(&mut self) -> Result<Vec<Batch>, Error> {
        loop {
            self.newest.borrow_and_update();
            let batches = self.log.upgrade().ok_or_else(closed)?.after(self.seen)?;
            if let Some(last) = batches.last() {
                self.seen = last.revision;
                return Ok(batches);
            }
            self.newest.changed().await.map_err(|_| closed())?;
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::Unavailable { store: "the store".to_owned(), reason: "it was closed".to_owned() }
}

#[cfg(test)]
mod tests;
