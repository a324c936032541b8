//! The answer to one question, as it was last given.

use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;

use super::{Endpoint, Query, lock};
use crate::upstream::Live;

/// What is followed, and who must be told when it changes.
pub struct Answer {
    pub query: Query,
    state: ArcSwap<State>,
    watchers: Mutex<Vec<Weak<Live>>>,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub endpoints: Arc<[Endpoint]>,
    /// False until there was an answer, or it was clear that there would be none.
    pub settled: bool,
}

impl State {
    pub fn settled(endpoints: Arc<[Endpoint]>) -> Self {
        Self { endpoints, settled: true }
    }
}

impl Answer {
    pub fn new(query: Query, state: State) -> Self {
        Self { query, state: ArcSwap::from_pointee(state), watchers: Mutex::default() }
    }

    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Tells these nodes of every change.
    pub fn tell(&self, live: &Arc<Live>) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(live));
    }

    /// There is a new answer. Whether it differs from the one before.
    pub fn publish(&self, endpoints: Arc<[Endpoint]>) -> bool {
        let state = State::settled(endpoints);
        if *self.state.load_full() == state {
            return false;
        }
        let query = &self.query;
        tracing::debug!(kind = query.kind.name(), name = &*query.name, endpoints = ?state.endpoints, "new answer");
        self.set(state);
        true
    }

    /// Nobody can be asked now: what there is stays, and nobody waits for more.
    pub fn give_up(&self) {
        let state = self.state.load_full();
        if !state.settled {
            self.set(State::settled(Arc::clone(&state.endpoints)));
        }
    }

    fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        // Out of the lock: they may follow something new meanwhile.
        let watchers = lock(&self.watchers).clone();
        for live in watchers.iter().filter_map(Weak::upgrade) {
            live.rebuild();
        }
    }
}
