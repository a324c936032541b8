//! Secrets that the configuration does not hold but refers to.
//!
//! The rule to know: nothing is asked while a request waits. A compile finds references and follows them; one task a
//! manager asks for them, again and again; a new value compiles those resources anew that refer to it. The last value
//! stays for as long as its manager can't be heard or does not give it any more, also over a restart.
//!
//! ```text
//! compile ──follow──▶ Secrets ──▶ Followed ◀──settle── a manager's task (Vault, AWS, Google)
//!    ▲                   │            ◀──at first── what was kept on disk
//!    └──────news─────────┘
//! ```

mod ask;
mod desk;
mod follow;
mod kept;
pub mod manager;
pub mod reference;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use model::{Key, Kind, secrets::Keyring};
use rustc_hash::FxHashMap;
use rustls::RootCertStore;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};

pub use follow::Followed;
pub use manager::Manager;

use desk::Desk;
use follow::Outcome;
use kept::Kept;

/// `apisix.lru.secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How old a value becomes before it is asked for again. Default: 300 s.
    pub ttl: Duration,
    /// The longest pause between two attempts at what can't be had; the first is a second. Default: 60 s.
    pub neg_ttl: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(300), neg_ttl: Duration::from_secs(60) }
    }
}

/// What managers are asked by.
#[derive(Clone)]
pub struct Config {
    pub times: Times,
    /// Whom managers' certificates must come from.
    pub roots: Arc<RootCertStore>,
    /// Encrypts what is kept on disk; without keys it lies there as it is.
    pub keyring: Arc<Keyring>,
}

/// Everything that is followed. Outlives plans; the default one asks nobody.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    runtime: Option<Handle>,
    is_blind: bool,
    config: watch::Sender<Option<Config>>,
    followed: Mutex<FxHashMap<Box<str>, Weak<Followed>>>,
    desks: Mutex<BTreeMap<Box<str>, Running>>,
    /// What has changed since the last compile: the keys under which resources refer to it.
    news: Mutex<BTreeSet<Key>>,
    woken: Notify,
    kept: Kept,
}

/// A manager that is asked.
struct Running {
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a manager fares.
#[derive(Clone, Debug)]
pub struct Heard {
    /// `vault/1`.
    pub manager: Box<str>,
    /// How many references to it are followed.
    pub followed: usize,
    /// Those whose last attempt failed.
    pub failing: usize,
    /// Those without any value.
    pub unresolved: usize,
    pub last_answer: Option<SystemTime>,
    pub last_error: Option<String>,
}

impl Heard {
    /// Of a manager that was never asked.
    pub fn nothing_of(manager: &str) -> Self {
        Self {
            manager: manager.into(),
            followed: 0,
            failing: 0,
            unresolved: 0,
            last_answer: None,
            last_error: None,
        }
    }
}

/// The key under which resources refer to a secret. No resource has it: ids have no slashes.
pub(crate) fn key(reference: &str) -> Key {
    Key::new(Kind::Secrets, reference.strip_prefix(reference::KEPT).unwrap_or(reference))
}

impl Secrets {
    /// Asks by tasks of `runtime`, once it is configured; keeps what was answered in `file`.
    pub fn new(runtime: &Handle, file: PathBuf) -> Self {
        let kept = Kept::new(file);
        let inner = Arc::new(Inner { runtime: Some(runtime.clone()), kept, ..Inner::default() });
        runtime.spawn(kept::keep(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Leaves references as they stand, for plans that nobody is served by: a backup is proved where its secrets are
    /// not known.
    pub fn blind() -> Self {
        Self(Arc::new(Inner { is_blind: true, ..Inner::default() }))
    }

    pub fn is_blind(&self) -> bool {
        self.0.is_blind
    }

    /// Asks like this from now on. The first time, what was kept on disk is read.
    pub fn configure(&self, config: Config) {
        self.0.kept.read(&config.keyring);
        self.0.config.send_replace(Some(config));
        // Another keyring locks it anew.
        self.0.kept.wake();
    }

    /// Follows what is referred to, until nobody holds it any more. An error is about the reference itself.
    pub fn follow(
        &self,
        reference: &str,
        path: &str,
        manager: &Arc<Manager>,
    ) -> Result<Arc<Followed>, String> {
        let inner = &self.0;
        let mut all = lock(&inner.followed);
        let known = all.get(reference).and_then(Weak::upgrade);
        let followed = match known.filter(|known| known.is_of(manager)) {
            Some(known) => known,
            None => {
                let readings = manager.readings(path)?;
                let value = inner.kept.find(reference, &manager.identity);
                let new = Arc::new(Followed::new(reference, manager, readings, value));
                all.insert(reference.into(), Arc::downgrade(&new));
                new
            }
        };
        drop(all);
        inner.ask(manager);
        Ok(followed)
    }

    /// Waits for the first answer, or failure, of what has just been followed; for each only once. False where there
    /// is nothing to wait for and no news. Not on a thread of the runtime.
    pub fn wait(&self, limit: Duration) -> bool {
        let Some(runtime) = &self.0.runtime else { return false };
        let mut waiting = self.0.all();
        waiting.retain(|followed| followed.is_worth_waiting());
        if waiting.is_empty() {
            return !lock(&self.0.news).is_empty();
        }
        let all = async {
            for followed in &waiting {
                followed.settled().await;
            }
        };
        let _ = runtime.block_on(async { tokio::time::timeout(limit, all).await });
        true
    }

    /// Waits until something has changed.
    pub async fn changed(&self) {
        self.0.woken.notified().await;
    }

    /// What has changed since this was last asked.
    pub fn take_news(&self) -> Vec<Key> {
        std::mem::take(&mut *lock(&self.0.news)).into_iter().collect()
    }

    /// How each manager fares that something refers to.
    pub fn heard(&self) -> Vec<Heard> {
        let desks: Vec<_> = lock(&self.0.desks).values().map(|running| Arc::clone(&running.desk)).collect();
        let all = self.0.all();
        desks.iter().map(|desk| desk.heard(&all)).collect()
    }

    /// Forgets what nobody follows any more.
    pub fn sweep(&self) {
        lock(&self.0.followed).retain(|_, followed| followed.strong_count() > 0);
        let all = self.0.all();
        lock(&self.0.desks).retain(|id, _| all.iter().any(|followed| *followed.manager == **id));
    }
}

impl Inner {
    /// Has a task ask this manager.
    fn ask(self: &Arc<Self>, manager: &Arc<Manager>) {
        let Some(runtime) = &self.runtime else { return };
        let mut desks = lock(&self.desks);
        if let Some(running) = desks.get(&manager.id) {
            let anew = running.desk.serve(manager);
            let desk = Arc::clone(&running.desk);
            drop(desks);
            if anew {
                // Who may ask otherwise may be told otherwise.
                self.of(&desk.id).iter().for_each(|followed| followed.hurry());
            }
            desk.wake();
            return;
        }
        let desk = Arc::new(Desk::new(manager));
        let task = runtime.spawn(desk::run(Arc::downgrade(self), Arc::clone(&desk)));
        desks.insert(manager.id.clone(), Running { desk, task });
    }

    fn all(&self) -> Vec<Arc<Followed>> {
        lock(&self.followed).values().filter_map(Weak::upgrade).collect()
    }

    fn of(&self, manager: &str) -> Vec<Arc<Followed>> {
        let mut all = self.all();
        all.retain(|followed| *followed.manager == *manager);
        all
    }

    /// Takes an answer over, and has those who refer to it compiled where that matters.
    fn settle(&self, followed: &Followed, outcome: Outcome, times: Times) {
        if followed.settle(outcome, times) {
            if let Ok(value) = followed.value() {
                self.kept.put(followed, value);
            }
            lock(&self.news).insert(key(&followed.reference));
            self.woken.notify_one();
        }
        // Last: whoever waited finds the news.
        followed.has_settled();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
