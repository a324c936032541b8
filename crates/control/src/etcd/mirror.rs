//! The store's resources and recent history, in memory, for many data planes to read.
//!
//! The rule to know: readers pull. A watcher holds a revision and asks for what came after it, so that a slow data
//! plane costs nothing but its own delay.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::StreamExt as _;
use model::{Change, Snapshot};
use store::{Batch, Error, Store};
use tokio::sync::watch;

/// How many batches are kept for watchers that come back. A data plane that missed more reads everything again.
const HISTORY: usize = 10_000;
/// How many past snapshots are kept for reads pinned to a revision (the later pages of a paged read).
const PAST: usize = 1_000;
/// A watcher gets batches of about so many changes at once, or so many bytes of values: it copies them.
const CHANGES_AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 1024 * 1024;

/// Follows a store.
pub struct Mirror {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// None until the store was read for the first time.
    current: Option<Snapshot>,
    past: VecDeque<Snapshot>,
    history: VecDeque<Arc<Batch>>,
    /// Watching from below this revision is not possible any more.
    oldest: u64,
    /// Grows when the store's history is replaced by another one: its revisions then mean something else.
    lineage: u64,
    last_error: Option<String>,
}

impl Mirror {
    /// Begins to follow `store`. The task ends when the mirror is dropped.
    pub fn start(store: Arc<dyn Store>) -> Arc<Self> {
        let mirror = Arc::new(Self::unread());
        tokio::spawn(follow(Arc::downgrade(&mirror), store));
        mirror
    }

    pub(super) fn unread() -> Self {
        Self { state: RwLock::default(), revision: watch::Sender::new(0) }
    }

    /// Everything, at the newest revision seen.
    pub fn view(&self) -> Result<Snapshot, Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.current.clone().ok_or_else(|| Error::Unavailable {
            store: "the store".into(),
            reason: state.last_error.clone().unwrap_or_else(|| "it has not been read yet".into()),
        })
    }

    /// Everything, at `revision`.
    pub fn at(&self, revision: u64) -> Result<Snapshot, Error> {
        let current = self.view()?;
        if revision >= current.revision {
            return Ok(current);
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let after = state.past.partition_point(|snapshot| snapshot.revision <= revision);
        match after.checked_sub(1).and_then(|index| state.past.get(index)) {
            Some(snapshot) => Ok(snapshot.clone()),
            None => Err(Error::Compacted { asked: revision, oldest: state.oldest }),
        }
    }

    /// Which history revisions belong to, for [`after`](Self::after).
    pub fn lineage(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).lineage
    }

    /// The batches after `revision` of a lineage, as many as are good to send at once.
    pub fn after(&self, revision: u64, lineage: u64) -> Result<Vec<Arc<Batch>>, Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if revision < state.oldest || lineage != state.lineage {
            return Err(Error::Compacted { asked: revision, oldest: state.oldest });
        }
        let from = state.history.partition_point(|batch| batch.revision <= revision);
        let (mut changes, mut bytes) = (0, 0);
        Ok(state
            .history
            .range(from..)
            .take_while(|batch| {
                let fits = changes < CHANGES_AT_ONCE && bytes < BYTES_AT_ONCE;
                changes += batch.changes.len();
                bytes += batch.changes.iter().map(size).sum::<usize>();
                fits
            })
            .cloned()
            .collect())
    }

    /// Tells of every new revision.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until a write of ours is visible here.
    pub async fn reached(&self, revision: u64) {
        let mut revisions = self.revision.subscribe();
        let seen = revisions.wait_for(|seen| *seen >= revision);
        // A store that stops following answers its readers by itself; a writer need not wait for that.
        let _ = tokio::time::timeout(Duration::from_secs(5), seen).await;
    }

    /// Why the store can't be followed just now.
    pub fn last_error(&self) -> Option<String> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).last_error.clone()
    }

    fn replace(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.last_error = None;
            let other = |old: &Snapshot| old.store_id != snapshot.store_id || revision < old.revision;
            if state.current.as_ref().is_some_and(other) {
                state.lineage += 1;
            }
            // Batches between the two snapshots are unknown: watchers from before read everything again.
            if state.current.as_ref().is_none_or(|old| old.revision != revision) {
                state.oldest = revision;
                state.history.clear();
                state.past.clear();
            }
            state.current = Some(snapshot);
        }
        self.revision.send_replace(revision);
    }

    fn apply(&self, batch: Batch) {
        let revision = batch.revision;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let Some(old) = state.current.clone() else { return };
            let mut new = old.clone();
            for change in &batch.changes {
                match change {
                    Change::Put(resource) => new.put_shared(resource.clone()),
                    Change::Delete(key) => drop(new.delete(key)),
                }
            }
            new.revision = revision;
            state.current = Some(new);
            state.past.push_back(old);
            state.history.push_back(Arc::new(batch));
            if state.past.len() > PAST {
                state.past.pop_front();
            }
            if state.history.len() > HISTORY
                && let Some(dropped) = state.history.pop_front()
            {
                state.oldest = dropped.revision;
            }
        }
        self.revision.send_replace(revision);
    }

    fn failed(&self, error: &Error) {
        let text = error.to_string();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "the store can't be followed; data planes keep what they have");
            state.last_error = Some(text);
        }
    }
}

/// Bytes of a change that are copied to send it.
fn size(change: &Change) -> usize {
    match change {
        Change::Put(resource) => resource.value.len(),
        Change::Delete(_) => 0,
    }
}

/// Between attempts to follow a store that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

async fn follow(mirror: std::sync::Weak<Mirror>, store: Arc<dyn Store>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = std::time::Instant::now();
        match follow_once(&mirror, store.as_ref()).await {
            Ok(()) => return,
            Err(error) => {
                let Some(mirror) = mirror.upgrade() else { return };
                if !matches!(error, Error::Compacted { .. }) {
                    mirror.failed(&error);
                }
            }
        }
        if began.elapsed() > LONGEST_PAUSE * 2 {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows until the mirror is gone (`Ok`) or the store fails.
async fn follow_once(mirror: &std::sync::Weak<Mirror>, store: &dyn Store) -> Result<(), Error> {
    let resume = match mirror.upgrade() {
        Some(mirror) => mirror.view().ok().map(|snapshot| snapshot.revision),
        None => return Ok(()),
    };
    let mut batches = match resume {
        Some(revision) => match store.watch(revision).await {
            Err(Error::Compacted { .. }) => from_snapshot(mirror, store).await?,
            other => other?,
        },
        None => from_snapshot(mirror, store).await?,
    };
    if let Some(mirror) = mirror.upgrade() {
        mirror.state.write().unwrap_or_else(PoisonError::into_inner).last_error = None;
    }
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), batches.next()).await;
        let Some(mirror) = mirror.upgrade() else { return Ok(()) };
        match next {
            Err(_still_quiet) => {}
            Ok(Some(batch)) => match batch {
                Err(Error::Compacted { .. }) => {
                    let snapshot = store.snapshot().await?;
                    batches = store.watch(snapshot.revision).await?;
                    mirror.replace(snapshot);
                }
                other => mirror.apply(other?),
            },
            Ok(None) => {
                return Err(Error::Unavailable {
                    store: "the store".into(),
                    reason: "its watch ended".into(),
                });
            }
        }
    }
}

type Batches = futures_util::stream::BoxStream<'static, Result<Batch, Error>>;

async fn from_snapshot(mirror: &std::sync::Weak<Mirror>, store: &dyn Store) -> Result<Batches, Error> {
    let snapshot = store.snapshot().await?;
    let batches = store.watch(snapshot.revision).await?;
    if let Some(mirror) = mirror.upgrade() {
        mirror.replace(snapshot);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use model::{Key, Kind};

    use super::*;

    #[test]
    fn watchers_of_a_history_that_was_replaced_read_everything_again() {
        let mirror = Mirror::unread();
        mirror.replace(Snapshot::new("a", 7));
        let lineage = mirror.lineage();
        let changes = vec![Change::Delete(Key::new(Kind::Routes, "1"))];
        mirror.apply(Batch { revision: 8, changes: changes.clone() });
        assert_eq!(mirror.after(7, lineage).unwrap().len(), 1);
        // A store that was restored: its next revisions are older than what watchers have seen.
        mirror.replace(Snapshot::new("a", 3));
        mirror.apply(Batch { revision: 9, changes });
        assert!(matches!(mirror.after(8, lineage), Err(Error::Compacted { oldest: 3, .. })));
        assert_eq!(mirror.after(3, mirror.lineage()).unwrap().len(), 1);
    }

    #[test]
    fn a_watcher_is_not_given_everything_at_once() {
        let mirror = Mirror::unread();
        mirror.replace(Snapshot::new("a", 1));
        let value = "x".repeat(BYTES_AT_ONCE / 2);
        for revision in 2..10 {
            let resource = model::Resource {
                key: Key::new(Kind::Routes, "1"),
                value: value.as_str().into(),
                created: 2,
                modified: revision,
            };
            mirror.apply(Batch { revision, changes: vec![Change::Put(Arc::new(resource))] });
        }
        assert_eq!(mirror.after(1, 0).unwrap().len(), 2);
    }
}
