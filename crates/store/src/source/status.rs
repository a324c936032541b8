//! What a data plane knows about its own configuration, and the handle to ask it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};

use super::{
    Config, OnStale, Origin, Update,
    facts::Facts,
    notice::{Notice, State},
};

/// What is served and where it comes from, in the words of `/v1/config`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    pub group: String,
    #[serde(serialize_with = "origin_or_none")]
    pub source: Option<Origin>,
    pub store_id: Arc<str>,
    pub revision: u64,
    pub sequence: Option<u64>,
    #[serde(serialize_with = "rfc3339")]
    pub applied_at: Option<DateTime<Utc>>,
    /// Seconds since the store was last known to hold just this; 0 while it is followed.
    pub age_s: Option<u64>,
    pub digest: Arc<str>,
    pub resources: usize,
    pub cp: CpStatus,
    pub bucket: BucketStatus,
    pub file: FileStatus,
    /// Why what is served could not be kept on disk the last time.
    pub disk_error: Option<Arc<str>>,
    pub held: Option<Held>,
    /// Why the newest snapshot could not be applied.
    pub last_error: Option<String>,
    /// A verified configuration is in force, and not one that `on_stale: refuse` forbids.
    pub ready: bool,
    /// Older than `max_age`.
    pub stale: bool,
}

/// The connection to the control plane.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CpStatus {
    pub connected: bool,
    /// Since when it is connected, or cut off.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<DateTime<Utc>>,
    pub last_error: Option<Arc<str>>,
}

/// The bucket, as far as it was asked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BucketStatus {
    #[serde(serialize_with = "rfc3339")]
    pub last_poll: Option<DateTime<Utc>>,
    pub last_error: Option<Arc<str>>,
}

/// The file, where resources come from one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileStatus {
    /// Why it can't be read as it is now: what is served is older.
    pub last_error: Option<Arc<str>>,
    /// Since when it can't.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<DateTime<Utc>>,
}

/// What the authority offers and is not believed: see the return guard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// `empty`, `other_store`, `shrunk`, `older` or `stale`.
    pub reason: &'static str,
    #[serde(serialize_with = "rfc3339_always")]
    pub since: DateTime<Utc>,
    pub offered: Brief,
    pub current: Brief,
}

/// A snapshot in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Brief {
    pub store_id: Arc<str>,
    pub revision: u64,
    pub resources: usize,
}

fn origin_or_none<S: Serializer>(origin: &Option<Origin>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(origin.map_or("none", Origin::name))
}

fn rfc3339<S: Serializer>(time: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_always(time, to),
        None => to.serialize_none(),
    }
}

fn rfc3339_always<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Asks and orders a running source. Clones are the same source.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// What an operator may ask of a running source.
pub(super) enum Order {
    Accept(oneshot::Sender<Result<Held, NothingHeld>>),
    Stop(oneshot::Sender<()>),
}

/// There is no held change to accept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("nothing is held")]
pub struct NothingHeld;

impl Handle {
    /// What is served now, and how things stand.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What is in force, to go on from after a reload: see [`Config::resume`].
    pub fn current(&self) -> Option<Arc<Update>> {
        self.shared.current()
    }

    /// Releases the held change: it is applied, and its store is trusted from now on. Gives what was held.
    pub async fn accept(&self) -> Result<Held, NothingHeld> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Accept(answer)).await.map_err(|_| NothingHeld)?;
        answered.await.map_err(|_| NothingHeld)?
    }

    /// Stops following all sources; returns when the last good snapshot is safe on disk. What is in force stays.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            // An error says the same: it has stopped.
            let _ = stopped.await;
        }
    }
}

/// What the running source shares with its handles.
pub(super) struct Shared {
    max_age: Option<chrono::TimeDelta>,
    on_stale: OnStale,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// As of the last change; what depends on the time is filled in when it is asked for.
    status: Status,
    current: Option<Arc<Update>>,
    verified_at: Option<DateTime<Utc>>,
    confirmed: bool,
}

impl Shared {
    pub fn new(config: &Config) -> Self {
        let mut known = Known::default();
        known.status.group.clone_from(&config.group);
        let max_age = config.max_age.and_then(|age| chrono::TimeDelta::from_std(age).ok());
        Self { max_age, on_stale: config.on_stale, known: Mutex::new(known) }
    }

    pub fn status(&self) -> Status {
        let known = self.known();
        let mut status = known.status.clone();
        let since = known.verified_at.or(status.applied_at);
        let age = match since {
            _ if known.confirmed => chrono::TimeDelta::zero(),
            Some(since) => (Utc::now() - since).max(chrono::TimeDelta::zero()),
            None => return status,
        };
        status.age_s = u64::try_from(age.num_seconds()).ok();
        status.stale = self.max_age.is_some_and(|limit| age > limit);
        status.ready = status.source.is_some() && !(status.stale && self.on_stale == OnStale::Refuse);
        status
    }

    pub fn current(&self) -> Option<Arc<Update>> {
        let known = self.known();
        let mut current = known.current.clone()?;
        let verified_at = if known.confirmed { Some(Utc::now()) } else { known.verified_at };
        let revision = known.status.revision;
        if current.verified_at != verified_at || current.snapshot.revision != revision {
            // What was learnt since about the very same resources.
            let current = Arc::make_mut(&mut current);
            (current.verified_at, current.snapshot.revision) = (verified_at, revision);
        }
        Some(current)
    }

    /// The revision in force, for heartbeats, and where it came from.
    pub fn in_force(&self) -> (u64, Option<Origin>) {
        let known = self.known();
        (known.status.revision, known.status.source)
    }

    pub fn applied(&self, update: Arc<Update>) {
        let mut known = self.known();
        known.status.applied_at = Some(Utc::now());
        known.status.last_error = None;
        known.current = Some(update);
    }

    /// Whether what is served is on disk.
    pub fn kept(&self, error: Option<String>) {
        self.known().status.disk_error = error.map(Arc::from);
    }

    pub fn not_applied(&self, error: String) {
        self.known().status.last_error = Some(error);
    }

    pub fn published(&self, in_force: Option<(Origin, &Facts)>, confirmed: bool, held: Option<Held>) {
        let mut known = self.known();
        known.confirmed = confirmed;
        known.status.held = held;
        if let Some((origin, facts)) = in_force {
            known.verified_at = facts.verified_at;
            let status = &mut known.status;
            status.source = Some(origin);
            status.store_id.clone_from(&facts.store_id);
            (status.revision, status.sequence, status.resources) =
                (facts.revision, facts.sequence, facts.resources);
            status.digest.clone_from(&facts.digest);
        }
    }

    pub fn noticed(&self, from: Origin, notice: &Notice) {
        let mut known = self.known();
        match from {
            Origin::ControlPlane => {
                let (cp, connected) = (&mut known.status.cp, notice.state == State::Up);
                if cp.connected != connected || cp.since.is_none() {
                    cp.since = Some(Utc::now());
                }
                cp.connected = connected;
                cp.last_error.clone_from(&notice.error);
            }
            Origin::Bucket => {
                known.status.bucket.last_poll = notice.asked_at;
                known.status.bucket.last_error.clone_from(&notice.error);
            }
            Origin::File => {
                let file = &mut known.status.file;
                file.since = notice.error.as_ref().map(|_| file.since.unwrap_or_else(Utc::now));
                file.last_error.clone_from(&notice.error);
            }
            Origin::Disk => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
