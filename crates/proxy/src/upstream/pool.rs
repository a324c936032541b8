//! Idle connections to upstream nodes, of one worker.
//!
//! The rule to know: a connection never leaves the worker that made it, and nothing watches it while it lies here:
//! whoever takes it out asks whether it is still open, and a sweep now and then drops what has grown old or was closed.

use std::{collections::hash_map::Entry, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use super::Keepalive;

/// What connections must have in common to stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of the upstream.
    pub fingerprint: u64,
    /// Of the node, `host:port`.
    pub label: Arc<str>,
    /// The name the node's certificate was checked for.
    pub server_name: Option<Arc<str>>,
}

/// Idle connections by key.
pub struct Pool<C> {
    idle: FxHashMap<Key, Vec<Idle<C>>>,
}

struct Idle<C> {
    connection: C,
    expires: Instant,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: FxHashMap::default() }
    }
}

impl<C> Pool<C> {
    /// The connection that was used last among those that `usable` accepts; the others are dropped.
    pub fn take(&mut self, key: &Key, now: Instant, mut usable: impl FnMut(&mut C) -> bool) -> Option<C> {
        let idle = self.idle.get_mut(key)?;
        while let Some(mut last) = idle.pop() {
            if last.expires > now && usable(&mut last.connection) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection for later; of too many the oldest goes.
    pub fn put(&mut self, key: Key, connection: C, now: Instant, keepalive: &Keepalive) {
        let Some(expires) = now.checked_add(keepalive.idle_timeout) else { return };
        if keepalive.size == 0 || expires <= now {
            return;
        }
        let idle = match self.idle.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        if idle.len() >= keepalive.size {
            idle.remove(0);
        }
        idle.push(Idle { connection, expires });
    }

    /// Drops what is too old or not `usable` any more.
    pub fn sweep(&mut self, now: Instant, mut usable: impl FnMut(&mut C) -> bool) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|one| one.expires > now && usable(&mut one.connection));
            !idle.is_empty()
        });
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.idle.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_freshest_comes_first_and_no_more_are_kept_than_allowed() {
        let key = Key { fingerprint: 1, label: "a:80".into(), server_name: None };
        let keepalive = Keepalive { size: 2, idle_timeout: Duration::from_secs(60), requests: 1000 };
        let (mut pool, start) = (Pool::default(), Instant::now());
        for connection in 1..=3 {
            pool.put(key.clone(), connection, start + Duration::from_secs(connection), &keepalive);
        }
        assert_eq!(pool.len(), 2);
        let other = Key { label: "b:80".into(), ..key.clone() };
        assert_eq!(pool.take(&other, start, |_| true), None);
        assert_eq!(pool.take(&key, start, |&mut c| c != 3), Some(2));
        assert_eq!(pool.len(), 0);
        pool.put(key.clone(), 4, start, &keepalive);
        pool.sweep(start + Duration::from_secs(59), |_| true);
        assert_eq!(pool.len(), 1);
        pool.sweep(start + Duration::from_secs(60), |_| true);
        assert!(pool.is_empty());
        assert_eq!(pool.take(&key, start, |_| true), None);
    }
}
