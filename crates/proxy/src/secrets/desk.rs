//! The task that asks one manager for all of its secrets.
//!
//! The rule to know: a manager that can't be heard is asked again by one attempt after a pause, not by one for each of
//! its secrets; and no secret that is slow to come keeps the others from being asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{Notify, OnceCell},
    time::Instant,
};

use super::{
    Config, Followed, Heard, Inner, Manager, Times,
    ask::{Asker, Failure, Secret},
    follow::{Outcome, RETRY, after},
    lock,
    manager::Reading,
};

/// Secrets asked of one manager at the same time.
const AT_ONCE: usize = 16;
/// How long a task sleeps that has nothing to do, at most and at least; it is woken before.
const IDLE: Duration = Duration::from_secs(60);
const LEAST: Duration = Duration::from_millis(100);

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
    let mut line: Option<Line> = None;
    loop {
        let Some(inner) = secrets.upgrade() else { return };
        let config = configs.borrow().clone();
        let manager = desk.manager.load_full();
        if configs.has_changed().unwrap_or(true) || line.as_ref().is_none_or(|line| *line.manager != *manager)
        {
            configs.mark_unchanged();
            line = config.map(|config| Line::new(manager, &config));
        }
        let now = Instant::now();
        let mut own = inner.of(&desk.id);
        own.retain(|one| line.as_ref().is_some_and(|line| one.is_of(&line.manager)));
        own.sort_by_key(|one| one.next());
        let later = own.split_off(own.partition_point(|one| one.next() <= now));
        if let (Some(line), false) = (&mut line, own.is_empty()) {
            line.ask(&inner, &desk, &own).await;
            continue;
        }
        let next = later.first().map_or(now + IDLE, |one| one.next());
        drop((inner, own, later));
        tokio::select! {
            () = desk.woken.notified() => {}
            // What is due soon after another is asked for with it.
            () = tokio::time::sleep_until(next.clamp(now + LEAST, now + IDLE)) => {}
            gone = configs.changed() => {
                if gone.is_err() {
                    return;
                }
                configs.mark_changed();
            }
        }
    }
}

/// A manager as it is asked now.
struct Line {
    manager: Arc<Manager>,
    times: Times,
    asker: Result<Asker, String>,
    /// Why nobody answers, and when it is tried again.
    down: Option<(String, Instant)>,
    pause: Duration,
}

impl Line {
    fn new(manager: Arc<Manager>, config: &Config) -> Self {
        let asker = Asker::new(Arc::clone(&manager), &config.roots);
        Self { manager, times: config.times, asker, down: None, pause: RETRY }
    }

    /// Asks for all of these, first for what has been due longest.
    async fn ask(&mut self, inner: &Inner, desk: &Desk, due: &[Arc<Followed>]) {
        let times = self.times;
        let asker = match (&self.asker, &self.down) {
            (Err(error), _) => {
                return due.iter().for_each(|one| inner.settle(one, Outcome::Refused(error.clone()), times));
            }
            (Ok(_), Some((why, until))) if Instant::now() < *until => {
                let outcome = || Outcome::Unheard(why.clone(), *until);
                return due.iter().for_each(|one| inner.settle(one, outcome(), times));
            }
            (Ok(asker), _) => asker,
        };
        let until = after(self.pause.min(times.neg_ttl));
        let round = Round { asker, desk, until, names: Mutex::default(), unheard: OnceLock::new() };
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |one| async {
                inner.settle(one, round.outcome(&one.readings).await, times);
            })
            .await;
        let unheard = round.unheard.into_inner();
        match (&unheard, &self.down) {
            (Some(error), None) => {
                let manager = &*self.manager.id;
                tracing::warn!(manager, error, "a secret manager can't be heard; its last values stay");
            }
            (None, Some(_)) => tracing::info!(manager = &*self.manager.id, "a secret manager is heard again"),
            _ => {}
        }
        self.pause = if unheard.is_some() { (self.pause * 2).min(times.neg_ttl.max(RETRY)) } else { RETRY };
        self.down = unheard.map(|why| (why, until));
    }
}

type Answer = Result<Secret, Failure>;

/// One look at everything that is due. Each name is asked for once, and nothing any more once nobody answers.
struct Round<'a> {
    asker: &'a Asker,
    desk: &'a Desk,
    /// When it is asked again where nobody answers.
    until: Instant,
    names: Mutex<HashMap<Box<str>, Arc<OnceCell<Answer>>>>,
    unheard: OnceLock<String>,
}

impl Round<'_> {
    async fn outcome(&self, readings: &[Reading]) -> Outcome {
        for reading in readings {
            let cell = Arc::clone(lock(&self.names).entry(reading.name.clone()).or_default());
            if let (None, Some(why)) = (cell.get(), self.unheard.get()) {
                return Outcome::Unheard(why.clone(), self.until);
            }
            match cell.get_or_init(|| self.ask(&reading.name)).await {
                Ok(secret) => match secret.member(reading.key.as_deref()) {
                    Ok(value) => return Outcome::Value(value),
                    Err(error) => return Outcome::Refused(error),
                },
                Err(Failure::Missing) => {}
                Err(Failure::Refused(why)) => return Outcome::Refused(why.clone()),
                // Behind the others next time: it may be this one that keeps them waiting.
                Err(Failure::Unheard(why)) => return Outcome::Unheard(why.clone(), self.until + LEAST),
            }
        }
        Outcome::Refused(Failure::Missing.to_string())
    }

    async fn ask(&self, name: &str) -> Answer {
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
