//! What there is to know of a snapshot without looking inside, and which of two is the newer.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Update;

/// What [`failover`](super::failover) decides by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The lineage; empty where the source knows none.
    pub store_id: Arc<str>,
    pub revision: u64,
    pub sequence: Option<u64>,
    pub resources: usize,
    pub digest: Arc<str>,
    /// Version of the instance configuration that comes with it.
    pub instance: Option<u64>,
    pub verified_at: Option<DateTime<Utc>>,
    /// An operator put it there, by restoring or publishing.
    pub by_hand: bool,
}

impl Facts {
    pub fn of(update: &Update) -> Self {
        Self {
            store_id: update.snapshot.store_id.clone(),
            revision: update.snapshot.revision,
            sequence: update.sequence,
            resources: update.snapshot.len(),
            digest: update.digest.as_str().into(),
            instance: update.instance.as_ref().map(|instance| instance.config_version),
            verified_at: update.verified_at,
            by_hand: update.by_hand,
        }
    }

    pub fn has_lineage(&self) -> bool {
        !self.store_id.is_empty()
    }

    /// Their revisions can be compared.
    pub fn is_of_store(&self, other: &Self) -> bool {
        self.has_lineage() && self.store_id == other.store_id
    }

    /// Serving one instead of the other would change nothing.
    pub fn same(&self, other: &Self) -> bool {
        let it = |facts: &Self| (facts.revision, facts.sequence, facts.instance);
        it(self) == it(other) && self.store_id == other.store_id && self.digest == other.digest
    }

    /// Whether it replaces `other`, where neither is the authority's. What can't be told is answered with no.
    pub fn newer_than(&self, other: &Self) -> bool {
        if let (Some(own), Some(others)) = (self.sequence, other.sequence)
            && own != others
        {
            // Sequences belong to the group: they count across stores.
            return own > others && (self.by_hand || !self.is_before(other));
        }
        if self.is_of_store(other) && !self.by_hand && !other.by_hand {
            return self.revision > other.revision;
        }
        // Different stores, or an operator's deed, which may go back on purpose: the later word counts.
        match (self.verified_at, other.verified_at) {
            (Some(own), Some(others)) => own > others,
            (None, Some(_)) => false,
            (_, None) => self.digest != other.digest,
        }
    }

    /// An earlier revision of the same store.
    pub fn is_before(&self, other: &Self) -> bool {
        self.is_of_store(other) && self.revision < other.revision
    }

    /// Equal resources of one store are as new as the newest witness says: a store's revision also grows by what is
    /// no resource, and who looked later knows that nothing has changed.
    pub fn level_with(&mut self, witness: &Self) {
        if self.is_of_store(witness) && self.digest == witness.digest {
            self.revision = self.revision.max(witness.revision);
            self.verified_at = self.verified_at.max(witness.verified_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(store: &str, sequence: Option<u64>, revision: u64, at: i64) -> Facts {
        Facts {
            store_id: store.into(),
            sequence,
            revision,
            digest: format!("{store}{revision}").into(),
            verified_at: DateTime::from_timestamp(at, 0),
            ..Facts::default()
        }
    }

    #[test]
    fn sequence_then_revision_then_time_tell_which_is_newer() {
        for (newer, older) in [
            (facts("a", Some(2), 5, 0), facts("a", Some(1), 5, 9)),
            (facts("b", Some(2), 1, 0), facts("a", Some(1), 5, 9)),
            (facts("a", Some(1), 6, 0), facts("a", Some(1), 5, 9)),
            (facts("a", Some(1), 6, 0), facts("a", None, 5, 9)),
            (facts("b", Some(1), 1, 9), facts("a", None, 5, 0)),
        ] {
            assert!(newer.newer_than(&older) && !older.newer_than(&newer), "{newer:?} {older:?}");
        }
        // A backup that went back by itself, and one that can't be compared.
        let (back, unknown) =
            (facts("a", Some(3), 4, 9), Facts { verified_at: None, ..facts("", None, 0, 0) });
        assert!(!back.newer_than(&facts("a", Some(2), 5, 0)));
        assert!(!unknown.newer_than(&back));
    }

    #[test]
    fn only_equal_resources_of_one_store_are_levelled() {
        let same = |store, revision| Facts { digest: "same".into(), ..facts(store, None, revision, 0) };
        let mut levelled = same("a", 5);
        for witness in [same("a", 7), same("a", 6), same("c", 9), facts("a", None, 9, 0)] {
            levelled.level_with(&witness);
        }
        assert_eq!(levelled.revision, 7);
    }
}
