use std::sync::Mutex;

use model::{Key, Kind};
use store::{
    Commit, Memory,
    backup::{Known, Latest, Publish, Trust, read_latest},
    bucket,
};
use tempfile::TempDir;

use super::*;

mod folders;
mod guarding;
mod servers;
mod timing;

/// A store, two folders, and what the prover was given.
struct Fixture {
    store: Arc<Memory>,
    dir: TempDir,
    proved: Arc<Mutex<Vec<usize>>>,
}

impl Fixture {
    fn new() -> Self {
        Self { store: Arc::new(Memory::new()), dir: tempfile::tempdir().unwrap(), proved: Arc::default() }
    }

    fn buckets(&self, name: &str) -> Buckets {
        let local = bucket::Local {
            config_dir: self.dir.path().join(name).join("conf"),
            resource_dir: Some(self.dir.path().join(name).join("res")),
        };
        Buckets::open(bucket::Config::Local(local)).unwrap()
    }

    fn config(&self) -> Config {
        let debounce = Duration::from_millis(20);
        let backends = vec![("local".to_owned(), self.buckets("a"))];
        Config { debounce, writer: "cp-1".to_owned(), ..Config::new("default", backends) }
    }

    fn start(&self, config: Config) -> Handle {
        let proved = self.proved.clone();
        let prove = move |snapshot: &Snapshot, _: &Instance| {
            proved.lock().unwrap().push(snapshot.len());
            match snapshot.iter().find(|resource| resource.value.contains("unservable")) {
                Some(resource) => Err(format!("{} can't be served", resource.key)),
                None => Ok(Proof { resources: snapshot.len(), rejected: 0 }),
            }
        };
        Exporter::start(config, self.store.clone(), Arc::new(prove))
    }

    async fn put(&self, id: &str, value: &str) -> u64 {
        self.store.commit(Commit::put(Key::new(Kind::Routes, id), value)).await.unwrap()
    }

    async fn routes(&self, ids: std::ops::RangeInclusive<u32>) {
        for id in ids {
            self.put(&id.to_string(), &format!(r#"{{"id":"{id}","uri":"/{id}"}}"#)).await;
        }
    }

    async fn delete(&self, id: &str) {
        self.store.commit(Commit::delete(Key::new(Kind::Routes, id))).await.unwrap();
    }
}

async fn read(buckets: &Buckets) -> store::backup::Verified {
    match read_latest(buckets, "default", &Trust::default(), &Known::default()).await.unwrap() {
        Latest::New(verified) => *verified,
        other => panic!("{other:?}"),
    }
}

/// Waits for the first back end to say so.
async fn until(handle: &Handle, what: impl FnMut(&Status) -> bool) -> Status {
    let mut status = handle.subscribe();
    let found = tokio::time::timeout(Duration::from_secs(30), status.wait_for(what)).await;
    match found {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("never came; last: {:#?}", handle.status()),
    }
}
