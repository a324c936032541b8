//! One secret that is followed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{Manager, Times, lock, manager::Reading};

/// Between two attempts at what can't be had, at first.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// What a reference stands for, as far as that is known.
pub struct Followed {
    /// As it is written: `$secret://vault/1/jack/key`.
    pub reference: Box<str>,
    /// `vault/1`.
    pub manager: Box<str>,
    pub(super) identity: Box<str>,
    pub(super) readings: Vec<Reading>,
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

/// What came of an attempt.
pub(super) enum Outcome {
    Value(Value),
    /// The manager does not give it.
    Refused(String),
    /// Nobody answers; when there is use in asking again.
    Unheard(String, Instant),
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

    pub(super) fn next(&self) -> Instant {
        lock(&self.state).next
    }

    pub(super) fn failing(&self) -> Option<String> {
        lock(&self.state).error.as_ref().map(|error| format!("{}: {error}", self.reference))
    }

    /// Whether that changes what resources are made of.
    pub(super) fn settle(&self, outcome: Outcome, times: Times) -> bool {
        let mut state = lock(&self.state);
        let error = match outcome {
            Outcome::Value(value) => {
                if state.error.take().is_some() {
                    tracing::info!(secret = %self.reference, "a secret can be had again");
                }
                (state.next, state.pause) = (after(times.ttl), RETRY);
                let changes = state.value.as_ref() != Some(&value);
                state.value = Some(value);
                return changes;
            }
            Outcome::Refused(error) => {
                if state.error.as_ref() != Some(&error) {
                    let kept = state.value.is_some();
                    tracing::warn!(secret = %self.reference, error, kept, "a secret can't be had");
                }
                state.next = after(state.pause.min(times.neg_ttl));
                state.pause = (state.pause * 2).min(times.neg_ttl.max(RETRY));
                error
            }
            // Told once for all of the manager's.
            Outcome::Unheard(error, next) => {
                state.next = next;
                error
            }
        };
        let changes = state.value.is_none() && state.error.as_ref() != Some(&error);
        state.error = Some(error);
        changes
    }

    /// Ends the wait for its first answer.
    pub(super) fn has_settled(&self) {
        self.settled.send_replace(true);
    }
}

/// Not for all at the same time.
pub(super) fn after(pause: Duration) -> Instant {
    Instant::now() + pause.mul_f64(rand::random_range(0.9..1.0))
}
