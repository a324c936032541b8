//! Counters over time windows, shared by all workers and all plugins that count.
//!
//! The rule to know: memory is bounded. A key is 128 bits of a keyed hash, so that nobody chooses a key that meets
//! another, and a shard that is full forgets what was not asked for longest. A request holds one shard's lock for a
//! few dozen instructions.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{LazyLock, Mutex, PoisonError},
    time::Instant,
};

use ahash::RandomState;

/// Counters by key.
pub struct Counters {
    hashes: [RandomState; 2],
    shards: Box<[Mutex<Shard>]>,
}

/// How much may be used in which time.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    pub limit: u64,
    /// In milliseconds.
    pub window: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What is left; none: the request is one too many.
    pub remaining: Option<u64>,
    /// Until there is more, in hundredths of a second.
    pub reset: u64,
}

const SHARDS: usize = 64;
/// Counters of a shard that are kept twice over: half a million in all, some 50 MB at worst.
const FULL: usize = 8192;

impl Default for Counters {
    fn default() -> Self {
        Self {
            hashes: [RandomState::new(), RandomState::new()],
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Counters {
    /// Counts one request in a window that begins with the first.
    pub fn fixed(&self, scope: &str, key: &str, quota: Quota, now: u64) -> Taken {
        self.with(scope, key, now, |counter| {
            if counter.ends <= now {
                *counter = Counter { ends: now.saturating_add(quota.window), ..Counter::default() };
            }
            counter.used = counter.used.saturating_add(1);
            Taken { remaining: quota.limit.checked_sub(counter.used), reset: (counter.ends - now) / 10 }
        })
    }

    /// Counts one request against the window before, as far as that reaches into the last `quota.window`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, within what the limit and the window allow"
    )]
    pub fn sliding(&self, scope: &str, key: &str, quota: Quota, now: u64) -> Taken {
        let Quota { limit, window } = quota;
        let id = now / window;
        let left = window - now % window;
        self.with(scope, key, now, |counter| {
            counter.slide(id);
            counter.ends = (id + 2).saturating_mul(window);
            let rate = counter.before.min(limit) as f64 / window as f64;
            let before = rate * left as f64;
            if counter.used >= limit {
                return Taken { remaining: None, reset: left.div_ceil(10) };
            }
            if before + counter.used as f64 >= limit as f64 {
                let enough = left as f64 - (limit - counter.used) as f64 / rate;
                return Taken { remaining: None, reset: (enough.max(0.0) / 10.0).ceil() as u64 };
            }
            counter.used += 1;
            let remaining = (limit - counter.used) as f64 - before;
            Taken { remaining: Some(remaining.max(0.0) as u64), reset: left.div_ceil(10) }
        })
    }

    fn with<T>(&self, scope: &str, key: &str, now: u64, count: impl FnOnce(&mut Counter) -> T) -> T {
        let [low, high] = self.hashes.each_ref().map(|hash| hash.hash_one((scope, key)));
        let shard = &self.shards[high as usize % SHARDS];
        let key = u128::from(high) << 64 | u128::from(low);
        count(shard.lock().unwrap_or_else(PoisonError::into_inner).counter(key, now))
    }
}

/// Milliseconds on a clock that nobody turns back.
pub fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    /// When it may be forgotten.
    ends: u64,
    used: u64,
    /// In the window before; of sliding windows alone.
    before: u64,
    /// The number of the current sliding window.
    window: u64,
}

impl Counter {
    fn slide(&mut self, id: u64) {
        let before = match id.checked_sub(self.window) {
            Some(0) => return,
            Some(1) => self.used,
            _ => 0,
        };
        *self = Self { ends: self.ends, used: 0, before, window: id };
    }
}

type Table = HashMap<u128, Counter, BuildHasherDefault<Hashed>>;

/// Two generations: what is asked for moves to the young one, and when that is full, the old one goes.
#[derive(Default)]
struct Shard {
    young: Table,
    old: Table,
    /// How many young ones there may be before it is looked which are over.
    room: usize,
}

impl Shard {
    fn counter(&mut self, key: u128, now: u64) -> &mut Counter {
        if !self.young.contains_key(&key) {
            if self.young.len() >= self.room {
                self.make_room(now);
            }
            let known = self.old.remove(&key).unwrap_or_default();
            self.young.insert(key, known);
        }
        self.young.entry(key).or_default()
    }

    fn make_room(&mut self, now: u64) {
        /// Below this it is not worth looking.
        const FEW: usize = 64;
        self.young.retain(|_, counter| counter.ends > now);
        self.old.retain(|_, counter| counter.ends > now);
        if self.young.len() >= FULL {
            self.old = std::mem::take(&mut self.young);
        }
        self.room = (self.young.len() * 2).clamp(FEW, FULL);
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        // The low half: the high one chose the shard.
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    const QUOTA: Quota = Quota { limit: 2, window: 60_000 };

    fn taken(remaining: impl Into<Option<u64>>, reset: u64) -> Taken {
        Taken { remaining: remaining.into(), reset }
    }

    #[test]
    fn a_fixed_window_begins_with_its_first_request() {
        let counters = Counters::default();
        let ask = |key, now| counters.fixed("routes/1", key, QUOTA, now);
        assert_eq!(ask("a", 1000), taken(1, 6000));
        assert_eq!(ask("a", 2005), taken(0, 5899));
        assert_eq!(ask("a", 60_999), taken(None, 0));
        assert_eq!(ask("b", 60_999), taken(1, 6000));
        assert_eq!(counters.fixed("routes/2", "a", QUOTA, 60_999), taken(1, 6000));
        assert_eq!(ask("a", 61_000), taken(1, 6000));
        // Another limit counts what is used already.
        let more = Quota { limit: 10, ..QUOTA };
        assert_eq!(counters.fixed("routes/1", "a", more, 61_000), taken(8, 6000));
    }

    #[test]
    fn a_sliding_window_remembers_the_one_before() {
        let counters = Counters::default();
        let quota = Quota { limit: 10, window: 1000 };
        let ask = |now| counters.sliding("routes/1", "a", quota, now);
        for left in (0..10).rev() {
            assert_eq!(ask(900), taken(left, 10));
        }
        assert_eq!(ask(900), taken(None, 10));
        // Three quarters of the ten before still count: two and a half are left, and no third.
        assert_eq!(ask(1250), taken(1, 75));
        assert_eq!(ask(1250), taken(0, 75));
        assert_eq!(ask(1250), taken(0, 75));
        // At a rate of ten a second it takes 50 ms for half a request.
        assert_eq!(ask(1250), taken(None, 5));
        assert_eq!(ask(1301), taken(0, 70));
        // Nothing reaches over a whole window.
        assert_eq!(ask(3000), taken(9, 100));
    }

    #[test]
    fn a_rejected_request_uses_nothing_of_a_sliding_window() {
        let counters = Counters::default();
        let quota = Quota { limit: 1, window: 1000 };
        let ask = |now| counters.sliding("routes/1", "a", quota, now).remaining;
        assert_eq!([ask(0), ask(1), ask(2)], [Some(0), None, None]);
        assert_eq!([ask(1500), ask(2000)], [Some(0), None]);
    }

    #[test]
    fn memory_is_bounded_and_who_asks_is_remembered() {
        const BUSY: u128 = u128::MAX;
        let mut shard = Shard::default();
        for key in 0..FULL as u128 * 3 {
            shard.counter(key, 1).ends = u64::MAX;
            if key % 1000 == 0 {
                let busy = shard.counter(BUSY, 1);
                *busy = Counter { ends: u64::MAX, used: busy.used + 1, ..Counter::default() };
            }
            assert!(shard.young.len() <= FULL && shard.old.len() <= FULL);
        }
        assert!(shard.young.len() + shard.old.len() > FULL);
        assert_eq!(shard.counter(BUSY, 1).used, (FULL as u64 * 3).div_ceil(1000));
        assert_eq!(shard.counter(0, 1).ends, 0);
    }

    #[test]
    fn what_is_over_makes_room() {
        let mut shard = Shard::default();
        for key in 0..10_000 {
            *shard.counter(key, key as u64) = Counter { ends: key as u64 + 10, ..Counter::default() };
        }
        assert!(shard.young.len() < 100, "{}", shard.young.len());
        assert!(shard.old.is_empty());
    }

    #[test]
    fn workers_share_what_is_left() {
        let counters = Arc::new(Counters::default());
        let quota = Quota { limit: 1000, window: 60_000 };
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let counters = Arc::clone(&counters);
                thread::spawn(move || {
                    (0..500).filter(|_| counters.fixed("routes/1", "a", quota, 1).remaining.is_some()).count()
                })
            })
            .collect();
        assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>(), 1000);
    }
}
