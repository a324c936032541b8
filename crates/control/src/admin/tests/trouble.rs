//! Stores that fail, and nodes that may not write.

use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use model::{Resource, Snapshot};
use store::{Batch, Commit, Error};

use super::*;
use crate::admin::read_only_router;

/// A store that answers as it is told, or as the memory behind it.
struct Failing {
    memory: Memory,
    /// Errors for the next commits, last first.
    errors: Mutex<Vec<Error>>,
    down: bool,
}

impl Failing {
    fn check(&self) -> Result<(), Error> {
        let gone = || Error::Unavailable { store: "etcd".to_owned(), reason: "no leader".to_owned() };
        if self.down { Err(gone()) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Failing {
    fn store_id(&self) -> Arc<str> {
        self.memory.store_id()
    }
    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error> {
        self.check()?;
        self.memory.get(key).await
    }
    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error> {
        self.check()?;
        self.memory.list(kind).await
    }
    async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.check()?;
        self.memory.snapshot().await
    }
    async fn commit(&self, commit: Commit) -> Result<u64, Error> {
        self.check()?;
        let next = self.errors.lock().unwrap().pop();
        match next {
            Some(error) => Err(error),
            None => self.memory.commit(commit).await,
        }
    }
    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.memory.watch(revision).await
    }
}

fn failing(errors: Vec<Error>, down: bool) -> Api {
    over(Arc::new(Failing { memory: Memory::default(), errors: Mutex::new(errors), down }))
}

#[tokio::test]
async fn a_store_that_is_gone_is_told() {
    let api = failing(vec![], true);
    let gone = error("etcd can't be reached: no leader");
    api.script(&[
        ("GET /routes", Value::Null, 503, gone.clone()),
        ("GET /routes/1", Value::Null, 503, gone.clone()),
        ("PUT /routes/1", route("/"), 503, gone.clone()),
        ("POST /routes", route("/"), 503, gone.clone()),
        ("PATCH /routes/1", route("/"), 503, gone.clone()),
        ("DELETE /upstreams/1", Value::Null, 503, gone),
        ("GET /plugins/list", Value::Null, 200, Value::Null),
    ])
    .await;
}

#[tokio::test]
async fn conflicts_are_tried_again() {
    let conflict = || Error::Conflict { key: Key::new(Kind::Routes, "1") };
    let api = failing((0..3).map(|_| conflict()).collect(), false);
    assert_eq!(api.call("PUT /routes/1", &route("/")).await.status, 201);
    let api = failing((0..100).map(|_| conflict()).collect(), false);
    let got = api.call("PUT /routes/1", &route("/")).await;
    assert_eq!((got.status, got.json()), (503, error("value changed before overwritten")));
}

#[tokio::test]
async fn a_node_that_follows_another_takes_no_writes() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let key: Key = "routes/1".parse().unwrap();
    store.commit(Commit::put(key, route("/").to_string())).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let current = Arc::new(move || snapshot.clone());
    let reason = "this node takes its configuration from a control plane; write there";
    let router = read_only_router(config(store.clone()), reason, Some(current)).unwrap();
    let api = Api { router, store };
    api.script(&[
        ("GET /routes/1", Value::Null, 200, json!({ "value": route("/") })),
        ("GET /routes", Value::Null, 200, json!({ "total": 1 })),
        ("PUT /routes/1", json!("not even json"), 403, error(reason)),
        ("DELETE /routes/1", Value::Null, 403, error(reason)),
        ("PUT /plugins/reload", Value::Null, 403, error(reason)),
    ])
    .await;
}
