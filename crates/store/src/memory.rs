//! A store in memory: for tests, and for what need not last.
//!
//! The rule to know: a `Tree` decides, the `Log` publishes; the embedded store is the same with a file between.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use model::{Key, Kind, Resource, Snapshot};
use tokio::time::Instant;

use crate::{
    Batch, Commit, Error, Store, Write,
    log::{HISTORY, Log},
    tree::{Tree, millis},
};

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

#[cfg(test)]
mod tests;
