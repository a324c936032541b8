//! A store in an etcd v3 cluster (3.4 or newer), or behind our own configuration API, which speaks the same.
//!
//! The rule to know: revisions are etcd's. They grow with keys that are not ours too, so a batch may be without
//! changes, and revisions have holes.

mod client;
mod connect;
mod keys;
pub mod proto;
mod txn;
mod watch;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use model::{Key, Kind, Resource, Snapshot};
use tonic::{Code, Status};

use crate::{Batch, Commit, Error, Store, Write};
use keys::{Keys, signed, text, unsigned};
use proto::{
    Compare, KeyValue, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    WatchCreateRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

pub use client::Client;
pub use connect::{Config, Ping, Tls};

/// A store in etcd.
pub struct Etcd {
    client: Client,
    keys: Keys,
    writes: bool,
    /// Changes when the cluster's data was lost.
    store_id: RwLock<Arc<str>>,
}

/// Some keys of the cluster at one revision.
struct Scan {
    cluster: u64,
    revision: u64,
    kvs: Vec<KeyValue>,
}

impl Etcd {
    /// Opens it to write: names the lineage if it has no name yet.
    pub async fn open(config: Config) -> Result<Self, Error> {
        Self::connect(config, true).await
    }

    /// Opens it to read only. A lineage no control plane has named is named after its cluster.
    pub async fn open_reader(config: Config) -> Result<Self, Error> {
        Self::connect(config, false).await
    }

    async fn connect(config: Config, writes: bool) -> Result<Self, Error> {
        let keys = Keys::new(&config.prefix);
        let client = Client::new(config)?;
        let etcd = Self { client, keys, writes, store_id: RwLock::new("".into()) };
        let store_id = etcd.read_store_id().await?.0;
        etcd.set_store_id(store_id);
        Ok(etcd)
    }

    /// To speak to the same cluster of other things than resources.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn set_store_id(&self, store_id: Arc<str>) {
        *self.store_id.write().unwrap_or_else(PoisonError::into_inner) = store_id;
    }

    /// The lineage's name as it is now, and the revision at which it was read.
    async fn read_store_id(&self) -> Result<(Arc<str>, u64), Error> {
        let request = RangeRequest { key: self.keys.store_id(), ..RangeRequest::default() };
        loop {
            let answer =
                self.client.range(request.clone()).await.map_err(|status| self.client.error(&status))?;
            let (cluster, revision) = position(answer.header.as_ref());
            match self.lineage(cluster, answer.kvs.first()) {
                Some(store_id) => return Ok((store_id, revision)),
                None => self.name_lineage().await?,
            }
        }
    }

    /// The lineage's name, given its key; none if it is to be named by us.
    fn lineage(&self, cluster: u64, kv: Option<&KeyValue>) -> Option<Arc<str>> {
        match kv {
            Some(kv) => Some(text(&kv.value)),
            None if self.writes => None,
            None => Some(format!("etcd:{cluster:016x}").into()),
        }
    }

    /// Names the lineage, unless another control plane was faster.
    async fn name_lineage(&self) -> Result<(), Error> {
        let key = self.keys.store_id();
        let absent = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Compare::default()
        };
        let value = uuid::Uuid::new_v4().to_string().into();
        let put = Request::RequestPut(PutRequest { key, value, ..PutRequest::default() });
        let success = vec![RequestOp { request: Some(put) }];
        let txn = TxnRequest { compare: vec![absent], success, ..TxnRequest::default() };
        self.client.txn(txn).await.map(drop).map_err(|status| self.client.error(&status))
    }

    /// Reads a range in pages, all at the revision of the first.
    async fn scan(&self, (first, end): (Bytes, Bytes)) -> Result<Scan, Error> {
        // Compaction may outrun a slow scan; a cluster where it always does is not one to read from.
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match self.pages(first.clone(), &end).await {
                Err(status) if compacted(&status) && attempts > 0 => {}
                result => return result.map_err(|status| self.client.error(&status)),
            }
        }
    }

    async fn pages(&self, first: Bytes, end: &Bytes) -> Result<Scan, Status> {
        const PAGE: i64 = 5000;
        let mut scan = Scan { cluster: 0, revision: 0, kvs: vec![] };
        let mut key = first;
        loop {
            let revision = signed(scan.revision);
            let request = RangeRequest {
                key,
                range_end: end.clone(),
                limit: PAGE,
                revision,
                ..RangeRequest::default()
            };
            let answer = self.client.range(request).await?;
            if scan.revision == 0 {
                (scan.cluster, scan.revision) = position(answer.header.as_ref());
            }
            scan.kvs.extend(answer.kvs);
            match scan.kvs.last() {
                // The first key after this one.
                Some(last) if answer.more => key = [&*last.key, b"\0"].concat().into(),
                _ => return Ok(scan),
            }
        }
    }

    /// A lease for each ttl in the commit.
    async fn leases(&self, commit: &Commit) -> Result<BTreeMap<u64, i64>, Error> {
        let mut leases = BTreeMap::new();
        for ttl in commit.writes.iter().filter_map(Write::ttl) {
            if let Entry::Vacant(lease) = leases.entry(ttl) {
                let granted = self.client.lease_grant(signed(ttl.max(1))).await;
                lease.insert(granted.map_err(|status| self.client.error(&status))?.id);
            }
        }
        Ok(leases)
    }

    /// Which expectation failed, by what was found.
    fn conflict(&self, commit: &Commit, found: &[ResponseOp]) -> Error {
        match txn::culprit(commit, found) {
            Some(key) => Error::Conflict { key: key.clone() },
            None => Error::Unavailable {
                store: self.client.to_string(),
                reason: "it refused a commit without a reason".to_owned(),
            },
        }
    }

    /// Why a commit was not done, or may not have been.
    async fn refused(&self, commit: &Commit, status: &Status) -> Error {
        let refused = self.client.error(status);
        if !txn::may_be_called_off(commit, status) {
            return refused;
        }
        let look = TxnRequest { success: txn::look(commit, &self.keys), ..TxnRequest::default() };
        match self.client.txn(look).await {
            Ok(found) if txn::culprit(commit, &found.responses).is_some() => {
                self.conflict(commit, &found.responses)
            }
            _ => refused,
        }
    }
}

#[async_trait]
impl Store for Etcd {
    fn store_id(&self) -> Arc<str> {
        self.store_id.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error> {
        let request = RangeRequest { key: self.keys.of(key), ..RangeRequest::default() };
        let answer = self.client.range(request).await.map_err(|status| self.client.error(&status))?;
        Ok(answer.kvs.first().and_then(|kv| self.keys.resource(kv)).map(Arc::new))
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error> {
        let scan = self.scan(self.keys.folder(kind)).await?;
        let resources = scan.kvs.iter().filter_map(|kv| self.keys.resource(kv));
        Ok(resources.filter(|resource| resource.key.kind == kind).map(Arc::new).collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        let name = self.keys.store_id();
        loop {
            // One range over everything: the lineage's name is of the same revision as its resources.
            let scan = self.scan(self.keys.all()).await?;
            let kv = scan.kvs.binary_search_by(|kv| kv.key.cmp(&name)).ok().map(|at| &scan.kvs[at]);
            let Some(store_id) = self.lineage(scan.cluster, kv) else {
                // The cluster lost its data while we were running.
                self.name_lineage().await?;
                continue;
            };
            self.set_store_id(store_id.clone());
            let mut snapshot = Snapshot::new(store_id, scan.revision);
            scan.kvs
                .iter()
                .filter_map(|kv| self.keys.resource(kv))
                .for_each(|resource| snapshot.put(resource));
            return Ok(snapshot);
        }
    }

    async fn commit(&self, commit: Commit) -> Result<u64, Error> {
        if !self.writes {
            return Err(Error::ReadOnly(self.client.to_string()));
        }
        let leases = self.leases(&commit).await?;
        let error = match self.client.txn(txn::request(&commit, &self.keys, &leases)).await {
            Ok(answer) if answer.succeeded => return Ok(position(answer.header.as_ref()).1),
            Ok(answer) => self.conflict(&commit, &answer.responses),
            Err(status) => self.refused(&commit, &status).await,
        };
        for lease in leases.into_values() {
            // It ends by itself otherwise.
            let _ = self.client.lease_revoke(lease).await;
        }
        Err(error)
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        // A cluster that lost its data may have come to the same revision again.
        let (store_id, newest) = self.read_store_id().await?;
        if store_id != self.store_id() || revision > newest {
            return Err(Error::Compacted { asked: revision, oldest: newest });
        }
        let (key, range_end) = self.keys.all();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: signed(revision.saturating_add(1)),
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let responses = self.client.watch(create).await.map_err(|status| self.client.error(&status))?;
        let (client, keys) = (self.client.clone(), self.keys.clone());
        Ok(watch::Reader { client, keys, store_id, seen: revision }.batches(responses))
    }
}

/// The cluster and its revision.
fn position(header: Option<&ResponseHeader>) -> (u64, u64) {
    header.map_or((0, 0), |header| (header.cluster_id, unsigned(header.revision)))
}

fn compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("compacted")
}
