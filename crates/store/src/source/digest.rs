//! What a snapshot holds, in 64 characters.
//!
//! The rule to know: it is a sum over the resources, so one changed resource costs two hashes however many there
//! are, and equal resources give equal digests whichever road they took. It tells snapshots apart; what proves that
//! nobody touched one on the way is the manifest.

use std::fmt;

use model::{Resource, Snapshot};
use sha2::{Digest as _, Sha256};

/// The sum of the SHA-256 of every key and value, in four lanes of 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut digest = Self::default();
        snapshot.iter().for_each(|resource| digest.add(resource));
        digest
    }

    pub fn add(&mut self, resource: &Resource) {
        self.combine(resource, u64::wrapping_add);
    }

    /// Undoes [`Self::add`].
    pub fn remove(&mut self, resource: &Resource) {
        self.combine(resource, u64::wrapping_sub);
    }

    fn combine(&mut self, resource: &Resource, with: fn(u64, u64) -> u64) {
        let mut hash = Sha256::new();
        hash.update(resource.key.to_string());
        hash.update([0]);
        hash.update(resource.value.as_bytes());
        let hash = hash.finalize();
        for (lane, bytes) in self.0.iter_mut().zip(hash.as_chunks::<8>().0) {
            *lane = with(*lane, u64::from_be_bytes(*bytes));
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|lane| write!(f, "{lane:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use model::{Key, Kind};

    use super::*;

    fn route(id: &str, value: &str) -> Resource {
        Resource { key: Key::new(Kind::Routes, id), value: value.into(), created: 0, modified: 0 }
    }

    #[test]
    fn depends_on_what_is_there_not_on_how_it_came() {
        let (a, b, c) = (route("1", "{}"), route("2", "{}"), route("2", "{\"a\":1}"));
        let mut digest = Digest::of(&[a.clone(), b.clone()].into_iter().collect());
        let before = digest.to_string();
        assert_eq!(before.len(), 64);
        digest.remove(&b);
        digest.add(&c);
        assert_ne!(digest.to_string(), before);
        assert_eq!(digest, Digest::of(&[c.clone(), a].into_iter().collect()));
        digest.remove(&c);
        digest.add(&b);
        assert_eq!(digest.to_string(), before);
    }
}
