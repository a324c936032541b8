//! The store in etcd, on real clusters that are cut off, wiped, locked and killed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use model::{Change, Key, Kind};
use store::{
    Batch, Commit, Error, Etcd, Expect, Store, Write,
    etcd::{Config, Ping, Tls},
    suite,
};
use testkit::{certs::Ca, proxy::FaultProxy, servers::etcd, wait::eventually};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(hosts: Vec<String>) -> Config {
    // Tests have no time for timeouts made for real networks.
    let ping = Ping { interval: Duration::from_secs(1), timeout: Duration::from_secs(1) };
    Config { hosts, timeout: Duration::from_secs(5), ping, ..Config::default() }
}

fn key(id: impl Into<Arc<str>>) -> Key {
    Key::new(Kind::Routes, id)
}

async fn next(watch: &mut BoxStream<'static, Result<Batch, Error>>) -> Result<Batch, Error> {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("an item in time")
        .expect("a watch ends with an error")
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let cluster = etcd::Etcd::single().await;
    let store = Arc::new(Etcd::open(config(cluster.endpoints())).await.unwrap());
    suite::run(store.clone()).await;
    let newest = store.snapshot().await.unwrap().revision;
    cluster.ctl(&["compact", &newest.to_string()]);
    suite::forgets(&*store, 1).await;
    suite::forgets(&*store, newest - 2).await;
}

#[tokio::test]
async fn passes_over_what_is_no_resource() {
    let cluster = etcd::Etcd::single().await;
    let store = Etcd::open(config(cluster.endpoints())).await.unwrap();
    let start = store.snapshot().await.unwrap().revision;
    for (key, value) in [
        ("/apisix/routes/", "init_dir"),
        ("/apisix/data_plane/server_info/1", "{}"),
        ("/apisix/keelgate/other", "x"),
        ("/apisix/unknown/1", "{}"),
        ("/apisixer/routes/1", "{}"),
        ("/apisi", "x"),
        ("/apisix/routes/1", "{}"),
    ] {
        cluster.ctl(&["put", key, value]);
    }
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.iter().map(|r| r.key.to_string()).collect::<Vec<_>>(), ["routes/1"]);
    assert_eq!(store.list(Kind::Routes).await.unwrap().len(), 1);
    let mut watch = store.watch(start).await.unwrap();
    let mut batches = vec![];
    while batches.last().is_none_or(|batch: &Batch| batch.revision < snapshot.revision) {
        batches.push(next(&mut watch).await.unwrap());
    }
    // Outside of the prefix nothing is seen at all.
    assert_eq!(batches.iter().map(|batch| batch.changes.len()).collect::<Vec<_>>(), [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_snapshot_of_many_pages_is_of_one_revision() {
    let cluster = etcd::Etcd::single().await;
    let store = Arc::new(Etcd::open(config(cluster.endpoints())).await.unwrap());
    let put =
        |n: usize, value: &str| Write::Put { key: key(format!("{n:05}")), value: value.into(), ttl: None };
    for chunk in 0..12 {
        let writes = (chunk * 1000..(chunk + 1) * 1000).map(|n| put(n, "0")).collect();
        store.commit(Commit { expect: vec![], writes }).await.unwrap();
    }
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 1.. {
                let value = n.to_string();
                // The first key and the last, which are pages apart.
                let writes = vec![put(0, &value), put(11_999, &value)];
                store.commit(Commit { expect: vec![], writes }).await.unwrap();
            }
        }
    });
    let mut seen = vec![];
    for _ in 0..8 {
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(snapshot.len(), 12_000);
        let value = |id: &str| snapshot.get(&key(id)).unwrap().value.clone();
        assert_eq!(value("00000"), value("11999"));
        seen.push(value("00000"));
    }
    writer.abort();
    seen.dedup();
    assert!(seen.len() > 1, "nothing was written meanwhile");
}

#[tokio::test]
async fn the_lineage_is_named_once_and_lost_with_the_data() {
    let lost = etcd::Etcd::single().await;
    let proxy = FaultProxy::start(lost.address(0));
    let behind = || config(vec![proxy.url("")]);
    let reader = Etcd::open_reader(behind()).await.unwrap();
    assert!(reader.store_id().starts_with("etcd:"), "{}", reader.store_id());
    let refused = reader.commit(Commit::put(key("1"), "{}")).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly(_)), "{refused}");
    let mut before = reader.watch(reader.snapshot().await.unwrap().revision).await.unwrap();

    let (one, two) = futures_util::join!(Etcd::open(behind()), Etcd::open(behind()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.store_id(), two.store_id());
    assert!(matches!(next(&mut before).await, Err(Error::Compacted { .. })), "it has a name now");
    assert_eq!(reader.snapshot().await.unwrap().store_id, one.store_id());
    assert_eq!(reader.store_id(), one.store_id());

    for n in 0..5 {
        one.commit(Commit::put(key("1"), n.to_string())).await.unwrap();
    }
    let old = one.snapshot().await.unwrap();
    let mut watch = one.watch(old.revision).await.unwrap();
    drop(lost);
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable { .. })));

    // Another cluster in its place that has come to the same revision, and further.
    let fresh = etcd::Etcd::single().await;
    let proxy = FaultProxy::start(fresh.address(0));
    let moved = Etcd::open(config(vec![proxy.url("")])).await.unwrap();
    let id = moved.store_id();
    assert_ne!(id, old.store_id);
    moved.commit(Commit::put(key("1"), "{}")).await.unwrap();
    let start = moved.snapshot().await.unwrap().revision;
    let mut watch = moved.watch(start).await.unwrap();
    fresh.ctl(&["del", "--prefix", "/apisix"]);
    assert!(matches!(next(&mut watch).await, Err(Error::Compacted { .. })), "its name is gone");
    suite::forgets(&moved, start).await;
    let renamed = moved.snapshot().await.unwrap();
    assert!(renamed.is_empty() && renamed.store_id != id);
    assert_eq!(moved.store_id(), renamed.store_id);
}

#[tokio::test]
async fn users_and_tokens() {
    let mut cluster = etcd::Etcd::single().await;
    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "add", "viewer:secret"],
        &["role", "add", "viewer"],
        &["role", "grant-permission", "viewer", "--prefix=true", "read", "/apisix/"],
        &["user", "grant-role", "viewer", "viewer"],
    ] {
        cluster.ctl(args);
    }
    let with = |name: &str, password: &str| Config {
        user: Some((name.into(), password.into())),
        ..config(cluster.endpoints())
    };
    let (root, viewer, wrong) = (with("root", "secret"), with("viewer", "secret"), with("root", "wrong"));
    let store = Etcd::open(root).await.unwrap();
    store.commit(Commit::put(key("1"), "before")).await.unwrap();
    cluster.ctl(&["auth", "enable"]);
    let start = store.commit(Commit::put(key("1"), "after")).await.unwrap();
    let mut watch = store.watch(start).await.unwrap();
    // A restarted member knows no token.
    cluster.kill9(0);
    cluster.restart(0).await;
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable { .. })));
    let revision = store.commit(Commit::put(key("1"), "restarted")).await.unwrap();
    let mut watch = store.watch(start).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);

    let reader = Etcd::open(viewer).await.unwrap();
    assert_eq!(&*reader.get(&key("1")).await.unwrap().unwrap().value, "restarted");
    assert_eq!(reader.snapshot().await.unwrap().len(), 1);
    let refused = reader.commit(Commit::put(key("1"), "no")).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly(_)), "{refused}");
    for config in [wrong, config(cluster.endpoints())] {
        let refused = Etcd::open(config).await.err().unwrap();
        assert!(matches!(refused, Error::Unavailable { .. } | Error::ReadOnly(_)), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("authentication failed") || text.contains("user name is empty"), "{text}");
    }
}

#[tokio::test]
async fn both_sides_of_tls_show_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::new("ours"), Ca::new("other"));
    let pem = ca.write(dir.path(), "ca");
    let foreign = other.write(dir.path(), "other");
    let server = ca.server(&["127.0.0.1", "localhost", "etcd.internal"]).write(dir.path(), "server");
    let client = ca.client("cp").write(dir.path(), "client");
    let cluster = etcd::Etcd::tls(etcd::Tls { server, client_ca: Some(pem.clone()) }).await;
    let identity = Some((client.cert, client.key));
    let open = async |tls: Tls| {
        Etcd::open(Config { tls, timeout: Duration::from_secs(2), ..config(cluster.endpoints()) }).await
    };
    let tls = Tls { ca: Some(pem.clone()), identity: identity.clone(), ..Tls::default() };
    let store = open(tls.clone()).await.unwrap();
    store.commit(Commit::put(key("1"), "{}")).await.unwrap();
    open(Tls { sni: Some("etcd.internal".into()), ..tls.clone() }).await.unwrap();
    open(Tls { verify: false, ca: None, ..tls.clone() }).await.unwrap();
    for (tls, says) in [
        (Tls { ca: Some(foreign), ..tls.clone() }, "certificate"),
        (Tls { ca: None, ..tls.clone() }, "certificate"),
        (Tls { sni: Some("another.internal".into()), ..tls.clone() }, "not valid for name"),
        (Tls { identity: None, ..tls.clone() }, "etcd at https"),
        (Tls { ca: Some(dir.path().join("missing.pem")), ..tls }, "missing.pem"),
    ] {
        let text = open(tls).await.err().unwrap().to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_left() {
    let mut cluster = etcd::Etcd::cluster().await;
    let silent = FaultProxy::start(cluster.address(0));
    silent.black_hole();
    let refusing = format!("http://127.0.0.1:{}", testkit::ports::free());
    let hosts = vec![silent.url(""), refusing, cluster.endpoint(1), cluster.endpoint(2)];
    let store = Etcd::open(config(hosts)).await.unwrap();
    // One member is no quorum lost, whichever host we were on.
    cluster.kill9(1);
    let get = eventually(PATIENCE, "an answer", async || store.get(&key("1")).await).await;
    assert_eq!(get, None);
    eventually(PATIENCE, "a commit", async || store.commit(Commit::put(key("1"), "{}")).await).await;

    let none = vec![format!("http://127.0.0.1:{}", testkit::ports::free())];
    let error = Etcd::open(config(none.clone())).await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable { store, .. } if store.contains(&none[0])), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_watch_notices_a_black_hole() {
    let cluster = etcd::Etcd::single().await;
    let proxy = FaultProxy::start(cluster.address(0));
    let store = Etcd::open(config(vec![proxy.url("")])).await.unwrap();
    let start = store.commit(Commit::put(key("1"), "{}")).await.unwrap();
    let mut watch = store.watch(start).await.unwrap();
    assert!(watch.next().now_or_never().is_none());
    proxy.black_hole();
    let began = Instant::now();
    let error = next(&mut watch).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(watch.next().await.is_none());

    proxy.heal();
    let direct = Etcd::open(config(cluster.endpoints())).await.unwrap();
    let missed = direct.commit(Commit::delete(key("1"))).await.unwrap();
    let mut watch =
        eventually(PATIENCE, "a watch", async || store.watch(start).await.map_err(|e| e.to_string())).await;
    let expected = Batch { revision: missed, changes: vec![Change::Delete(key("1"))] };
    assert_eq!(next(&mut watch).await.unwrap(), expected);
}

#[tokio::test]
async fn a_watch_that_is_dropped_leaves_no_connection_behind() {
    let cluster = etcd::Etcd::single().await;
    let line = FaultProxy::start(cluster.address(0));
    let store = Etcd::open(config(vec![line.url("")])).await.unwrap();
    let mut watch = store.watch(store.snapshot().await.unwrap().revision).await.unwrap();
    let revision = store.commit(Commit::put(key("1"), "{}")).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    drop((watch, store));
    eventually(PATIENCE, "the connection closed", async || match line.open() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_after_a_lost_quorum() {
    let mut cluster = etcd::Etcd::cluster().await;
    // On the member that lives: it is the one that must say that it is cut off.
    let store = Etcd::open(config(vec![cluster.endpoint(0)])).await.unwrap();
    let first = store.commit(Commit::put(key("1"), "1")).await.unwrap();
    let mut watch = store.watch(first).await.unwrap();
    let second = store.commit(Commit::put(key("1"), "2")).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, second);

    cluster.kill9(1);
    cluster.kill9(2);
    let error = next(&mut watch).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { .. }), "{error}");
    let commit = Commit::put(key("1"), "3").expecting(key("1"), Expect::At(second));
    let began = Instant::now();
    let error = store.commit(commit.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(store.snapshot().await.is_err(), "a snapshot is never of the past");

    cluster.spawn(1);
    cluster.restart(2).await;
    eventually(PATIENCE, "a commit", async || store.commit(commit.clone()).await).await;
    let mut watch = store.watch(second).await.unwrap();
    let batch = next(&mut watch).await.unwrap();
    assert!(matches!(&batch.changes[..], [Change::Put(resource)] if &*resource.value == "3"), "{batch:?}");
}

#[tokio::test]
async fn what_is_too_large_for_etcd_is_refused_whole() {
    let cluster = etcd::Etcd::single().await;
    let store = Etcd::open(config(cluster.endpoints())).await.unwrap();
    let error = store.commit(Commit::put(key("1"), "x".repeat(4 << 20))).await.unwrap_err();
    assert!(error.to_string().contains("too large") || error.to_string().contains("larger"), "{error}");
    assert_eq!(store.get(&key("1")).await.unwrap(), None);
}
