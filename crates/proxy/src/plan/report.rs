//! What a compile refused and why.

use std::time::SystemTime;

use model::{Key, Kind};

/// What a compile refused and why.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every resource that is not in force as it stands in the snapshot, by kind and id.
    pub rejected: Vec<Rejected>,
    /// How many resources were compiled anew; the others were taken over from the plan before.
    pub compiled: usize,
}

/// One resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub key: Key,
    pub reason: String,
    /// Since when it has been refused for this reason.
    pub since: SystemTime,
    /// Whether its last good form is being served.
    pub serving_stale: bool,
}

impl Rejected {
    pub fn kind(&self) -> Kind {
        self.key.kind
    }

    pub fn id(&self) -> &str {
        &self.key.id
    }
}
