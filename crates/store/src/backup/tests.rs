use std::sync::Arc;

use model::{Instance, Key, Kind, Resource, Snapshot};
use object_store::{ObjectStore, memory::InMemory, path::Path};

use super::*;
use crate::bucket::Bucket;

mod damage;
mod faulty;
mod format;
mod racing;
mod servers;
mod signed;

/// Two buckets in memory, and the objects in them.
struct Fixture {
    buckets: Buckets,
    config: Arc<dyn ObjectStore>,
    resource: Arc<dyn ObjectStore>,
}

impl Fixture {
    fn new() -> Self {
        Self::over(Arc::new(InMemory::new()), Arc::new(InMemory::new()))
    }

    fn over(config: Arc<dyn ObjectStore>, resource: Arc<dyn ObjectStore>) -> Self {
        let buckets = Buckets::new(
            Bucket::new(config.clone(), "memory", "conf"),
            Bucket::new(resource.clone(), "memory", "res"),
        );
        Self { buckets, config, resource }
    }

    async fn publish(&self, snapshot: &Snapshot) -> Manifest {
        publish(&self.buckets, &publication(snapshot, &Instance::default())).await.unwrap()
    }

    async fn read(&self, known: &Known) -> Result<Latest, ReadError> {
        read_latest(&self.buckets, "default", &Trust::default(), known).await
    }

    async fn newest(&self) -> Verified {
        match self.read(&Known::default()).await.unwrap() {
            Latest::New(verified) => *verified,
            other => panic!("{other:?}"),
        }
    }

    /// Every key with its bytes; `config/` or `resource/` before it.
    async fn objects(&self) -> Vec<(&'static str, String, Vec<u8>)> {
        use futures_util::TryStreamExt;
        let mut all = Vec::new();
        for (name, store) in [("config", &self.config), ("resource", &self.resource)] {
            let metas: Vec<_> = store.list(None).try_collect().await.unwrap();
            for meta in metas {
                let bytes =
                    store.get_opts(&meta.location, Default::default()).await.unwrap().bytes().await.unwrap();
                all.push((name, meta.location.to_string(), bytes.to_vec()));
            }
        }
        all.sort();
        all
    }

    async fn overwrite(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let store = if bucket == "config" { &self.config } else { &self.resource };
        store.put_opts(&Path::parse(key).unwrap(), bytes.into().into(), Default::default()).await.unwrap();
    }

    async fn delete(&self, bucket: &str, key: &str) {
        let bucket = if bucket == "config" {
            self.buckets.config.clone()
        } else {
            self.buckets.resource(None).unwrap()
        };
        bucket.delete(key).await.unwrap();
    }
}

fn publication<'a>(snapshot: &'a Snapshot, instance: &'a Instance) -> Publication<'a> {
    Publication {
        group: "default",
        snapshot,
        instance,
        writer: "cp-1",
        signing: None,
        expected_head: None,
        floor: 0,
        note: None,
    }
}

/// A snapshot with so many routes, all saying `revision`.
fn snapshot(revision: u64, routes: usize) -> Snapshot {
    let mut snapshot = Snapshot::new("store-1", revision);
    for id in 1..=routes {
        let value = format!(r#"{{"id":"{id}","uri":"/{revision}/{id}"}}"#);
        let key = Key::new(Kind::Routes, id.to_string());
        snapshot.put(Resource { key, value: value.into(), created: 1, modified: revision });
    }
    snapshot
}

fn revision_of(latest: &Latest) -> Option<u64> {
    match latest {
        Latest::New(verified) => Some(verified.snapshot.revision),
        _ => None,
    }
}
