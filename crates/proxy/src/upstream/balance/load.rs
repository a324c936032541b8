//! What each node of an upstream has to do: requests under way, and how long its answers took of late.
//!
//! The rule to know: this outlives plans and sets of nodes, so that a change of configuration forgets no request that
//! is still under way.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

/// The nodes of one upstream, by `host:port`.
#[derive(Default)]
pub(super) struct Loads(Mutex<FxHashMap<Arc<str>, Arc<Load>>>);

impl Loads {
    /// The work of each of these nodes; that of others is forgotten unless somebody still adds to it.
    pub fn of<'a>(&self, labels: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<Load>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_these = labels.map(|label| Arc::clone(all.entry(Arc::clone(label)).or_default())).collect();
        all.retain(|_, load| Arc::strong_count(load) > 1);
        of_these
    }
}

/// What one node has to do.
#[derive(Default)]
pub(super) struct Load {
    under_way: AtomicU32,
    answers: Average,
}

impl Load {
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// How long its answers took, the less the longer ago.
    pub fn score(&self) -> f32 {
        self.answers.at(Instant::now(), 0.0)
    }
}

/// A request that counts as work of its node until this is dropped.
pub struct Held(Arc<Load>);

impl Held {
    pub(super) fn new(load: &Arc<Load>) -> Self {
        load.under_way.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }

    /// The node has answered.
    pub fn answered(&self, took: Duration) {
        self.0.answers.add(Instant::now(), took.as_secs_f32());
    }

    /// The node has not answered.
    pub fn failed(&self, took: Duration) {
        self.0.answers.raise(Instant::now(), (took + PENALTY).as_secs_f32());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// An average that fades: one word, the seconds as a float and the millisecond of the last change.
#[derive(Default)]
struct Average(AtomicU64);

/// After so many seconds a value weighs a little over a third.
const DECAY: f32 = 10.0;
/// After so many milliseconds it is forgotten.
const MEMORY: u32 = 60_000;
/// What an attempt that came to nothing took longer than it did. APISIX remembers no failures, and so sends most
/// requests to a node that is broken.
const PENALTY: Duration = Duration::from_secs(5);

impl Average {
    fn at(&self, now: Instant, value: f32) -> f32 {
        fade(self.0.load(Relaxed), millis(now), value)
    }

    fn add(&self, now: Instant, value: f32) {
        let now = millis(now);
        let next = |word| Some(u64::from(fade(word, now, value).to_bits()) << 32 | u64::from(now));
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// At least `value`, whatever came before and how short ago.
    fn raise(&self, now: Instant, value: f32) {
        let now = millis(now);
        let next = |word| Some(u64::from(fade(word, now, 0.0).max(value).to_bits()) << 32 | u64::from(now));
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }
}

/// The average of before and `value`, which weighs the more the longer nothing came.
fn fade(word: u64, now: u32, value: f32) -> f32 {
    let (average, then) = (f32::from_bits((word >> 32) as u32), word as u32);
    let since = now.wrapping_sub(then);
    // What another thread wrote a moment later has not aged.
    let since = if since > u32::MAX / 2 { 0 } else { since };
    if word == 0 || since > MEMORY {
        return value;
    }
    let weight = (-Duration::from_millis(since.into()).as_secs_f32() / DECAY).exp();
    average * weight + value * (1.0 - weight)
}

/// Milliseconds of this process, from 1; they begin anew after seven weeks.
fn millis(now: Instant) -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    (now.saturating_duration_since(*START).as_millis() as u32).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_fades_as_apisix_says() {
        let (average, start) = (Average::default(), Instant::now());
        let close = |a: f32, b: f32| (a - b).abs() < 0.01;
        assert!(close(average.at(start, 0.0), 0.0));
        average.add(start, 2.0);
        assert!(close(average.at(start, 0.0), 2.0));
        let later = start + Duration::from_secs(10);
        assert!(close(average.at(later, 0.0), 2.0 / std::f32::consts::E));
        average.add(later, 1.0);
        assert!(close(average.at(later, 0.0), 2.0 / std::f32::consts::E + 1.0 - 1.0 / std::f32::consts::E));
        assert!(close(average.at(later + Duration::from_secs(61), 0.0), 0.0));
    }

    #[test]
    fn a_failure_counts_at_once_and_fades_like_all_else() {
        let (average, start) = (Average::default(), Instant::now());
        average.add(start, 0.1);
        average.raise(start, 5.0);
        average.raise(start, 2.0);
        average.add(start, 0.1);
        assert!((average.at(start, 0.0) - 5.0).abs() < 0.01);
        assert!((average.at(start + Duration::from_secs(10), 0.0) - 5.0 / std::f32::consts::E).abs() < 0.01);
        assert!(average.at(start + Duration::from_secs(61), 0.0) == 0.0);
    }

    #[test]
    fn a_request_counts_until_it_is_dropped_whatever_becomes_of_the_set() {
        let loads = Loads::default();
        let label: Arc<str> = "a:1".into();
        let of = |label: &Arc<str>| loads.of(std::iter::once(label)).remove(0);
        let held = Held::new(&of(&label));
        of(&"b:1".into());
        assert_eq!(of(&label).under_way(), 1);
        drop(held);
        assert_eq!(of(&label).under_way(), 0);
        of(&"c:1".into());
        assert_eq!(loads.0.lock().unwrap().len(), 1, "what nobody holds is forgotten");
    }
}
