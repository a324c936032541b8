//! Where a data plane gets snapshots, and whom it believes.
//!
//! The rule to know: sources only *offer* whole snapshots; [`failover`] alone decides which one is served, and
//! what is served goes through [`Apply`] one at a time. Nothing is ever mixed from two sources.

pub mod bucket;
pub mod digest;
pub mod disk;
pub mod etcd;
pub mod facts;
pub mod failover;
pub mod file;
pub mod guard;
mod heartbeat;
mod keeper;
mod notice;
mod run;
pub mod status;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use model::{Instance, Rejected, Snapshot};
use serde::{Deserialize, Serialize};

pub use status::{BucketStatus, CpStatus, Handle, Held, Status};

/// One whole snapshot on offer, and where it comes from.
#[derive(Clone, Debug)]
pub struct Update {
    pub snapshot: Snapshot,
    /// What the group's data planes share that is not a resource; none where the source has none.
    pub instance: Option<Arc<Instance>>,
    pub origin: Origin,
    /// The backup's sequence; none where it does not come from a backup with a manifest.
    pub sequence: Option<u64>,
    /// The same for equal resources, whichever road they took; see [`digest`].
    pub digest: String,
    /// Entries that could not be read as resources. What can be read but not used, the compile reports.
    pub rejected: Vec<Rejected>,
    /// When the store was last known to hold just this; none where the source can't tell.
    pub verified_at: Option<DateTime<Utc>>,
    /// An operator put it into the backup, by restoring or publishing: it may go back on purpose.
    pub by_hand: bool,
}

/// Where an update comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    ControlPlane,
    Bucket,
    Disk,
    File,
}

impl Origin {
    pub const ALL: [Self; 4] = [Self::ControlPlane, Self::Bucket, Self::Disk, Self::File];

    /// As status and metrics name it: `control_plane`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control_plane",
            Self::Bucket => "bucket",
            Self::Disk => "disk",
            Self::File => "file",
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a data plane does with an update: compile it and swap it in. An error leaves the old one in force.
#[async_trait]
pub trait Apply: Send + Sync + 'static {
    async fn apply(&self, update: &Update) -> Result<(), String>;
}

/// How a data plane gets its snapshots.
#[derive(Clone, Debug)]
pub struct Config {
    pub group: String,
    pub authority: Authority,
    /// Where the last good snapshot is kept; none keeps none.
    pub data_dir: Option<PathBuf>,
    pub guard: Guard,
    /// How long the authority is waited for at start before a fallback is served.
    pub startup_grace: Duration,
    /// How long a running data plane is cut off before it looks for something newer in the bucket.
    pub fallback_after: Duration,
    /// How old a snapshot may be before it counts as stale; none never.
    pub max_age: Option<Duration>,
    pub on_stale: OnStale,
    /// What this process serves already, from [`Handle::current`]: a reload stops the old source, then goes on from
    /// there.
    pub resume: Option<Arc<Update>>,
}

impl Config {
    /// The defaults around one authority.
    pub fn new(group: impl Into<String>, authority: Authority) -> Self {
        Self {
            group: group.into(),
            authority,
            data_dir: None,
            guard: Guard::default(),
            startup_grace: Duration::from_secs(3),
            fallback_after: Duration::from_secs(30),
            max_age: Some(Duration::from_secs(24 * 60 * 60)),
            on_stale: OnStale::Warn,
            resume: None,
        }
    }

    /// The backup to ask when the authority can't be heard.
    pub fn fallback(&self) -> Option<&bucket::Config> {
        match &self.authority {
            Authority::ControlPlane { fallback, .. } => fallback.as_ref(),
            Authority::Bucket(_) | Authority::File(_) => None,
        }
    }
}

/// Whose word counts while it can be heard.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Authority {
    /// A control plane, or an etcd cluster with APISIX's keys.
    ControlPlane {
        etcd: etcd::Config,
        /// Asked when the control plane can't be heard.
        fallback: Option<bucket::Config>,
    },
    /// A backup: the data plane stands alone.
    Bucket(bucket::Config),
    /// `apisix.yaml` or `apisix.json`, by its ending.
    File(PathBuf),
}

impl Authority {
    pub fn origin(&self) -> Origin {
        match self {
            Self::ControlPlane { .. } => Origin::ControlPlane,
            Self::Bucket(_) => Origin::Bucket,
            Self::File(_) => Origin::File,
        }
    }
}

/// How much less than what is served a returning control plane may have before it is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Part of the resources that may be gone: 0.5 is half of them.
    pub max_shrink: f64,
    pub allow_empty: bool,
    /// The authority is this process's own store.
    pub own_store: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_shrink: 0.5, allow_empty: false, own_store: false }
    }
}

/// What becomes of a snapshot older than `max_age`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// It is served, with one line in the log and a mark in the status.
    #[default]
    Warn,
    /// A fallback this old is not taken; what is in force stays, but the node is not ready.
    Refuse,
}

/// Starts to get snapshots, on the current tokio runtime; goes on until [`Handle::stop`].
pub fn start(config: Config, apply: Arc<dyn Apply>) -> Handle {
    run::start(config, apply)
}
