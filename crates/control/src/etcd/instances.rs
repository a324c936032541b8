//! The data planes of this control plane: who they are, by heartbeat and by the keys they keep about themselves.
//!
//! The rule to know: none of it is configuration. It lives in memory, with leases, and is written anew by every
//! data plane that connects.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A data plane not heard of for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Leases and keys a control plane keeps at most; more are refused.
const MOST: usize = 10_000;
/// Bytes of one instance key and its value; more are refused.
const BIGGEST: usize = 32 * 1024;
/// Seconds a lease may ask for: an instance key is about a running process.
const TTL: std::ops::RangeInclusive<i64> = 1..=86_400;

/// What a data plane says of itself. API7's names; unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    pub instance_id: String,
    pub hostname: String,
    pub ip: String,
    pub version: String,
    pub gateway_group: String,
    /// The store's revision it serves.
    pub control_plane_revision: u64,
    pub ports: Vec<u16>,
    /// Where its configuration comes from, in the words of `/v1/config`.
    pub source: String,
}

/// A key that a data plane wrote about itself.
#[derive(Clone, Debug)]
pub struct InstanceKey {
    pub value: Bytes,
    pub revision: u64,
    pub lease: i64,
}

struct Lease {
    ttl: i64,
    until: Instant,
}

#[derive(Default)]
struct State {
    beats: BTreeMap<String, (Instant, Heartbeat)>,
    keys: BTreeMap<String, InstanceKey>,
    leases: HashMap<i64, Lease>,
}

/// All of them.
#[derive(Default)]
pub struct Instances {
    state: Mutex<State>,
}

/// Why a key or lease is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("etcdserver: requested lease not found")]
    NoSuchLease,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("too many instance keys or leases")]
    TooMany,
    #[error("etcdserver: request is too large")]
    TooBig,
}

impl Instances {
    pub fn beat(&self, beat: Heartbeat) {
        let mut state = self.state();
        if state.beats.len() < MOST || state.beats.contains_key(&beat.instance_id) {
            state.beats.insert(beat.instance_id.clone(), (Instant::now(), beat));
        }
    }

    /// The data planes heard of lately, and how long ago.
    pub fn list(&self) -> Vec<(Duration, Heartbeat)> {
        self.state().beats.values().map(|(at, beat)| (at.elapsed(), beat.clone())).collect()
    }

    pub fn keys(&self) -> Vec<(String, InstanceKey)> {
        self.state().keys.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub fn put(&self, key: String, value: Bytes, lease: i64, revision: u64) -> Result<(), Refused> {
        if key.len() + value.len() > BIGGEST {
            return Err(Refused::TooBig);
        }
        let mut state = self.state();
        if lease != 0 && !state.leases.contains_key(&lease) {
            return Err(Refused::NoSuchLease);
        }
        if state.keys.len() >= MOST && !state.keys.contains_key(&key) {
            return Err(Refused::TooMany);
        }
        state.keys.insert(key, InstanceKey { value, revision, lease });
        Ok(())
    }

    /// Deletes the keys that `which` names; says how many.
    pub fn delete(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut state = self.state();
        let before = state.keys.len();
        state.keys.retain(|key, _| !which(key));
        before - state.keys.len()
    }

    /// Grants a lease of about `ttl` seconds; `id` 0 means: choose one. Gives its id and its seconds.
    pub fn grant(&self, id: i64, ttl: i64) -> Result<(i64, i64), Refused> {
        let mut state = self.state();
        if state.leases.len() >= MOST {
            return Err(Refused::TooMany);
        }
        if state.leases.contains_key(&id) {
            return Err(Refused::LeaseExists);
        }
        let id = if id == 0 { state.unused_lease() } else { id };
        let ttl = ttl.clamp(*TTL.start(), *TTL.end());
        state.leases.insert(id, Lease { ttl, until: Instant::now() + seconds(ttl) });
        Ok((id, ttl))
    }

    pub fn revoke(&self, id: i64) -> Result<(), Refused> {
        let mut state = self.state();
        state.leases.remove(&id).ok_or(Refused::NoSuchLease)?;
        state.keys.retain(|_, key| key.lease != id);
        Ok(())
    }

    /// Renews a lease; gives its time to live, 0 when it is gone.
    pub fn keep_alive(&self, id: i64) -> i64 {
        match self.state().leases.get_mut(&id) {
            Some(lease) => {
                lease.until = Instant::now() + seconds(lease.ttl);
                lease.ttl
            }
            None => 0,
        }
    }

    /// Seconds left, seconds granted, and its keys.
    pub fn time_to_live(&self, id: i64) -> Option<(i64, i64, Vec<String>)> {
        let state = self.state();
        let lease = state.leases.get(&id)?;
        let left = lease.until.saturating_duration_since(Instant::now()).as_secs();
        let keys =
            state.keys.iter().filter(|(_, key)| key.lease == id).map(|(name, _)| name.clone()).collect();
        Some((i64::try_from(left).unwrap_or(i64::MAX), lease.ttl, keys))
    }

    pub fn leases(&self) -> Vec<i64> {
        self.state().leases.keys().copied().collect()
    }

    /// The lock, after dropping what has expired.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let expired: Vec<i64> =
            state.leases.iter().filter(|(_, lease)| lease.until <= now).map(|(id, _)| *id).collect();
        for id in expired {
            state.leases.remove(&id);
            state.keys.retain(|_, key| key.lease != id);
        }
        state.beats.retain(|_, (at, _)| at.elapsed() < FORGOTTEN_AFTER);
        state
    }
}

impl State {
    /// By chance, as etcd's are: who kept one through a restart must not keep somebody else's alive. Below 2^53,
    /// for clients to whom every number is a float.
    fn unused_lease(&self) -> i64 {
        loop {
            let id = i64::from(rand::random::<u32>()) << 20 | i64::from(rand::random::<u32>() >> 12);
            if id != 0 && !self.leases.contains_key(&id) {
                return id;
            }
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lives_as_long_as_its_lease() {
        let instances = Instances::default();
        let (lease, ttl) = instances.grant(0, 60).unwrap();
        assert_eq!(ttl, 60);
        instances.put("/apisix/data_plane/a".into(), Bytes::from_static(b"{}"), lease, 7).unwrap();
        assert_eq!(instances.keys().len(), 1);
        assert_eq!(instances.keep_alive(lease), 60);
        assert_eq!(instances.grant(lease, 1), Err(Refused::LeaseExists));
        instances.revoke(lease).unwrap();
        assert_eq!(instances.keys().len(), 0);
        assert_eq!(instances.keep_alive(lease), 0);
        assert_eq!(
            instances.put("/apisix/data_plane/a".into(), Bytes::new(), lease, 7),
            Err(Refused::NoSuchLease)
        );
    }

    #[test]
    fn what_a_data_plane_may_keep_is_bounded() {
        let instances = Instances::default();
        let value = Bytes::from(vec![0; BIGGEST]);
        assert_eq!(instances.put("/apisix/data_plane/a".into(), value, 0, 7), Err(Refused::TooBig));
        // What is granted is what is told.
        assert_eq!(instances.grant(5, 0), Ok((5, 1)));
        assert_eq!(instances.grant(6, i64::MAX), Ok((6, 86_400)));
        assert_eq!(instances.keep_alive(6), 86_400);
    }
}
