//! What the embedded store costs on this machine's disk, and a snapshot from an etcd:
//! `cargo run --profile quick -p store --example figures -- FOLDER [ETCD]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement: it prints, and fails where it can't"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use model::{Key, Kind};
use store::{Commit, Embedded, Etcd, Store, Write, etcd::Config};

const ROUTES: usize = 100_000;

#[tokio::main]
async fn main() {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).unwrap();
    commits(&folder.path().join("small")).await;
    let large = folder.path().join("large");
    let store = Embedded::open(&large).unwrap();
    fill(&store).await;
    drop(store);
    reopen(&large).await;
    commits(&large).await;
    if let Some(host) = std::env::args().nth(2) {
        let store = Etcd::open(Config { hosts: vec![host], ..Config::default() }).await.unwrap();
        fill(&store).await;
    }
}

async fn commits(folder: &Path) {
    let store = Arc::new(Embedded::open(folder).unwrap());
    println!("with {} resources:", store.snapshot().await.unwrap().len());
    for committers in [1, 8, 64] {
        let began = Instant::now();
        let commit = async |committer: usize| {
            let mut times = vec![];
            for n in 0.. {
                if began.elapsed() > Duration::from_secs(2) {
                    break;
                }
                let key = Key::new(Kind::Services, format!("{committer}-{}", n % 100));
                let start = Instant::now();
                store.commit(Commit::put(key, route(n))).await.unwrap();
                times.push(start.elapsed());
            }
            times
        };
        let mut times = join_all((0..committers).map(commit)).await.concat();
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "  {committers:3} at once: {:6.0} commits/s, median {:?}, 99 % {:?}, worst {:?}",
            times.len() as f64 / began.elapsed().as_secs_f64(),
            at(50),
            at(99),
            at(100)
        );
    }
}

async fn fill(store: &dyn Store) {
    let began = Instant::now();
    for chunk in 0..ROUTES / 1000 {
        let writes = (chunk * 1000..(chunk + 1) * 1000)
            .map(|n| Write::Put {
                key: Key::new(Kind::Routes, n.to_string()),
                value: route(n).into(),
                ttl: None,
            })
            .collect();
        store.commit(Commit { expect: vec![], writes }).await.unwrap();
    }
    println!("{ROUTES} routes written, 1000 at a time: {:?}", began.elapsed());
    let began = Instant::now();
    let snapshot = store.snapshot().await.unwrap();
    println!("a snapshot of {} resources: {:?}", snapshot.len(), began.elapsed());
}

async fn reopen(folder: &Path) {
    let began = Instant::now();
    let store = Embedded::open(folder).unwrap();
    println!("opened: {:?}", began.elapsed());
    drop(store);
    // As a killed process leaves it: a copy of the file while it is open.
    let store = Embedded::open(folder).unwrap();
    store.commit(Commit::put(Key::new(Kind::Services, "1"), "{}")).await.unwrap();
    let killed = folder.with_extension("killed");
    std::fs::create_dir(&killed).unwrap();
    std::fs::copy(folder.join("store.redb"), killed.join("store.redb")).unwrap();
    let began = Instant::now();
    let again = Embedded::open(&killed).unwrap();
    println!("opened after a kill: {:?}", began.elapsed());
    let (one, two) = (store.snapshot().await.unwrap(), again.snapshot().await.unwrap());
    assert!(two.changes_since(&one).is_empty());
}

/// About as long as a route is.
fn route(n: usize) -> String {
    format!(
        r#"{{"id":"{n}","name":"route {n}","uri":"/api/v1/{n}/*","hosts":["{n}.example.com"],"methods":["GET","POST"],"plugins":{{"limit-count":{{"count":100,"time_window":60,"rejected_code":503,"key_type":"var","key":"remote_addr"}},"key-auth":{{}}}},"upstream":{{"type":"roundrobin","nodes":{{"10.0.0.1:8080":1,"10.0.0.2:8080":1}}}},"create_time":1700000000,"update_time":1700000000}}"#
    )
}
