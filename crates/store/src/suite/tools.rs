//! What the cases are written with.
#![allow(clippy::unwrap_used, reason = "it is a test: a panic is its way to fail")]

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use model::{Change, Key, Kind, Resource, Snapshot};
use tokio::time::timeout;

use crate::{Batch, Error, Write};

/// Longer than any store takes for anything here, a lease's end included.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn fresh(kind: Kind) -> Key {
    Key::new(kind, uuid::Uuid::new_v4().simple().to_string())
}

pub(super) fn put(key: &Key, value: &str) -> Write {
    Write::Put { key: key.clone(), value: value.into(), ttl: None }
}

pub(super) fn resource(key: &Key, value: &str, created: u64, modified: u64) -> Resource {
    Resource { key: key.clone(), value: value.into(), created, modified }
}

pub(super) fn find<'a>(resources: &'a [Arc<Resource>], key: &Key) -> Option<&'a Resource> {
    resources.iter().map(|resource| &**resource).find(|resource| resource.key == *key)
}

#[track_caller]
pub(super) fn conflict(result: &Result<u64, Error>, on: &Key) {
    assert!(
        matches!(result, Err(Error::Conflict { key }) if key == on),
        "{result:?}, not a conflict on {on}"
    );
}

pub(super) fn touches(batch: &Batch, key: &Key) -> bool {
    batch.changes.iter().any(|change| match change {
        Change::Put(resource) => resource.key == *key,
        Change::Delete(deleted) => deleted == key,
    })
}

pub(super) async fn next(watch: &mut BoxStream<'static, Result<Batch, Error>>) -> Batch {
    timeout(PATIENCE, watch.next()).await.expect("a batch in time").expect("a watch goes on").unwrap()
}

pub(super) async fn until(
    watch: &mut BoxStream<'static, Result<Batch, Error>>,
    wanted: impl Fn(&Batch) -> bool,
) -> Batch {
    loop {
        let batch = next(watch).await;
        if wanted(&batch) {
            return batch;
        }
    }
}

pub(super) fn apply(snapshot: &mut Snapshot, batch: Batch) {
    for change in batch.changes {
        match change {
            Change::Put(resource) => snapshot.put_shared(resource),
            Change::Delete(key) => assert!(snapshot.delete(&key), "{key} is deleted once"),
        }
    }
    snapshot.revision = batch.revision;
}

#[track_caller]
pub(super) fn same(followed: &Snapshot, taken: &Snapshot) {
    assert!(followed.iter().eq(taken.iter()), "batches up to {} do not lead to the snapshot", taken.revision);
}
