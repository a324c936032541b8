//! What an exporter tells of itself.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Config;

/// The state of all back ends.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub group: String,
    pub backends: Vec<BackendStatus>,
    /// Changes are waiting for a quiet moment.
    pub pending: bool,
    /// Why the store could not be read the last time.
    pub store_error: Option<String>,
    /// When this exporter began.
    #[serde(skip)]
    pub since: DateTime<Utc>,
    /// The last order to export that was passed on.
    #[serde(skip)]
    pub(super) asked: u64,
}

/// The state of one back end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BackendStatus {
    pub name: String,
    /// The last time the backup was known to be what the store holds.
    pub last_success: Option<DateTime<Utc>>,
    pub sequence: u64,
    /// The store's revision at that sequence.
    pub revision: u64,
    /// Whether the publication reads back, compiles and equals the store. None: not tried yet.
    pub verified: Option<bool>,
    /// Why it is not verified.
    pub problem: Option<String>,
    /// Why the last try failed; none after one that did not.
    pub last_error: Option<String>,
    pub errors_total: u64,
    /// A change that is not exported until it is accepted.
    pub held: Option<Held>,
    /// The last publication that an operator made by hand, and this exporter found.
    pub by_hand: Option<ByHand>,
    /// Why old publications could not be deleted.
    pub prune_error: Option<String>,
    /// The last order to export that was tried.
    #[serde(skip)]
    pub(super) asked: u64,
    #[serde(skip)]
    pub(super) accepted: bool,
}

/// A change that looks like a loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    pub reason: String,
    pub since: DateTime<Utc>,
    pub offered: Brief,
    pub current: Brief,
}

/// A snapshot in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Brief {
    pub store_id: String,
    pub revision: u64,
    pub resources: usize,
}

/// What was done with `keelgate backup restore` or `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByHand {
    pub sequence: u64,
    pub note: String,
    pub writer: String,
    pub at: String,
}

impl Status {
    pub(super) fn new(config: &Config) -> Self {
        let name = |(name, _): &(String, _)| BackendStatus { name: name.clone(), ..BackendStatus::default() };
        let backends = config.backends.iter().map(name).collect();
        Self {
            group: config.group.clone(),
            backends,
            pending: false,
            store_error: None,
            since: Utc::now(),
            asked: 0,
        }
    }
}
