//! What publishes in the stores of one process: the newest tree, and the batches that led to it.
//!
//! The rule to know: watchers pull. Nobody waits for a slow one, nothing piles up for it; when it is too far behind it
//! is told to take a snapshot.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::{Batch, Error, tree::Tree};

/// How many batches are kept for watchers that fall behind.
pub(crate) const HISTORY: usize = 10_000;

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

fn closed() -> Error {
    Error::Unavailable { store: "the store".to_owned(), reason: "it was closed".to_owned() }
}
