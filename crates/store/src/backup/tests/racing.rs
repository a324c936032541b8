//! Several writers on one bucket.

use std::collections::BTreeSet;

use super::*;
use crate::bucket::{Config, Local};

pub async fn race(buckets: &Buckets, writers: u64, rounds: u64) -> Vec<Manifest> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let buckets = buckets.clone();
        tasks.spawn(async move {
            let mut manifests = Vec::new();
            for round in 0..rounds {
                let (snapshot, instance) = (snapshot(writer * 1000 + round, 2), Instance::default());
                let name = format!("cp-{writer}");
                let publication = Publication { writer: &name, ..publication(&snapshot, &instance) };
                manifests.push(publish(&buckets, &publication).await.unwrap());
            }
            manifests
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn assert_one_history(buckets: &Buckets, manifests: Vec<Manifest>) {
    let count = manifests.len() as u64;
    let sequences: BTreeSet<u64> = manifests.iter().map(|manifest| manifest.sequence).collect();
    assert_eq!(sequences, (1..=count).collect());
    for manifest in &manifests {
        let kept = show(buckets, "default", &Trust::default(), manifest.sequence).await.unwrap();
        assert_eq!(&kept.manifest, manifest);
    }
    assert_eq!(head(buckets, "default").await.unwrap().sequence, count);
    let pointed = verify(buckets, "default", &Trust::default(), None).await.unwrap();
    assert_eq!(pointed.manifest.sequence, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sequence_has_one_winner_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local { config_dir: dir.path().join("conf"), resource_dir: Some(dir.path().join("res")) };
    let buckets = Buckets::open(Config::Local(local)).unwrap();
    let manifests = race(&buckets, 4, 4).await;
    assert_one_history(&buckets, manifests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sequence_has_one_winner_in_memory() {
    let fixture = Fixture::new();
    let manifests = race(&fixture.buckets, 6, 10).await;
    assert_one_history(&fixture.buckets, manifests).await;
}
