//! What every store does: one suite, run over all of them, and over our own etcd interface.
//!
//! The rule to know: a case asks only what [`Store`] promises, and works in ids of its own, so that it passes on a
//! store with other content and other writers.
#![allow(clippy::unwrap_used, reason = "it is a test: a panic is its way to fail")]

mod tools;
mod watching;

use std::sync::Arc;

use futures_util::future;
use model::{Change, Key, Kind, Resource};

use crate::{Batch, Commit, Error, Expect, Store, Write};
use tools::{conflict, find, fresh, put, resource, touches, until};

pub use watching::{
    forgets, never_watches_a_future, time_to_live, watch_and_snapshot_agree, watches_from_any_revision,
};

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
    conflict(&store.commit(put("0", Expect::Present)).await, &key);
    conflict(&store.commit(put("0", Expect::At(1))).await, &key);
    let first = store.commit(put("1", Expect::Absent)).await.unwrap();
    conflict(&store.commit(put("0", Expect::Absent)).await, &key);
    let second = store.commit(put("2", Expect::At(first))).await.unwrap();
    conflict(&store.commit(put("0", Expect::At(first))).await, &key);
    store.commit(put("3", Expect::Present)).await.unwrap();

    let both = put("0", Expect::Present).expecting(other.clone(), Expect::Present);
    conflict(&store.commit(both).await, &other);
    let elsewhere = Commit::delete(key.clone()).expecting(other.clone(), Expect::At(second));
    conflict(&store.commit(elsewhere).await, &other);
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
    conflict(&store.commit(refused).await, &keys[2]);
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
    conflict(&store.commit(Commit::default().expecting(key.clone(), Expect::Absent)).await, &key);
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
    let writes: Vec<Write> = keys.iter().map(|key| put(key, "{}")).collect();
    let expect = |expect| keys.iter().map(|key| (key.clone(), expect)).collect::<Vec<_>>();
    let other = fresh(Kind::Upstreams);
    let mut broken = Commit { expect: expect(Expect::Absent), writes: writes.clone() };
    broken.expect.push((other.clone(), Expect::Present));
    conflict(&store.commit(broken).await, &other);
    assert_eq!(store.get(&keys[0]).await.unwrap(), None);
    let done = store.commit(Commit { expect: expect(Expect::Absent), writes }).await.unwrap();
    let written = store
        .snapshot()
        .await
        .unwrap()
        .iter()
        .filter(|r| r.key.id.starts_with(&*base) && r.modified == done)
        .count();
    assert_eq!(written, MANY);
    let writes = keys.iter().map(|key| Write::Delete { key: key.clone() }).collect();
    conflict(&store.commit(Commit { expect: expect(Expect::At(done - 1)), writes: vec![] }).await, &keys[0]);
    store.commit(Commit { expect: expect(Expect::At(done)), writes }).await.unwrap();
    assert!(!store.list(Kind::Upstreams).await.unwrap().iter().any(|r| r.key.id.starts_with(&*base)));
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
