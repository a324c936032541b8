//! What every store does: one suite, run over all of them, and over our own etcd interface.
//!
//! The rule to know: a case asks only what [`Store`] promises, and works in ids of its own, so that it passes on a
//! store with other content and other writers.
#![allow(clippy::unwrap_used, reason = "it is a test: a panic is its way to fail")]

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future, stream::BoxStream};
use model::{Change, Key, Kind, Resource, Snapshot};
use tokio::time::timeout;

use crate::{Batch, Commit, Error, Expect, Store, Write};

/// Longer than any store takes for anything here, a lease's end included.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every case that needs only a store.
pub async fn run(store: Arc<dyn Store>) {
    let store = store.as_ref();
    reads_what_was_written(store).await;
    expectations(store).await;
    all_or_nothing(store).await;
    deletes_and_creates_anew(store).await;
    the_last_write_to_a_key_counts(store).await;
    nothing_changed_no_revision(store).await;
    lists_by_kind_and_id(store).await;
    odd_ids_and_values(store).await;
    big_values(store).await;
    many_writes_at_once(store).await;
    watches_from_any_revision(store).await;
    watch_and_snapshot_agree(store).await;
    one_of_many_committers_wins(store).await;
    never_watches_a_future(store).await;
    time_to_live(store).await;
}

/// What is written is read by all roads, with its revisions.
pub async fn reads_what_was_written(store: &dyn Store) {
    let key = fresh(Kind::Routes);
    assert_eq!(store.get(&key).await.unwrap(), None);
    let before = store.snapshot().await.unwrap();
    let first = store.commit(Commit::put(key.clone(), r#"{"n":1}"#)).await.unwrap();
    assert!(first > before.revision, "{first} > {}", before.revision);
    assert_eq!(before.get(&key), None, "a snapshot is a value");
    let second = store.commit(Commit::put(key.clone(), r#"{"n":2}"#)).await.unwrap();
    assert!(second > first);

    let expected = resource(&key, r#"{"n":2}"#, first, second);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(&expected));
    assert_eq!(find(&store.list(Kind::Routes).await.unwrap(), &key), Some(&expected));
    let after = store.snapshot().await.unwrap();
    assert_eq!(after.get(&key).map(|r| &**r), Some(&expected));
    assert!(after.revision >= second);
    assert_eq!(after.store_id, store.store_id());
    assert!(!after.store_id.is_empty());
}

/// A commit is done when what it expects holds, and names the key for which it does not.
pub async fn expectations(store: &dyn Store) {
    let (key, other) = (fresh(Kind::Services), fresh(Kind::Services));
    let put = |value: &str, expect| Commit::put(key.clone(), value).expecting(key.clone(), expect);
    conflict(store.commit(put("0", Expect::Present)).await, &key);
    conflict(store.commit(put("0", Expect::At(1))).await, &key);
    let first = store.commit(put("1", Expect::Absent)).await.unwrap();
    conflict(store.commit(put("0", Expect::Absent)).await, &key);
    let second = store.commit(put("2", Expect::At(first))).await.unwrap();
    conflict(store.commit(put("0", Expect::At(first))).await, &key);
    store.commit(put("3", Expect::Present)).await.unwrap();

    let both = put("0", Expect::Present).expecting(other.clone(), Expect::Present);
    conflict(store.commit(both).await, &other);
    let elsewhere = Commit::delete(key.clone()).expecting(other.clone(), Expect::At(second));
    conflict(store.commit(elsewhere).await, &other);
    assert_eq!(&*store.get(&key).await.unwrap().unwrap().value, "3");
    store.commit(Commit::delete(key.clone()).expecting(other.clone(), Expect::At(0))).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// The writes of one commit are at one revision and in one batch, or nowhere.
pub async fn all_or_nothing(store: &dyn Store) {
    let keys = [fresh(Kind::Upstreams), fresh(Kind::Services), fresh(Kind::Routes)];
    let writes = || keys.iter().map(|key| put(key, "{}")).collect();
    let refused = Commit { expect: vec![(keys[2].clone(), Expect::Present)], writes: writes() };
    let start = store.snapshot().await.unwrap().revision;
    conflict(store.commit(refused).await, &keys[2]);
    for key in &keys {
        assert_eq!(store.get(key).await.unwrap(), None);
    }
    let done = store.commit(Commit { expect: vec![], writes: writes() }).await.unwrap();
    for key in &keys {
        assert_eq!(store.get(key).await.unwrap().unwrap().modified, done);
    }
    let mut watch = store.watch(start).await.unwrap();
    let batch = until(&mut watch, |batch| touches(batch, &keys[0])).await;
    assert_eq!(batch.revision, done);
    assert!(keys.iter().all(|key| touches(&batch, key)), "{batch:?}");
}

/// A deleted key is gone, says so to watchers, and what comes back under its name is new.
pub async fn deletes_and_creates_anew(store: &dyn Store) {
    let key = fresh(Kind::Routes);
    let first = store.commit(Commit::put(key.clone(), "{}")).await.unwrap();
    let deleted = store.commit(Commit::delete(key.clone())).await.unwrap();
    assert!(deleted > first);
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.snapshot().await.unwrap().get(&key), None);
    assert_eq!(find(&store.list(Kind::Routes).await.unwrap(), &key), None);

    let again = store.commit(Commit::put(key.clone(), "{}")).await.unwrap();
    let found = store.get(&key).await.unwrap().unwrap();
    assert_eq!((found.created, found.modified), (again, again));

    let mut watch = store.watch(first).await.unwrap();
    let batch = until(&mut watch, |batch| touches(batch, &key)).await;
    assert_eq!(batch, Batch { revision: deleted, changes: vec![Change::Delete(key.clone())] });
    let batch = until(&mut watch, |batch| touches(batch, &key)).await;
    assert_eq!(batch, Batch { revision: again, changes: vec![Change::Put(found)] });
}

/// Several writes to one key in one commit are the last of them.
pub async fn the_last_write_to_a_key_counts(store: &dyn Store) {
    let (kept, gone) = (fresh(Kind::Routes), fresh(Kind::Routes));
    let delete = |key: &Key| Write::Delete { key: key.clone() };
    let writes = vec![put(&kept, "1"), put(&gone, "1"), delete(&kept), delete(&gone), put(&kept, "2")];
    store.commit(Commit { expect: vec![], writes }).await.unwrap();
    assert_eq!(&*store.get(&kept).await.unwrap().unwrap().value, "2");
    assert_eq!(store.get(&gone).await.unwrap(), None);
}

/// Deleting what is not there is no change; writing the same text again is one.
pub async fn nothing_changed_no_revision(store: &dyn Store) {
    let key = fresh(Kind::Protos);
    let first = store.commit(Commit::put(key.clone(), "{}")).await.unwrap();
    assert!(store.commit(Commit::delete(fresh(Kind::Protos))).await.unwrap() >= first);
    assert!(store.commit(Commit::default().expecting(key.clone(), Expect::Present)).await.unwrap() >= first);
    conflict(store.commit(Commit::default().expecting(key.clone(), Expect::Absent)).await, &key);
    let again = store.commit(Commit::put(key.clone(), "{}")).await.unwrap();
    assert!(again > first);
    assert_eq!(store.get(&key).await.unwrap().unwrap().modified, again);
}

/// A list is of one kind, by id; credentials are not consumers though their keys begin alike.
pub async fn lists_by_kind_and_id(store: &dyn Store) {
    let base = fresh(Kind::Consumers).id;
    let ids = |names: &[&str]| -> Vec<String> { names.iter().map(|name| format!("{base}{name}")).collect() };
    let put_all = |kind, ids: Vec<String>| Commit {
        expect: vec![],
        writes: ids.into_iter().map(|id| put(&Key::new(kind, id), "{}")).collect(),
    };
    store.commit(put_all(Kind::Consumers, ids(&["b", "a-", "a", "a0", "B"]))).await.unwrap();
    store.commit(put_all(Kind::Credentials, ids(&["a/credentials/2", "a/credentials/1"]))).await.unwrap();
    store.commit(put_all(Kind::Secrets, ids(&["/vault"]))).await.unwrap();
    for (kind, expected) in [
        (Kind::Consumers, ids(&["B", "a", "a-", "a0", "b"])),
        (Kind::Credentials, ids(&["a/credentials/1", "a/credentials/2"])),
        (Kind::Secrets, ids(&["/vault"])),
    ] {
        let listed = store.list(kind).await.unwrap();
        assert!(listed.iter().all(|resource| resource.key.kind == kind));
        let of = |resources: Vec<Arc<Resource>>| -> Vec<String> {
            resources.iter().map(|r| r.key.id.to_string()).filter(|id| id.starts_with(&*base)).collect()
        };
        assert_eq!(of(listed), expected);
        assert_eq!(of(store.snapshot().await.unwrap().of(kind).cloned().collect()), expected);
    }
}

/// Ids and values are text of any kind, and come back byte by byte.
pub async fn odd_ids_and_values(store: &dyn Store) {
    let base = fresh(Kind::Routes).id;
    for (id, value) in
        [("über-路由-🦀", "{\"n\":\"é\u{0}\\n\"}"), ("a b%2F:?#[]@!$&'()*+,;=", ""), (".", " {} ")]
    {
        let key = Key::new(Kind::Routes, format!("{base}{id}"));
        store.commit(Commit::put(key.clone(), value)).await.unwrap();
        assert_eq!(&*store.get(&key).await.unwrap().unwrap().value, value, "{key}");
        assert_eq!(&*store.snapshot().await.unwrap().get(&key).unwrap().value, value, "{key}");
    }
}

/// A value of a megabyte, by every road.
pub async fn big_values(store: &dyn Store) {
    let key = fresh(Kind::Protos);
    let value: Arc<str> = "x".repeat(1 << 20).into();
    let start = store.snapshot().await.unwrap().revision;
    store.commit(Commit::put(key.clone(), value.clone())).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
    assert_eq!(store.snapshot().await.unwrap().get(&key).unwrap().value, value);
    let mut watch = store.watch(start).await.unwrap();
    let batch = until(&mut watch, |batch| touches(batch, &key)).await;
    assert!(matches!(&batch.changes[..], [Change::Put(resource)] if resource.value == value));
    store.commit(Commit::delete(key)).await.unwrap();
}

/// As many writes in one commit as a whole configuration has.
pub async fn many_writes_at_once(store: &dyn Store) {
    const MANY: usize = 1000;
    let base = fresh(Kind::Upstreams).id;
    let keys: Vec<Key> = (0..MANY).map(|n| Key::new(Kind::Upstreams, format!("{base}{n:04}"))).collect();
    let writes = keys.iter().map(|key| put(key, "{}")).collect();
    let done = store.commit(Commit { expect: vec![], writes }).await.unwrap();
    let written = store
        .snapshot()
        .await
        .unwrap()
        .iter()
        .filter(|r| r.key.id.starts_with(&*base) && r.modified == done)
        .count();
    assert_eq!(written, MANY);
    let writes = keys.iter().map(|key| Write::Delete { key: key.clone() }).collect();
    store.commit(Commit { expect: vec![], writes }).await.unwrap();
    assert!(!store.list(Kind::Upstreams).await.unwrap().iter().any(|r| r.key.id.starts_with(&*base)));
}

/// A watch gives every batch after its revision, the past and what comes, each once, in order.
pub async fn watches_from_any_revision(store: &dyn Store) {
    let key = fresh(Kind::Routes);
    let mut revisions = vec![];
    for n in 0..5 {
        revisions.push(store.commit(Commit::put(key.clone(), n.to_string())).await.unwrap());
    }
    let mut watches = vec![];
    for from in 0..revisions.len() {
        watches.push((from, store.watch(revisions[from]).await.unwrap()));
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

/// Of those who read the same and write, one wins; a counter counts them all.
pub async fn one_of_many_committers_wins(store: &dyn Store) {
    const WRITERS: usize = 8;
    const TIMES: usize = 5;
    let key = fresh(Kind::PluginMetadata);
    let first = store.commit(Commit::put(key.clone(), "0")).await.unwrap();
    let race = (0..WRITERS).map(|n| {
        store.commit(Commit::put(key.clone(), format!("0 by {n}")).expecting(key.clone(), Expect::At(first)))
    });
    let won = future::join_all(race).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);

    store.commit(Commit::put(key.clone(), "0")).await.unwrap();
    let count = async |_| {
        let mut left = TIMES;
        while left > 0 {
            let old = store.get(&key).await.unwrap().unwrap();
            let new = old.value.parse::<usize>().unwrap() + 1;
            let commit =
                Commit::put(key.clone(), new.to_string()).expecting(key.clone(), Expect::At(old.modified));
            match store.commit(commit).await {
                Ok(_) => left -= 1,
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    future::join_all((0..WRITERS).map(count)).await;
    assert_eq!(&*store.get(&key).await.unwrap().unwrap().value, (WRITERS * TIMES).to_string());
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

fn fresh(kind: Kind) -> Key {
    Key::new(kind, uuid::Uuid::new_v4().simple().to_string())
}

fn put(key: &Key, value: &str) -> Write {
    Write::Put { key: key.clone(), value: value.into(), ttl: None }
}

fn resource(key: &Key, value: &str, created: u64, modified: u64) -> Resource {
    Resource { key: key.clone(), value: value.into(), created, modified }
}

fn find<'a>(resources: &'a [Arc<Resource>], key: &Key) -> Option<&'a Resource> {
    resources.iter().map(|resource| &**resource).find(|resource| resource.key == *key)
}

#[track_caller]
fn conflict(result: Result<u64, Error>, on: &Key) {
    assert!(
        matches!(&result, Err(Error::Conflict { key }) if key == on),
        "{result:?}, not a conflict on {on}"
    );
}

fn touches(batch: &Batch, key: &Key) -> bool {
    batch.changes.iter().any(|change| match change {
        Change::Put(resource) => resource.key == *key,
        Change::Delete(deleted) => deleted == key,
    })
}

async fn next(watch: &mut BoxStream<'static, Result<Batch, Error>>) -> Batch {
    timeout(PATIENCE, watch.next()).await.expect("a batch in time").expect("a watch goes on").unwrap()
}

async fn until(
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

fn apply(snapshot: &mut Snapshot, batch: Batch) {
    for change in batch.changes {
        match change {
            Change::Put(resource) => snapshot.put_shared(resource),
            Change::Delete(key) => assert!(snapshot.delete(&key), "{key} is deleted once"),
        }
    }
    snapshot.revision = batch.revision;
}

#[track_caller]
fn same(followed: &Snapshot, taken: &Snapshot) {
    assert!(followed.iter().eq(taken.iter()), "batches up to {} do not lead to the snapshot", taken.revision);
}
