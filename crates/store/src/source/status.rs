//! What a data plane knows about its own configuration, and the handle to ask it.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};

use super::{Origin, Update};

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
    /// Seconds since the store was last known to hold just this; 0 while the authority is followed.
    pub age_s: Option<u64>,
    pub digest: String,
    pub resources: usize,
    pub cp: CpStatus,
    pub bucket: BucketStatus,
    pub held: Option<Held>,
    /// A verified configuration is in force, and not one that `on_stale: refuse` forbids.
    pub ready: bool,
    /// Older than `max_age`.
    pub stale: bool,
}

/// The connection to the control plane.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CpStatus {
    pub connected: bool,
    /// When it was last connected or cut off.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
}

/// The bucket, as far as it was asked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BucketStatus {
    #[serde(serialize_with = "rfc3339")]
    pub last_poll: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
}

/// What a returning control plane offers and is not believed: see the return guard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// `empty`, `other_store`, `shrunk`, `older`.
    pub reason: &'static str,
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<DateTime<Utc>>,
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
        Some(time) => to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
        None => to.serialize_none(),
    }
}

/// Asks and orders a running source. Clones are the same source.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// What the running source shares with its handles.
pub(super) struct Shared {
    pub status: Mutex<Status>,
    pub current: Mutex<Option<Arc<Update>>>,
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
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = &mut status;
        status
    }

    /// What is in force, to go on from after a reload.
    pub fn current(&self) -> Option<Arc<Update>> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            let _ = stopped.await;
        }
    }
}
