//! One secret that is followed, and the task that asks one manager for all of its secrets.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::{
    sync::{Notify, OnceCell, watch},
    time::Instant,
};

use super::{
    Heard, Inner, Manager, Times,
    ask::{Asker, Failure, Secret},
    lock,
    manager::Reading,
};

/// Between two attempts at what can't be had, at first.
const RETRY: Duration = Duration::from_secs(1);
/// Secrets asked of one manager at the same time.
const AT_ONCE: usize = 16;
/// How long a task sleeps that has nothing to do, at most and at least; it is woken before.
const IDLE: Duration = Duration::from_secs(60);
const LEAST: Duration = Duration::from_millis(100);

/// What a reference stands for, as far as that is known.
pub struct Followed {
    /// As it is written: `$secret://vault/1/jack/key`.
    pub reference: Box<str>,
    /// `vault/1`.
    pub manager: Box<str>,
    pub(super) identity: Box<str>,
    readings: Vec<Reading>,
    state: Mutex<State>,
    /// Whether it was answered or refused once.
    settled: watch::Sender<bool>,
    was_waited_for: AtomicBool,
}

struct State {
    value: Option<Value>,
    error: Option<String>,
    next: Instant,
    pause: Duration,
}

impl Followed {
    pub(super) fn new(
        reference: &str,
        manager: &Manager,
        readings: Vec<Reading>,
        value: Option<Value>,
    ) -> Self {
        Self {
            reference: reference.into(),
            manager: manager.id.clone(),
            identity: manager.identity.clone(),
            readings,
            state: Mutex::new(State { value, error: None, next: Instant::now(), pause: RETRY }),
            settled: watch::Sender::new(false),
            was_waited_for: AtomicBool::new(false),
        }
    }

    /// The last value. An error: why there has never been one; an empty one where nobody has answered yet.
    pub fn value(&self) -> Result<Value, String> {
        let state = lock(&self.state);
        state.value.clone().ok_or_else(|| state.error.clone().unwrap_or_default())
    }

    pub(super) fn is_of(&self, manager: &Manager) -> bool {
        self.identity == manager.identity
    }

    /// Whether somebody should wait for its first answer; true once.
    pub(super) fn is_worth_waiting(&self) -> bool {
        lock(&self.state).value.is_none()
            && !*self.settled.borrow()
            && !self.was_waited_for.swap(true, Ordering::Relaxed)
    }

    pub(super) async fn settled(&self) {
        // The sender is here as long as we are.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// It is asked for at once.
    pub(super) fn hurry(&self) {
        lock(&self.state).next = Instant::now();
    }

    fn next(&self) -> Instant {
        lock(&self.state).next
    }

    fn failing(&self) -> Option<String> {
        lock(&self.state).error.as_ref().map(|error| format!("{}: {error}", self.reference))
    }

    /// Whether that changes what resources are made of.
    pub(super) fn settle(&self, answer: Result<Value, String>, times: Times) -> bool {
        let mut state = lock(&self.state);
        match answer {
            Ok(value) => {
                if state.error.take().is_some() {
                    tracing::info!(secret = %self.reference, "a secret can be had again");
                }
                (state.next, state.pause) = (after(times.ttl), RETRY);
                let changes = state.value.as_ref() != Some(&value);
                state.value = Some(value);
                changes
            }
            Err(error) => {
                let (kept, new) = (state.value.is_some(), state.error.as_ref() != Some(&error));
                if new {
                    tracing::warn!(secret = %self.reference, error, kept, "a secret can't be had");
                }
                state.error = Some(error);
                state.next = after(state.pause.min(times.neg_ttl));
                state.pause = (state.pause * 2).min(times.neg_ttl.max(RETRY));
                !kept && new
            }
        }
    }

    /// Ends the wait for its first answer.
    pub(super) fn has_settled(&self) {
        self.settled.send_replace(true);
    }
}

/// Not for all at the same time.
fn after(pause: Duration) -> Instant {
    Instant::now() + pause.mul_f64(rand::random_range(0.9..1.0))
}

/// Where one manager's task finds what it is to do.
pub(super) struct Desk {
    pub id: Box<str>,
    manager: ArcSwap<Manager>,
    last_answer: Mutex<Option<SystemTime>>,
    woken: Notify,
}

impl Desk {
    pub fn new(manager: &Arc<Manager>) -> Self {
        Self {
            id: manager.id.clone(),
            manager: ArcSwap::new(Arc::clone(manager)),
            last_answer: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Asks this manager from now on; whether it is another.
    pub fn serve(&self, manager: &Arc<Manager>) -> bool {
        let before = self.manager.load();
        if Arc::ptr_eq(&before, manager) {
            return false;
        }
        let is_new = **before != **manager;
        self.manager.store(Arc::clone(manager));
        is_new
    }

    pub fn wake(&self) {
        self.woken.notify_one();
    }

    pub fn heard(&self, all: &[Arc<Followed>]) -> Heard {
        let own = || all.iter().filter(|followed| followed.manager == self.id);
        let failing: Vec<String> = own().filter_map(|followed| followed.failing()).collect();
        Heard {
            manager: self.id.clone(),
            followed: own().count(),
            failing: failing.len(),
            unresolved: own().filter(|followed| followed.value().is_err()).count(),
            last_answer: *lock(&self.last_answer),
            last_error: failing.into_iter().min(),
        }
    }
}

/// Asks one manager for whatever is due, for as long as there is somebody to tell.
pub(super) async fn run(secrets: Weak<Inner>, desk: Arc<Desk>) {
    let Some(mut configs) = secrets.upgrade().map(|secrets| secrets.config.subscribe()) else { return };
    let mut asker: Option<Arc<Asker>> = None;
    let mut serves: Option<Arc<Manager>> = None;
    loop {
        let Some(inner) = secrets.upgrade() else { return };
        let config = configs.borrow().clone();
        let manager = desk.manager.load_full();
        if configs.has_changed().unwrap_or(true) || serves.as_ref().is_none_or(|before| **before != *manager)
        {
            configs.mark_unchanged();
            (asker, serves) = (None, None);
        }
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = inner
            .of(&desk.id)
            .into_iter()
            .filter(|one| one.is_of(&manager))
            .partition(|one| one.next() <= now);
        let (Some(config), false) = (config, due.is_empty()) else {
            let next = later.iter().map(|one| one.next()).min().unwrap_or(now + IDLE);
            // What is due soon after another is asked for with it.
            let next = next.clamp(now + LEAST, now + IDLE);
            drop((inner, due, later));
            tokio::select! {
                () = desk.woken.notified() => {}
                () = tokio::time::sleep_until(next) => {}
                gone = configs.changed() => {
                    if gone.is_err() {
                        return;
                    }
                    configs.mark_changed();
                }
            }
            continue;
        };
        if asker.is_none() {
            match Asker::new(Arc::clone(&manager), &config.roots) {
                Ok(new) => (asker, serves) = (Some(Arc::new(new)), Some(manager)),
                Err(error) => {
                    due.iter().for_each(|one| inner.settle(one, Err(error.clone()), config.times));
                    continue;
                }
            }
        }
        let Some(asker) = &asker else { continue };
        let round = Round { asker, desk: &desk, names: Mutex::default(), unheard: OnceLock::new() };
        stream::iter(&due)
            .for_each_concurrent(AT_ONCE, |one| async {
                inner.settle(one, round.value(&one.readings).await, config.times);
            })
            .await;
    }
}

type Outcome = Result<Secret, Failure>;

/// One look at everything that is due. Each name is asked for once, and nothing any more once nobody answers.
struct Round<'a> {
    asker: &'a Asker,
    desk: &'a Desk,
    names: Mutex<HashMap<Box<str>, Arc<OnceCell<Outcome>>>>,
    unheard: OnceLock<String>,
}

impl Round<'_> {
    async fn value(&self, readings: &[Reading]) -> Result<Value, String> {
        let mut last = String::new();
        for reading in readings {
            let cell = Arc::clone(lock(&self.names).entry(reading.name.clone()).or_default());
            match cell.get_or_init(|| self.ask(&reading.name)).await {
                Ok(secret) => return secret.member(reading.key.as_deref()),
                Err(Failure::Missing) => last = Failure::Missing.to_string(),
                Err(other) => return Err(other.to_string()),
            }
        }
        Err(last)
    }

    async fn ask(&self, name: &str) -> Outcome {
        if let Some(why) = self.unheard.get() {
            return Err(Failure::Unheard(why.clone()));
        }
        let answer = self.asker.read(name).await;
        match &answer {
            Err(Failure::Unheard(why)) => {
                let _ = self.unheard.set(why.clone());
            }
            Err(Failure::Refused(_)) => {}
            Ok(_) | Err(Failure::Missing) => *lock(&self.desk.last_answer) = Some(SystemTime::now()),
        }
        answer
    }
}
