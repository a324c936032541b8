//! A gateway group: a store, and what keeps writes to it consistent.
//!
//! The rule to know: a write that looks only at keys it names takes the lock shared, since its commit expects what
//! it saw; a write that looks through a whole kind (is anything still using this, has someone this key) takes it
//! alone, because a commit can't expect that nothing was added.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{Key, Kind, Resource};
use store::{Commit, Store, Write};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    answer::{Answer, Outcome},
    configs::Whole,
    unique::AuthKeys,
};

/// How often a commit is tried again when someone else was faster.
const ATTEMPTS: usize = 16;

/// How long a write waits for those before it.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Group {
    pub store: Arc<dyn Store>,
    pub auth_keys: AuthKeys,
    pub whole: Mutex<Whole>,
    writes: RwLock<()>,
    /// Changes of one resource have one of these in common.
    turns: [AsyncMutex<()>; 64],
    patience: Duration,
}

/// Held while a write is checked and committed.
#[must_use]
#[allow(dead_code, reason = "held, never looked into")]
pub enum Lock<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

impl Group {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            auth_keys: AuthKeys::default(),
            whole: Mutex::default(),
            writes: RwLock::default(),
            turns: std::array::from_fn(|_| AsyncMutex::default()),
            patience: PATIENCE,
        }
    }

    /// The lock for a write, held until its commit is done. Refused when those before it take too long: with the
    /// store gone, each of them waits for its own time to run out.
    pub async fn lock(&self, alone: bool) -> Result<Lock<'_>, Answer> {
        let lock = async {
            if alone {
                Lock::Alone(self.writes.write().await)
            } else {
                Lock::Shared(self.writes.read().await)
            }
        };
        tokio::time::timeout(self.patience, lock).await.map_err(|_| too_long())
    }

    /// Held while a resource is changed: who changes what another is changing waits, and does not try in vain.
    pub async fn turn(&self, key: &Key) -> Result<MutexGuard<'_, ()>, Answer> {
        let at = BuildHasherDefault::<DefaultHasher>::default().hash_one(key) % self.turns.len() as u64;
        let turn = self.turns.get(usize::try_from(at).unwrap_or_default());
        let Some(turn) = turn else { return Err(too_long()) };
        tokio::time::timeout(self.patience, turn.lock()).await.map_err(|_| too_long())
    }

    /// The resource, or 404.
    pub async fn get(&self, key: &Key) -> Result<Arc<Resource>, Answer> {
        self.store.get(key).await?.ok_or_else(Answer::no_such_key)
    }

    /// The credentials of one consumer.
    pub async fn credentials(&self, consumer: &str) -> Result<Vec<Arc<Resource>>, Answer> {
        let mut all = self.store.list(Kind::Credentials).await?;
        all.retain(|credential| credential.key.owner() == Some(consumer));
        Ok(all)
    }

    /// Commits what `draft` makes of the newest state, again and again until nobody interferes.
    pub async fn commit<F, D>(&self, draft: F) -> Outcome
    where
        F: Fn() -> D,
        D: Future<Output = Result<(Commit, Answer), Answer>>,
    {
        for _ in 0..ATTEMPTS {
            let (commit, answer) = draft().await?;
            match self.store.commit(commit).await {
                Ok(_) => return Ok(answer),
                Err(store::Error::Conflict { .. }) => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Answer::refusal(http::StatusCode::SERVICE_UNAVAILABLE, "value changed before overwritten"))
    }
}

fn too_long() -> Answer {
    let reason = "earlier writes still wait for the store; try again later";
    Answer::refusal(http::StatusCode::SERVICE_UNAVAILABLE, reason)
}

/// A put with its time to live.
pub fn put(key: Key, value: String, ttl: Option<u64>) -> Write {
    Write::Put { key, value: value.into(), ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_one_resource_take_turns() {
        let group =
            Group { patience: Duration::from_millis(20), ..Group::new(Arc::new(store::Memory::default())) };
        let (one, other) = (Key::new(Kind::Routes, "1"), Key::new(Kind::Routes, "2"));
        let turn = group.turn(&one).await.ok();
        assert!(turn.is_some() && group.turn(&other).await.is_ok());
        assert!(group.turn(&one).await.is_err());
        drop(turn);
        assert!(group.turn(&one).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_behind_a_stuck_write() {
        let group =
            Group { patience: Duration::from_millis(20), ..Group::new(Arc::new(store::Memory::default())) };
        let stuck = group.lock(true).await.ok();
        assert!(stuck.is_some());
        for alone in [true, false] {
            let refused = group.lock(alone).await.err().map(|answer| answer.status.as_u16());
            assert_eq!(refused, Some(503));
        }
        drop(stuck);
        let (one, another) = (group.lock(false).await, group.lock(false).await);
        assert!(one.is_ok() && another.is_ok(), "shared locks exclude each other");
    }
}
