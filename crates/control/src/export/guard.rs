//! What looks like a loss, and is not exported until a person says so.

use model::{Manifest, Snapshot};

/// How much less than what is published may be exported unasked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Part of the resources that may be gone: 0.5 is half of them.
    pub max_shrink: f64,
    pub allow_empty: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_shrink: 0.5, allow_empty: false }
    }
}

impl Guard {
    /// Why `offered` must not replace what `current` names; none if it may.
    pub fn objects(&self, offered: &Snapshot, current: &Manifest) -> Option<String> {
        let (new, old) = (offered.len(), total(current));
        if new == 0 && old > 0 && !self.allow_empty {
            return Some(format!("the store is empty, the backup has {old} resources"));
        }
        // A file has no lineage, and neither has what was published from one.
        let known = !offered.store_id.is_empty() && !current.store_id.is_empty();
        if known && *offered.store_id != *current.store_id {
            let (new_id, old_id) = (&offered.store_id, &current.store_id);
            return Some(format!("the store is {new_id}, the backup comes from {old_id}"));
        }
        if known && offered.revision < current.revision {
            let (new, old) = (offered.revision, current.revision);
            return Some(format!("the store went back to revision {new}, the backup is of revision {old}"));
        }
        #[allow(clippy::cast_precision_loss)] // Counts of resources are far below 2^52.
        let gone = old.saturating_sub(new) as f64 / (old.max(1)) as f64;
        (gone > self.max_shrink && !(new == 0 && self.allow_empty)).then(|| {
            format!(
                "the store has {new} resources, the backup has {old}: more than {:.0}% are gone",
                self.max_shrink * 100.0
            )
        })
    }
}

/// How many resources a publication has.
pub(super) fn total(manifest: &Manifest) -> usize {
    manifest.resource.counts.values().sum()
}
