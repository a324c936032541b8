//! Where resources are kept ([`Store`]) and how snapshots travel to a data plane ([`source`]).
//!
//! The rule to know: a store has one history, numbered by revisions; whoever has a snapshot and the batches after
//! its revision has the store.

pub mod backup;
pub mod bucket;
pub mod embedded;
pub mod etcd;
mod log;
pub mod memory;
pub mod source;
pub mod suite;
mod tree;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use model::{Key, Kind, Resource, Snapshot};

pub use embedded::Embedded;
pub use etcd::Etcd;
pub use memory::Memory;

/// Where resources are kept. One suite (`suite.rs`) says what every store does.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The lineage: a name made when the store was first opened, lost when its data is lost.
    fn store_id(&self) -> Arc<str>;

    /// The resource at its newest revision.
    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error>;

    /// All resources of one kind, by id.
    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error>;

    /// Everything, at one revision.
    async fn snapshot(&self) -> Result<Snapshot, Error>;

    /// Writes all or nothing, durable when it returns. Gives the revision it is in. Of several writes to one key
    /// the last counts; a commit that changes nothing makes no revision.
    async fn commit(&self, commit: Commit) -> Result<u64, Error>;

    /// Every batch after `revision`, in order, without gaps, then new ones as they come. A batch without changes
    /// says only that the store has come to its revision. The stream ends with an error when it can't go on;
    /// [`Error::Compacted`], here or in the stream, means: take a snapshot and watch from there.
    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error>;
}

/// Some writes, and what must hold for them to be done.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub expect: Vec<(Key, Expect)>,
    pub writes: Vec<Write>,
}

impl Commit {
    pub fn put(key: Key, value: impl Into<Arc<str>>) -> Self {
        Self { expect: vec![], writes: vec![Write::Put { key, value: value.into(), ttl: None }] }
    }

    pub fn delete(key: Key) -> Self {
        Self { expect: vec![], writes: vec![Write::Delete { key }] }
    }

    #[must_use]
    pub fn expecting(mut self, key: Key, expect: Expect) -> Self {
        self.expect.push((key, expect));
        self
    }

    /// The writes that count: the last to each key, in order.
    fn effective(&self) -> impl Iterator<Item = &Write> {
        let last: HashMap<&Key, usize> = self.writes.iter().enumerate().map(|(i, w)| (w.key(), i)).collect();
        self.writes.iter().enumerate().filter(move |(i, w)| last[w.key()] == *i).map(|(_, write)| write)
    }
}

/// What must hold of a key for a commit to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Present,
    /// Last written at this revision; 0 is the same as absent.
    At(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put {
        key: Key,
        value: Arc<str>,
        /// Deleted by the store after so many seconds, unless written again. APISIX's `ttl`.
        ttl: Option<u64>,
    },
    Delete {
        key: Key,
    },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn ttl(&self) -> Option<u64> {
        match self {
            Self::Put { ttl, .. } => *ttl,
            Self::Delete { .. } => None,
        }
    }
}

/// All that one commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub revision: u64,
    pub changes: Vec<model::Change>,
}

/// What a store may answer, by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An expectation did not hold; nothing was written. Read again and decide.
    #[error("`{key}` was changed by someone else")]
    Conflict { key: Key },
    /// The history asked for is no longer kept, or never was this store's. Take a snapshot.
    #[error("there is no history after revision {asked}; the oldest kept is {oldest}")]
    Compacted { asked: u64, oldest: u64 },
    /// It can't be reached now. Try again later.
    #[error("{store} can't be reached: {reason}")]
    Unavailable { store: String, reason: String },
    /// This store takes no writes from us.
    #[error("{0} is read-only here")]
    ReadOnly(String),
    /// What it holds can't be read. Needs a person.
    #[error("{what}: {reason}")]
    Corrupt { what: String, reason: String },
}
