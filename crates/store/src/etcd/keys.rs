//! Where resources lie in etcd: `<prefix>/<folder>/<id>`, as APISIX has them.
//!
//! The rule to know: whatever else lies under the prefix (APISIX's placeholders and instance keys, our own facts) is
//! not a resource, and is passed over.

use std::sync::Arc;

use bytes::Bytes;
use model::{Change, Key, Kind, Resource};

use super::proto::{Event, KeyValue, event::EventType};

#[derive(Clone)]
pub(super) struct Keys {
    /// With the slash: `/apisix/`.
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    pub fn of(&self, key: &Key) -> Bytes {
        format!("{}{key}", self.prefix).into()
    }

    /// The lineage's name. APISIX has no such key and never reads it.
    pub fn store_id(&self) -> Bytes {
        format!("{}keelgate/store_id", self.prefix).into()
    }

    /// Keys that are never there, each of its own.
    pub fn nothing(&self, n: usize) -> Bytes {
        format!("{}keelgate/nothing/{n}", self.prefix).into()
    }

    /// All keys, as first key and end.
    pub fn all(&self) -> (Bytes, Bytes) {
        range(self.prefix.clone())
    }

    /// All keys of one kind's folder.
    pub fn folder(&self, kind: Kind) -> (Bytes, Bytes) {
        range(format!("{}{}/", self.prefix, kind.folder()))
    }

    pub fn resource(&self, kv: &KeyValue) -> Option<Resource> {
        Some(Resource {
            key: self.parse(&kv.key)?,
            // What is not text will be refused as not JSON, by name: better than not being there.
            value: text(&kv.value),
            created: unsigned(kv.create_revision),
            modified: unsigned(kv.mod_revision),
        })
    }

    pub fn change(&self, event: &Event) -> Option<Change> {
        let kv = event.kv.as_ref()?;
        match event.r#type() {
            EventType::Put => self.resource(kv).map(|resource| Change::Put(Arc::new(resource))),
            EventType::Delete => self.parse(&kv.key).map(Change::Delete),
        }
    }

    fn parse(&self, key: &[u8]) -> Option<Key> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.parse().ok()
    }
}

pub(super) fn text(value: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(value).into()
}

/// Revisions are never negative.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// All keys that begin with `prefix`, which ends in a slash.
fn range(prefix: String) -> (Bytes, Bytes) {
    let mut end = prefix.clone().into_bytes();
    // The byte after a slash; no byte overflows.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (prefix.into(), end.into())
}
