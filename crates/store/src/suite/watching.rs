//! Cases about what a store tells by itself: batches, and what ends with time.
#![allow(clippy::unwrap_used, reason = "it is a test: a panic is its way to fail")]

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future};
use model::{Change, Key, Kind};
use tokio::time::timeout;

use super::tools::{PATIENCE, apply, fresh, next, put, resource, same, touches, until};
use crate::{Commit, Error, Store, Write};

/// A watch gives every batch after its revision, the past and what comes, each once, in order.
pub async fn watches_from_any_revision(store: &dyn Store) {
    let key = fresh(Kind::Routes);
    let mut revisions = vec![];
    for n in 0..5 {
        revisions.push(store.commit(Commit::put(key.clone(), n.to_string())).await.unwrap());
    }
    let mut watches = vec![];
    for (from, revision) in revisions.iter().enumerate() {
        watches.push((from, store.watch(*revision).await.unwrap()));
    }
    for n in 5..8 {
        revisions.push(store.commit(Commit::put(key.clone(), n.to_string())).await.unwrap());
    }
    for (from, mut watch) in watches {
        for (n, revision) in revisions.iter().enumerate().skip(from + 1) {
            let batch = until(&mut watch, |batch| touches(batch, &key)).await;
            let expected = resource(&key, &n.to_string(), revisions[0], *revision);
            assert_eq!(batch.revision, *revision);
            assert_eq!(batch.changes, [Change::Put(Arc::new(expected))]);
        }
    }
}

/// A snapshot and the batches after it are every later snapshot, whatever is written meanwhile.
pub async fn watch_and_snapshot_agree(store: &dyn Store) {
    let base = fresh(Kind::Routes).id;
    let key = |n: usize| Key::new(Kind::Routes, format!("{base}{n}"));
    let mut followed = store.snapshot().await.unwrap();
    let mut watch = store.watch(followed.revision).await.unwrap();
    let write = async |writer: usize| {
        for n in 0..30 {
            let one = (writer + n * 7) % 10;
            let commit = match (n + writer) % 3 {
                0 => Commit::delete(key(one)),
                1 => Commit::put(key(one), format!("{writer}.{n}")),
                _ => Commit { expect: vec![], writes: vec![put(&key(one), "a"), put(&key(one + 1), "b")] },
            };
            store.commit(commit).await.unwrap();
        }
    };
    let snapshots = async {
        let mut snapshots = vec![];
        for _ in 0..10 {
            snapshots.push(store.snapshot().await.unwrap());
            tokio::task::yield_now().await;
        }
        snapshots
    };
    let (_, mut snapshots) = future::join(future::join_all((0..4).map(write)), snapshots).await;
    // A last word, so that there is a batch at or after the newest snapshot to wait for.
    snapshots.push(store.snapshot().await.unwrap());
    store.commit(Commit::put(key(99), "end")).await.unwrap();
    for snapshot in snapshots {
        while followed.revision < snapshot.revision {
            let batch = next(&mut watch).await;
            assert!(batch.revision > followed.revision || batch.changes.is_empty(), "revisions only grow");
            // A snapshot may be newer than its last change: what other keys of the store did in between.
            if batch.revision > snapshot.revision {
                same(&followed, &snapshot);
            }
            apply(&mut followed, batch);
        }
        if followed.revision == snapshot.revision {
            same(&followed, &snapshot);
        }
    }
}

/// A revision the store has not come to is another store's: its history can't be had.
pub async fn never_watches_a_future(store: &dyn Store) {
    let newest = store.snapshot().await.unwrap().revision;
    forgets(store, newest + 1_000_000).await;
}

/// The history after `revision` can't be had from this store.
pub async fn forgets(store: &dyn Store, revision: u64) {
    let error = match store.watch(revision).await {
        Err(error) => error,
        Ok(mut watch) => timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap_err(),
    };
    assert!(matches!(error, Error::Compacted { asked, .. } if asked == revision), "{error}");
}

/// What has a ttl goes when it is over, by an ordinary batch, unless it was written again.
pub async fn time_to_live(store: &dyn Store) {
    let (short, renewed, kept) = (fresh(Kind::Routes), fresh(Kind::Routes), fresh(Kind::Routes));
    let with = |key: &Key, ttl| Commit {
        expect: vec![],
        writes: vec![Write::Put { key: key.clone(), value: "{}".into(), ttl }],
    };
    let start = store.commit(with(&short, Some(1))).await.unwrap();
    store.commit(with(&renewed, Some(1))).await.unwrap();
    store.commit(with(&kept, Some(1))).await.unwrap();
    store.commit(with(&renewed, Some(3600))).await.unwrap();
    store.commit(with(&kept, None)).await.unwrap();
    assert!(store.get(&short).await.unwrap().is_some());

    let gone = Change::Delete(short.clone());
    let mut watch = store.watch(start).await.unwrap();
    let batch = until(&mut watch, |batch| batch.changes.contains(&gone)).await;
    assert!(batch.revision > start);
    assert_eq!(store.get(&short).await.unwrap(), None);
    // Their old deadlines are past too, since they were set in the same second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.get(&renewed).await.unwrap().is_some());
    assert!(store.get(&kept).await.unwrap().is_some());
    store.commit(Commit::delete(renewed)).await.unwrap();
}
