//! A gateway group: a store, and what keeps writes to it consistent.
//!
//! The rule to know: a write that looks only at keys it names takes the lock shared, since its commit expects what
//! it saw; a write that looks through a whole kind (is anything still using this, has someone this key) takes it
//! alone, because a commit can't expect that nothing was added.

use std::sync::{Arc, Mutex};

use model::{Key, Kind, Resource};
use store::{Commit, Store, Write};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    answer::{Answer, Outcome},
    configs::Whole,
    unique::AuthKeys,
};

/// How often a commit is tried again when someone else was faster.
const ATTEMPTS: usize = 16;

pub struct Group {
    pub store: Arc<dyn Store>,
    pub auth_keys: AuthKeys,
    pub whole: Mutex<Whole>,
    writes: RwLock<()>,
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
        Self { store, auth_keys: AuthKeys::default(), whole: Mutex::default(), writes: RwLock::default() }
    }

    /// The lock for a write, held until its commit is done.
    pub async fn lock(&self, alone: bool) -> Lock<'_> {
        if alone { Lock::Alone(self.writes.write().await) } else { Lock::Shared(self.writes.read().await) }
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

/// A put with its time to live.
pub fn put(key: Key, value: String, ttl: Option<u64>) -> Write {
    Write::Put { key, value: value.into(), ttl }
}
