//! A snapshot in the shape of a store, for nodes that may look but not write.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use model::{Key, Kind, Resource, Snapshot};
use store::{Batch, Commit, Error, Store};

/// Gives the snapshot in use.
pub type Current = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// Reads go to the snapshot in use, writes are refused.
pub struct Frozen {
    pub current: Current,
    pub name: String,
}

#[async_trait]
impl Store for Frozen {
    fn store_id(&self) -> Arc<str> {
        (self.current)().store_id
    }

    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error> {
        Ok((self.current)().get(key).cloned())
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error> {
        Ok((self.current)().of(kind).cloned().collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok((self.current)())
    }

    async fn commit(&self, _: Commit) -> Result<u64, Error> {
        Err(Error::ReadOnly(self.name.clone()))
    }

    async fn watch(&self, _: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        Ok(stream::pending().boxed())
    }
}
