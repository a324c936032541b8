//! What a data plane is given to serve, with real parts: an etcd behind a bad network, a backup in a folder, a disk.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::Utc;
use model::{Instance, Key, Kind, Resource, Snapshot};
use store::{
    Commit, Etcd, Store, Write,
    backup::{self, Buckets, Publication, Trust},
    bucket,
    source::{
        Apply, Authority, Config, Handle, Origin, Status, Update, digest::Digest, disk, etcd as cp,
        failover::Marks, start,
    },
};
use testkit::{
    ports,
    proxy::{FaultProxy, Faults},
    servers::etcd,
    wait::{eventually, expect},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the contract grants beyond the grace.
const SLACK: Duration = Duration::from_millis(500);

/// A data plane that compiles nothing, and remembers what it was given.
#[derive(Default)]
struct Plane {
    applied: Mutex<Vec<(Instant, Update)>>,
    refuses: Mutex<Option<&'static str>>,
}

#[async_trait]
impl Apply for Plane {
    async fn apply(&self, update: &Update) -> Result<(), String> {
        let refuses = *self.refuses.lock().unwrap();
        if let Some(reason) = refuses {
            assert_ne!(reason, "panic", "a compile that panics");
            return Err(reason.to_owned());
        }
        self.applied.lock().unwrap().push((Instant::now(), update.clone()));
        Ok(())
    }
}

impl Plane {
    fn count(&self) -> usize {
        self.applied.lock().unwrap().len()
    }

    fn first(&self) -> Instant {
        self.applied.lock().unwrap()[0].0
    }

    fn last(&self) -> Update {
        self.applied.lock().unwrap().last().unwrap().1.clone()
    }
}

fn route(id: usize, value: &str) -> Resource {
    Resource {
        key: Key::new(Kind::Routes, id.to_string()),
        value: format!("{{\"id\":\"{id}\",\"uri\":\"{value}\"}}").into(),
        created: 0,
        modified: 0,
    }
}

fn snapshot(store: &str, revision: u64, routes: usize) -> Snapshot {
    let mut snapshot = Snapshot::new(store, revision);
    (0..routes).for_each(|id| snapshot.put(route(id, &format!("/{revision}"))));
    snapshot
}

/// The backup of one group in a folder.
struct Backup {
    dir: tempfile::TempDir,
    buckets: Buckets,
}

impl Backup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let buckets = buckets(dir.path());
        Self { dir, buckets }
    }

    async fn publish(&self, snapshot: &Snapshot, note: Option<&str>) -> u64 {
        let publication = Publication {
            group: "default",
            snapshot,
            instance: &Instance { config_version: 1, ..Instance::default() },
            writer: "test",
            signing: None,
            expected_head: None,
            floor: 0,
            note: note.map(str::to_owned),
        };
        backup::publish(&self.buckets, &publication).await.unwrap().sequence
    }

    fn config(&self) -> store::source::bucket::Config {
        store::source::bucket::Config {
            buckets: vec![self.buckets.clone()],
            trust: Trust::default(),
            poll_interval: Duration::from_millis(100),
        }
    }

    fn manifest(&self) -> std::path::PathBuf {
        self.dir.path().join("config/keelgate/default/manifest.json")
    }
}

fn buckets(dir: &Path) -> Buckets {
    let local = bucket::Local { config_dir: dir.join("config"), resource_dir: Some(dir.join("resource")) };
    for dir in [&local.config_dir, local.resource_dir.as_ref().unwrap()] {
        std::fs::create_dir_all(dir).unwrap();
    }
    Buckets::open(bucket::Config::Local(local)).unwrap()
}

fn control_plane(url: &str, fallback: Option<&Backup>) -> Authority {
    let etcd = cp::Config {
        hosts: vec![url.to_owned()],
        prefix: "/apisix".to_owned(),
        timeout: Duration::from_secs(10),
        user: None,
        tls: cp::Tls::default(),
        node: cp::Node::default(),
    };
    Authority::ControlPlane { etcd, fallback: fallback.map(Backup::config) }
}

/// A started source. Times are the defaults' but for one: nobody waits half a minute in a test.
struct Rig {
    plane: Arc<Plane>,
    handle: Handle,
    started: Instant,
}

impl Rig {
    fn start(authority: Authority, with: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("default", authority);
        config.fallback_after = Duration::from_secs(1);
        with(&mut config);
        let plane = Arc::new(Plane::default());
        let started = Instant::now();
        Self { handle: start(config, plane.clone()), plane, started }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        eventually(PATIENCE, what, async || {
            let status = self.handle.status();
            if holds(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    async fn serves(&self, origin: Origin, revision: u64) -> Status {
        self.until(&format!("revision {revision} from {origin}"), |status| {
            status.source == Some(origin) && status.revision == revision
        })
        .await
    }
}

async fn open(cluster: &etcd::Etcd) -> Etcd {
    let config = store::etcd::Config { hosts: cluster.endpoints(), ..store::etcd::Config::default() };
    Etcd::open(config).await.unwrap()
}

async fn put(store: &Etcd, id: usize, value: &str) -> u64 {
    let route = route(id, value);
    store.commit(Commit::put(route.key, route.value)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_a_control_plane_and_passes_each_change_on_at_once() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    let revision = put(&store, 1, "/a").await;
    let rig = Rig::start(control_plane(&cluster.endpoint(0), None), |_| {});
    let status = rig.serves(Origin::ControlPlane, revision).await;
    assert!(status.cp.connected && status.ready && status.age_s == Some(0));
    // An etcd takes no heartbeats, each version in its own way: nothing to complain of, or to wait for.
    assert_eq!(status.cp.last_error, None);
    assert_eq!(status.store_id, store.store_id());
    let mut times = Vec::new();
    for n in 0..50 {
        let seen = rig.plane.count();
        put(&store, 2, &format!("/{n}")).await;
        let written = Instant::now();
        eventually(PATIENCE, "the change", async || expect(rig.plane.count() > seen, seen)).await;
        let (at, update) = rig.plane.applied.lock().unwrap().last().cloned().unwrap();
        assert_eq!(
            &*update.snapshot.get(&Key::new(Kind::Routes, "2")).unwrap().value,
            &*route(2, &format!("/{n}")).value
        );
        times.push(at.saturating_duration_since(written));
    }
    times.sort();
    assert!(times[25] < Duration::from_millis(10), "median from commit to apply: {:?}", times[25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_quick_changes_are_applied_as_few() {
    struct Slow(Plane);
    #[async_trait]
    impl Apply for Slow {
        async fn apply(&self, update: &Update) -> Result<(), String> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.0.apply(update).await
        }
    }
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    let slow = Arc::new(Slow(Plane::default()));
    let handle = start(Config::new("default", control_plane(&cluster.endpoint(0), None)), slow.clone());
    let mut newest = 0;
    for id in 0..500 {
        newest = put(&store, id, "/").await;
    }
    eventually(PATIENCE, "the last change", async || expect(handle.status().revision == newest, newest))
        .await;
    assert_eq!(slow.0.last().snapshot.len(), 500);
    assert!(slow.0.count() < 250, "{} compiles", slow.0.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_control_plane_is_survived_and_followed_again() {
    let mut cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    put(&store, 1, "/a").await;
    let rig = Rig::start(control_plane(&cluster.endpoint(0), None), |_| {});
    rig.until("a first snapshot", |status| status.ready).await;
    cluster.kill9(0);
    let status = rig.until("the cut to be noticed", |status| !status.cp.connected).await;
    assert!(status.ready && status.source == Some(Origin::ControlPlane));
    assert!(status.cp.last_error.is_some());
    cluster.restart(0).await;
    let revision = put(&store, 1, "/b").await;
    rig.serves(Origin::ControlPlane, revision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_noticed_and_survived() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    put(&store, 1, "/a").await;
    let network = FaultProxy::start(cluster.address(0));
    let rig = Rig::start(control_plane(&network.url(""), None), |_| {});
    rig.until("a first snapshot", |status| status.ready).await;
    network.black_hole();
    rig.until("the silence to be noticed", |status| !status.cp.connected).await;
    let revision = put(&store, 1, "/b").await;
    network.heal();
    rig.serves(Origin::ControlPlane, revision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_history_is_read_afresh() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    put(&store, 1, "/a").await;
    let network = FaultProxy::start(cluster.address(0));
    let rig = Rig::start(control_plane(&network.url(""), None), |_| {});
    rig.until("a first snapshot", |status| status.ready).await;
    network.kill();
    rig.until("the cut to be noticed", |status| !status.cp.connected).await;
    store.commit(Commit::delete(route(1, "").key)).await.unwrap();
    put(&store, 2, "/b").await;
    let revision = put(&store, 3, "/c").await;
    cluster.ctl(&["compact", &revision.to_string()]);
    network.heal();
    let status = rig.serves(Origin::ControlPlane, revision).await;
    assert_eq!(status.resources, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_returns_empty_is_held_until_accepted() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    let writes =
        (0..10).map(|id| route(id, "/a")).map(|r| Write::Put { key: r.key, value: r.value, ttl: None });
    store.commit(Commit { writes: writes.collect(), ..Commit::default() }).await.unwrap();
    let network = FaultProxy::start(cluster.address(0));
    let data = tempfile::tempdir().unwrap();
    let rig = Rig::start(control_plane(&network.url(""), None), |config| {
        config.data_dir = Some(data.path().into());
    });
    rig.until("ten routes", |status| status.resources == 10).await;
    network.kill();
    rig.until("the cut to be noticed", |status| !status.cp.connected).await;
    cluster.ctl(&["del", "--prefix", "/apisix"]);
    cluster.ctl(&["put", "/apisix/keelgate/store_id", "another"]);
    network.heal();
    let status = rig.until("the hold", |status| status.held.is_some()).await;
    assert_eq!((status.resources, status.held.unwrap().reason), (10, "empty"));
    // It is held just so by a data plane that starts now, and knows the old one from its disk alone.
    rig.handle.stop().await;
    let plane = control_plane(&network.url(""), None);
    let rig = Rig::start(plane, |config| config.data_dir = Some(data.path().into()));
    let status = rig.until("the hold", |status| status.held.is_some() && status.ready).await;
    assert_eq!((status.resources, status.source), (10, Some(Origin::Disk)));
    let held = rig.handle.accept().await.unwrap();
    assert_eq!(&*held.offered.store_id, "another");
    let status = rig.handle.status();
    assert_eq!((status.resources, status.source, status.held), (0, Some(Origin::ControlPlane), None));
    assert!(rig.handle.accept().await.is_err());
    // What comes now from the store that was accepted is followed.
    put(&store, 1, "/b").await;
    rig.until("one route", |status| status.resources == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_data_plane_starts_from_the_backup_within_the_grace() {
    let backup = Backup::new();
    backup.publish(&snapshot("a", 7, 10), None).await;
    // Nobody listens.
    let dead = format!("http://127.0.0.1:{}", ports::free());
    // Somebody listens and says nothing.
    let network = FaultProxy::start(([127, 0, 0, 1], ports::free()).into());
    network.black_hole();
    for (url, least) in [(network.url(""), Duration::from_secs(3)), (dead, Duration::from_secs(1))] {
        let rig = Rig::start(control_plane(&url, Some(&backup)), |_| {});
        let status = rig.serves(Origin::Bucket, 7).await;
        let took = rig.plane.first() - rig.started;
        assert!(took >= least && took < least + SLACK, "{took:?} after {url}");
        assert_eq!((status.sequence, status.resources, status.ready), (Some(1), 10, true));
        assert!(rig.plane.last().instance.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cut_off_takes_what_is_newer_in_the_backup_and_returns() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    put(&store, 1, "/a").await;
    let backup = Backup::new();
    backup.publish(&store.snapshot().await.unwrap(), None).await;
    let network = FaultProxy::start(cluster.address(0));
    let rig = Rig::start(control_plane(&network.url(""), Some(&backup)), |_| {});
    rig.until("a first snapshot", |status| status.source == Some(Origin::ControlPlane)).await;
    network.kill();
    let polled = rig
        .until("the backup to be asked", |status| status.bucket.last_poll.is_some() && !status.cp.connected);
    assert_eq!(polled.await.source, Some(Origin::ControlPlane), "there is nothing newer");
    let revision = put(&store, 1, "/b").await;
    backup.publish(&store.snapshot().await.unwrap(), None).await;
    let status = rig.serves(Origin::Bucket, revision).await;
    let digest = status.digest;
    network.heal();
    let status = rig.serves(Origin::ControlPlane, revision).await;
    assert_eq!(status.digest, digest, "equal resources, whichever road they took");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_else_gone_a_restarted_data_plane_serves_from_disk() {
    let data = tempfile::tempdir().unwrap();
    let backup = Backup::new();
    let sequence = backup.publish(&snapshot("a", 7, 10), None).await;
    let dead = format!("http://127.0.0.1:{}", ports::free());
    let keep = |config: &mut Config| config.data_dir = Some(data.path().into());
    let rig = Rig::start(control_plane(&dead, Some(&backup)), keep);
    rig.serves(Origin::Bucket, 7).await;
    rig.handle.stop().await;
    std::fs::remove_dir_all(backup.dir.path()).unwrap();
    let rig = Rig::start(control_plane(&dead, Some(&backup)), keep);
    let status = rig.serves(Origin::Disk, 7).await;
    assert!(rig.plane.first() - rig.started < Duration::from_secs(3) + SLACK);
    assert_eq!((status.sequence, status.resources), (Some(sequence), 10));
    assert!(rig.plane.last().instance.is_some());
    // A backup from before what was served is a replay, even after restarts.
    rig.handle.stop().await;
    let replay = Backup::new();
    replay.publish(&snapshot("a", 5, 10), None).await;
    let later = Backup::new();
    for revision in 5..8 {
        later.publish(&snapshot("a", revision, 10), None).await;
    }
    later.publish(&snapshot("a", 8, 11), None).await;
    let rig = Rig::start(control_plane(&dead, Some(&replay)), keep);
    rig.serves(Origin::Disk, 7).await;
    let rig = Rig::start(control_plane(&dead, Some(&later)), keep);
    rig.serves(Origin::Bucket, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_alone_follows_its_backup_through_damage() {
    let backup = Backup::new();
    backup.publish(&snapshot("a", 7, 10), None).await;
    let rig = Rig::start(Authority::Bucket(backup.config()), |_| {});
    rig.serves(Origin::Bucket, 7).await;
    backup.publish(&snapshot("a", 8, 3), None).await;
    rig.serves(Origin::Bucket, 8).await;
    let whole = std::fs::read(backup.manifest()).unwrap();
    for damage in [&whole[..whole.len() / 2], b"", b"{}", &[0; 100_000]] {
        std::fs::write(backup.manifest(), damage).unwrap();
        rig.until("the damage to be noticed", |status| status.bucket.last_error.is_some()).await;
        let status = rig.handle.status();
        assert_eq!((status.revision, status.ready), (8, true));
        std::fs::write(backup.manifest(), &whole).unwrap();
        rig.until("the repair to be noticed", |status| status.bucket.last_error.is_none()).await;
    }
    // The operator goes back on purpose.
    backup.publish(&snapshot("a", 7, 10), Some("restored")).await;
    rig.serves(Origin::Bucket, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_is_that_of_the_last_confirmation() {
    let backup = Backup::new();
    backup.publish(&snapshot("a", 7, 10), None).await;
    let long_ago = Utc::now() - chrono::TimeDelta::hours(30);
    backup::renew(&backup.buckets, "default", long_ago, None).await.unwrap();
    let rig = Rig::start(Authority::Bucket(backup.config()), |_| {});
    let status = rig.until("a stale snapshot", |status| status.ready && status.stale).await;
    assert!(status.age_s.unwrap() >= 30 * 3600);
    backup::renew(&backup.buckets, "default", Utc::now(), None).await.unwrap();
    rig.until("the renewal", |status| !status.stale && status.age_s.unwrap() < 60).await;
    assert_eq!(rig.plane.count(), 1, "a renewal changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_goes_on_with_what_is_served() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    put(&store, 1, "/a").await;
    let before = Rig::start(control_plane(&cluster.endpoint(0), None), |_| {});
    before.until("a first snapshot", |status| status.ready).await;
    let resume = before.handle.current();
    let backup = Backup::new();
    let after = Rig::start(Authority::Bucket(backup.config()), |config| config.resume = resume);
    let status = after.handle.status();
    assert_eq!((status.resources, status.source, status.ready), (1, Some(Origin::Disk), true));
    before.handle.stop().await;
    backup.publish(&store.snapshot().await.unwrap(), None).await;
    after.until("the backup", |status| status.source == Some(Origin::Bucket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_leaves_the_old_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apisix.yaml");
    let write =
        |id: u64| std::fs::write(&path, format!("routes:\n  - id: {id}\n    uri: /{id}\n#END\n")).unwrap();
    write(1);
    let rig = Rig::start(Authority::File(path.clone()), |_| {});
    let first = rig.until("the file", |status| status.source == Some(Origin::File)).await;
    for (id, reason) in [(20, "it does not compile"), (300, "panic")] {
        *rig.plane.refuses.lock().unwrap() = Some(reason);
        write(id);
        let refused = rig.until("the refusal", |status| status.last_error.is_some()).await;
        assert_eq!((refused.digest, refused.ready), (first.digest.clone(), true));
        *rig.plane.refuses.lock().unwrap() = None;
        write(id + 1);
        rig.until("the next one", |status| status.last_error.is_none() && status.digest != first.digest)
            .await;
        write(1);
        rig.until("the first", |status| status.digest == first.digest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_network_does_it_ends_with_what_the_store_has() {
    let cluster = etcd::Etcd::single().await;
    let store = open(&cluster).await;
    let network = FaultProxy::start(cluster.address(0));
    let rig = Rig::start(control_plane(&network.url(""), None), |_| {});
    for n in 0..40 {
        let cut =
            |after| Faults { cut_response_after: Some(after), by_reset: n % 2 == 0, ..Faults::default() };
        match n % 5 {
            0 => network.kill(),
            1 => network.set(cut(100 * n as u64)),
            2 => network.set(Faults { delay: Duration::from_millis(20), ..Faults::default() }),
            3 => network.reset(),
            _ => network.heal(),
        }
        for id in n..n + 5 {
            put(&store, id, &format!("/{n}")).await;
        }
        store.commit(Commit::delete(route(n, "").key)).await.unwrap();
    }
    network.heal();
    let expected = store.snapshot().await.unwrap();
    let digest = Digest::of(&expected).to_string();
    let status = rig.until("what the store has", |status| *status.digest == *digest).await;
    assert_eq!(status.revision, expected.revision);
    let applied = rig.plane.applied.lock().unwrap();
    assert!(applied.is_sorted_by_key(|(_, update)| update.snapshot.revision), "it went back");
    for (_, update) in applied.iter() {
        assert_eq!(update.digest, Digest::of(&update.snapshot).to_string());
    }
}

/// The process that is killed below: it keeps one generation after the other, and says when each is safe.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os("KEELGATE_TEST_WRITER") else { return };
    let folder = disk::Folder::new(Path::new(&dir), "default");
    let from = folder.read().unwrap().map_or(0, |update| update.snapshot.revision);
    for revision in from + 1.. {
        let snapshot = snapshot("a", revision, 200);
        let update = Update {
            digest: Digest::of(&snapshot).to_string(),
            snapshot,
            instance: None,
            origin: Origin::Bucket,
            sequence: Some(revision),
            rejected: vec![],
            verified_at: None,
            by_hand: false,
        };
        folder
            .write(&disk::Kept {
                update: Arc::new(update),
                marks: Marks { sequence: Some(revision), ..Marks::default() },
            })
            .unwrap();
        println!("\nsafe {revision}");
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_what_it_called_safe() {
    let dir = tempfile::tempdir().unwrap();
    let folder = disk::Folder::new(dir.path(), "default");
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env("KEELGATE_TEST_WRITER", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut safe = lines.filter_map(|line| line.strip_prefix("safe ")?.parse::<u64>().ok());
        let mut last = safe.next().unwrap();
        // Somewhere within the next write.
        std::thread::sleep(Duration::from_micros(300 * round));
        child.kill().unwrap();
        last = safe.last().unwrap_or(last);
        child.wait().unwrap();
        let kept = folder.read().unwrap().unwrap();
        assert!(kept.snapshot.revision >= last, "{} was safe, {} is there", last, kept.snapshot.revision);
        assert_eq!(kept.digest, Digest::of(&snapshot("a", kept.snapshot.revision, 200)).to_string());
        assert!(folder.marks().sequence >= Some(last));
    }
}
