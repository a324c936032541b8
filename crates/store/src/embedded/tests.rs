use std::{
    io::{BufRead, BufReader},
    os::unix::fs::{FileExt, PermissionsExt},
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt;
use model::Change;
use rand::Rng;

use super::*;
use crate::{Expect, Write, suite};

fn key(id: impl Into<Arc<str>>) -> Key {
    Key::new(Kind::Routes, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    suite::run(Arc::new(Embedded::open(dir.path()).unwrap())).await;
    suite::forgets(&Embedded::open_with(dir.path(), 10).unwrap(), 1).await;
}

#[tokio::test]
async fn a_restart_changes_nothing_but_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    for n in 0..100 {
        store.commit(Commit::put(key(format!("{}", n % 7)), format!("{n}"))).await.unwrap();
    }
    store.commit(Commit::delete(key("3"))).await.unwrap();
    let before = store.snapshot().await.unwrap();
    let mut watch = store.watch(before.revision).await.unwrap();
    drop(store);
    assert!(
        matches!(watch.next().await, Some(Err(Error::Unavailable { .. }))),
        "a watch ends with its store"
    );

    let store = Embedded::open(dir.path()).unwrap();
    let after = store.snapshot().await.unwrap();
    assert_eq!((after.revision, &after.store_id), (before.revision, &before.store_id));
    assert!(after.iter().eq(before.iter()));
    suite::forgets(&store, before.revision - 1).await;
    let mut watch = store.watch(before.revision).await.unwrap();
    let revision = store.commit(Commit::delete(key("1"))).await.unwrap();
    assert_eq!(revision, before.revision + 1);
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch, Batch { revision, changes: vec![Change::Delete(key("1"))] });
}

#[tokio::test]
async fn what_was_due_during_a_stop_is_deleted_by_a_batch_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let write = Write::Put { key: key("1"), value: "{}".into(), ttl: Some(1) };
    let revision = store.commit(Commit { expect: vec![], writes: vec![write] }).await.unwrap();
    drop(store);
    let store = Embedded::open(dir.path()).unwrap();
    let mut watch = store.watch(revision).await.unwrap();
    let batch = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert_eq!(batch.unwrap().unwrap().changes, [Change::Delete(key("1"))]);
    assert_eq!(store.get(&key("1")).await.unwrap(), None);
    drop(store);
    assert!(Embedded::open(dir.path()).unwrap().snapshot().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_process_at_a_time_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let store = Embedded::open(&path).unwrap();
    let second = Embedded::open(&path).err().unwrap();
    assert!(matches!(second, Error::Unavailable { .. }));
    let text = second.to_string();
    assert!(text.contains("store.redb") && text.contains("another process"), "{text}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("store.redb"))), (0o700, 0o600));
    drop(store);
    Embedded::open(&path).unwrap();
}

#[tokio::test]
async fn commits_that_wait_together_are_written_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let commits = (0..500).map(|n| store.commit(Commit::put(key("1"), format!("{n}"))));
    let mut revisions: Vec<u64> =
        futures_util::future::join_all(commits).await.into_iter().map(Result::unwrap).collect();
    revisions.dedup();
    assert_eq!(revisions, (2..502).collect::<Vec<_>>(), "each has its own revision, in order");
    let batches: Vec<_> = store.watch(1).await.unwrap().take(500).collect().await;
    assert_eq!(batches.len(), 500);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.redb");
    for content in ["", "no database", &"\0".repeat(1 << 20)] {
        std::fs::write(&file, content).unwrap();
        let error = Embedded::open(dir.path()).err().unwrap();
        assert!(
            matches!(&error, Error::Corrupt { what, .. } if *what == file.display().to_string()),
            "{error}"
        );
    }
}

/// Any damage is found or harms nothing.
#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    for n in 0..200 {
        store.commit(Commit::put(key(format!("{n}")), "x".repeat(300))).await.unwrap();
    }
    let whole = store.snapshot().await.unwrap();
    drop(store);
    let path = dir.path().join("store.redb");
    let good = std::fs::read(&path).unwrap();
    let mut found = 0;
    for _ in 0..150 {
        std::fs::write(&path, &good).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let at = rand::rng().random_range(0..good.len() as u64);
        match rand::rng().random_range(0..3) {
            0 => file.set_len(at).unwrap(),
            1 => file.write_all_at(&[!good[usize::try_from(at).unwrap()]], at).unwrap(),
            _ => file.write_all_at(&[0xA5; 512], at.min(good.len() as u64 - 512)).unwrap(),
        }
        match Embedded::open(dir.path()) {
            Err(Error::Corrupt { what, .. }) => {
                assert_eq!(what, path.display().to_string());
                found += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(store) => assert!(store.snapshot().await.unwrap().iter().eq(whole.iter()), "damage at {at}"),
        }
    }
    assert!(found > 10, "only {found} of 150");
}

const WRITERS: u64 = 4;

/// No acknowledged write is lost, none is half done, whenever the process dies.
#[tokio::test]
async fn survives_sigkill() {
    // More where more is asked for.
    let stores = std::env::var("KILL_STORES").ok().and_then(|stores| stores.parse().ok()).unwrap_or(4);
    let mut written = 0;
    for _ in 0..stores {
        written = written.max(survives_several().await);
    }
    assert!(written > 10, "writers came to {written} only");
}

/// Kills the writers of one store time and again, from its making on. Gives how far they came.
async fn survives_several() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (mut newest, mut written, mut store_id) = (1, 0, None);
    for round in 0..6 {
        let (acknowledged, revision) = kill_a_writer(dir.path());
        let store = Embedded::open(dir.path()).unwrap();
        let snapshot = store.snapshot().await.unwrap();
        assert!(snapshot.revision >= revision.max(newest), "round {round}: the revision went back");
        newest = snapshot.revision;
        assert_eq!(store_id.get_or_insert_with(|| store.store_id()), &store.store_id());
        for writer in 0..WRITERS {
            let value = |id: &str| snapshot.get(&key(format!("{id}{writer}"))).map(|r| r.value.clone());
            let (a, b) = (value("a"), value("b"));
            assert_eq!(a, b, "round {round}: half a commit");
            let kept: u64 = a.map_or(0, |value| value.trim_end().parse().unwrap());
            let told = acknowledged[usize::try_from(writer).unwrap()];
            assert!(kept >= told, "round {round}: {told} was acknowledged, {kept} is kept");
            written = written.max(kept);
        }
    }
    written
}

/// Runs the test below in a process of its own, kills it, and tells what it acknowledged.
fn kill_a_writer(dir: &Path) -> ([u64; WRITERS as usize], u64) {
    let mut child = writer(dir);
    let output = BufReader::new(child.stdout.take().unwrap());
    // Half of them while the store is opened, half while it is written.
    let longest = if rand::random() { 20_000 } else { 150_000 };
    let delay = Duration::from_micros(rand::rng().random_range(0..longest));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let (mut acknowledged, mut newest) = ([0; WRITERS as usize], 0);
    for line in output.lines() {
        let line = line.unwrap();
        let Some(ack) = line.strip_prefix("ack ") else { continue };
        let numbers: Vec<u64> = ack.split(' ').map(|n| n.parse().unwrap()).collect();
        acknowledged[usize::try_from(numbers[0]).unwrap()] = numbers[1];
        newest = newest.max(numbers[2]);
    }
    killer.join().unwrap();
    (acknowledged, newest)
}

fn writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::writes_until_killed", "--nocapture"])
        .env("WRITE_UNTIL_KILLED", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The other side of [`survives_sigkill`]; by itself it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn writes_until_killed() {
    let Some(dir) = std::env::var_os("WRITE_UNTIL_KILLED") else { return };
    let store = Embedded::open(Path::new(&dir)).unwrap();
    let write = async |writer: u64| {
        let keys = [key(format!("a{writer}")), key(format!("b{writer}"))];
        let mut old = store.get(&keys[0]).await.unwrap();
        loop {
            let n = old.as_ref().map_or(0, |r| r.value.trim_end().parse::<u64>().unwrap()) + 1;
            // Of all sizes, so that pages of the file come and go.
            let value = format!("{n}{}", " ".repeat(rand::rng().random_range(0..20_000)));
            let mut commit =
                Commit::default().expecting(keys[0].clone(), Expect::At(old.map_or(0, |r| r.modified)));
            commit.writes.extend(keys.iter().map(|key| Write::Put {
                key: key.clone(),
                value: value.as_str().into(),
                ttl: None,
            }));
            let revision = store.commit(commit).await.unwrap();
            println!("ack {writer} {n} {revision}");
            old = store.get(&keys[0]).await.unwrap();
        }
    };
    futures_util::future::join_all((0..WRITERS).map(write)).await;
}

/// A full disk refuses writes, loses none that was acknowledged, and is forgotten when there is room again.
#[test]
fn survives_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    // What is too much for the limit is an error instead of a signal, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -S -f 4096; exec \"$@\"";
    let output = Command::new("bash")
        .args(["-c", limited, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::writes_until_full", "--nocapture"])
        .env("WRITE_UNTIL_FULL", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("recovered"), "{output:?}");
}

/// The other side of [`survives_a_full_disk`]; by itself it does nothing.
#[tokio::test]
async fn writes_until_full() {
    let Some(dir) = std::env::var_os("WRITE_UNTIL_FULL") else { return };
    let store = Embedded::open(Path::new(&dir)).unwrap();
    let put = |n: usize| Commit::put(key(n.to_string()), "x".repeat(100_000));
    let mut acknowledged = 0;
    let error = loop {
        match store.commit(put(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "there is no limit");
    };
    assert!(matches!(&error, Error::Unavailable { store, .. } if store.ends_with("store.redb")), "{error}");
    assert!(acknowledged > 0);
    assert!(store.commit(put(acknowledged)).await.is_err());
    assert_eq!(store.snapshot().await.unwrap().len(), acknowledged, "what failed is not seen");

    let pid = std::process::id().to_string();
    let lifted = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid]).status().unwrap();
    assert!(lifted.success());
    let revision = store.commit(put(acknowledged)).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!((snapshot.len(), snapshot.revision), (acknowledged + 1, revision));
    drop(store);
    let reopened = Embedded::open(Path::new(&dir)).unwrap().snapshot().await.unwrap();
    assert!(reopened.iter().eq(snapshot.iter()));
    println!("recovered");
}
