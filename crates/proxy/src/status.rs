//! What the process says of itself: connections, requests, and whether it is ready.
//!
//! The rule to know: every worker writes counters of its own, so that counting needs no locked instruction; readers
//! add them up.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::metrics::Writer;

/// The state of a data plane's engine.
#[derive(Default)]
pub struct Status {
    workers: Mutex<Vec<Arc<Counters>>>,
    /// How many workers there should be.
    expected: AtomicUsize,
    /// Whether a verified configuration is being served.
    configured: AtomicBool,
    /// Whether clients are let in.
    open: AtomicBool,
}

/// Connections and requests, added up over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accepted: u64,
    pub requests: u64,
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

impl Status {
    /// Says that a verified configuration is in force.
    pub fn set_configured(&self) {
        self.configured.store(true, Relaxed);
    }

    /// Says that clients are let in.
    pub(crate) fn set_open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Whether clients are let in.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Whether clients may be sent here; if not, why. APISIX's `/status/ready`.
    pub fn ready(&self) -> Result<(), String> {
        let expected = self.expected.load(Relaxed);
        let started = self.workers().iter().filter(|worker| worker.running.load(Relaxed)).count();
        if started < expected || expected == 0 {
            return Err(format!("worker count: {expected} but status report count: {started}"));
        }
        if !self.configured.load(Relaxed) {
            return Err("worker id: 0 has not received configuration".to_owned());
        }
        Ok(())
    }

    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for worker in self.workers().iter() {
            let state = |state: State| worker.states[state as usize].load(Relaxed);
            sum.accepted += worker.accepted.load(Relaxed);
            sum.requests += worker.requests.load(Relaxed);
            sum.reading += state(State::Reading);
            sum.writing += state(State::Writing);
            sum.waiting += state(State::Waiting);
        }
        sum.active = sum.reading + sum.writing + sum.waiting;
        sum
    }

    /// APISIX's gauges of connections and requests.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn write_metrics(&self, writer: &mut Writer) {
        let totals = self.totals();
        let states = [
            ("accepted", totals.accepted),
            ("active", totals.active),
            ("handled", totals.accepted),
            ("reading", totals.reading),
            ("waiting", totals.waiting),
            ("writing", totals.writing),
        ];
        let labels = states.map(|(state, _)| [("state", state)]);
        let values: Vec<_> =
            labels.iter().zip(states).map(|(label, (_, value))| (&label[..], value as f64)).collect();
        writer.gauges("nginx_http_current_connections", "Number of HTTP connections", &values);
        writer.gauges(
            "http_requests_total",
            "The total number of client requests since APISIX started",
            &[(&[], totals.requests as f64)],
        );
    }

    /// So many workers are on their way.
    pub(crate) fn expect(&self, workers: usize) {
        self.expected.store(workers, Relaxed);
    }

    /// The counters of a new worker. They stay when it goes: totals never fall.
    pub(crate) fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.workers().push(Arc::clone(&counters));
        counters
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Counters>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of one worker, written by its thread alone.
#[derive(Default)]
pub struct Counters {
    running: AtomicBool,
    accepted: AtomicU64,
    requests: AtomicU64,
    /// Connections by [`State`].
    states: [AtomicU64; 3],
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A request's head is on its way in.
    Reading,
    /// A request is being served.
    Writing,
    /// Between requests.
    Waiting,
}

impl Counters {
    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Relaxed);
    }

    /// Counts a connection until it is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> Connection {
        add(&self.accepted, 1);
        add(&self.states[State::Reading as usize], 1);
        Connection { counters: Arc::clone(self), state: Cell::new(State::Reading) }
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> u64 {
        self.states.iter().map(|state| state.load(Relaxed)).sum()
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        add(&self.requests, 1);
    }
}

/// A connection that counts.
pub struct Connection {
    counters: Arc<Counters>,
    state: Cell<State>,
}

impl Connection {
    /// Moves it to another state.
    pub(crate) fn is(&self, state: State) {
        let before = self.state.replace(state);
        if before != state {
            add(&self.counters.states[before as usize], u64::MAX);
            add(&self.counters.states[state as usize], 1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        add(&self.counters.states[self.state.get() as usize], u64::MAX);
    }
}

/// Adds, with wrap-around, to a counter that one thread writes.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_where_they_are() {
        let status = Status::default();
        status.expect(1);
        assert!(status.ready().is_err_and(|e| e == "worker count: 1 but status report count: 0"));
        let counters = status.worker();
        counters.set_running(true);
        assert!(status.ready().is_err_and(|e| e.contains("has not received configuration")));
        status.set_configured();
        assert_eq!(status.ready(), Ok(()));

        let (one, two) = (counters.connection(), counters.connection());
        one.is(State::Writing);
        one.is(State::Writing);
        counters.request();
        let all = Totals { accepted: 2, requests: 1, active: 2, reading: 1, writing: 1, waiting: 0 };
        assert_eq!(status.totals(), all);
        drop(two);
        one.is(State::Waiting);
        assert_eq!(status.totals(), Totals { active: 1, reading: 0, writing: 0, waiting: 1, ..all });
    }
}
