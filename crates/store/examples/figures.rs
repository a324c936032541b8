//! What the embedded store costs on this machine's disk:
//! `cargo run --profile quick -p store --example figures -- FOLDER`
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
use store::{Commit, Embedded, Store, Write};

const ROUTES: usize = 100_000;

#[tokio::main]
async fn main() {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).unwrap();
    commits(&folder.path().join("small")).await;
    let large = folder.path().join("large");
    many(&large).await;
    commits(&large).await;
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

async fn many(folder: &Path) {
    let store = Embedded::open(folder).unwrap();
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
    println!("a snapshot of them: {:?}", began.elapsed());
    drop(store);
    let began = Instant::now();
    let store = Embedded::open(folder).unwrap();
    println!("opened anew: {:?}", began.elapsed());
    let again = store.snapshot().await.unwrap();
    println!("compared, nothing shared: {:?} changes", again.changes_since(&snapshot).len());
}

/// About as long as a route is.
fn route(n: usize) -> String {
    format!(
        r#"{{"id":"{n}","name":"route {n}","uri":"/api/v1/{n}/*","hosts":["{n}.example.com"],"methods":["GET","POST"],"plugins":{{"limit-count":{{"count":100,"time_window":60,"rejected_code":503,"key_type":"var","key":"remote_addr"}},"key-auth":{{}}}},"upstream":{{"type":"roundrobin","nodes":{{"10.0.0.1:8080":1,"10.0.0.2:8080":1}}}},"create_time":1700000000,"update_time":1700000000}}"#
    )
}
