//! What etcd's key-value calls mean here. gRPC and the JSON gateway both come through it.
//!
//! The rule to know: reads are answered from the mirror, never from the store; writes go to the store by
//! compare-and-swap and are answered when the mirror shows them.

use std::sync::Arc;

use bytes::Bytes;
use model::{Key, Snapshot};
use store::{
    Commit, Error, Expect, Store, Write,
    etcd::proto::{
        CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue,
        PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
        TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request as Op,
        response_op::Response as Answer,
    },
};
use tokio::sync::Semaphore;
use tonic::Status;

use super::{
    Access,
    instances::{Instances, Refused},
    keyspace::{self, Entry, Keyspace, Span, signed},
    mirror::Mirror,
};

/// How often a write is tried again when others write at the same time.
const TRIES: usize = 16;

/// Reads at the same time: when a control plane comes back, all its data planes want everything at once.
pub const READS: usize = 4;

/// The key-value interface over one store.
pub struct Api {
    pub(super) prefix: Arc<str>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) instances: Arc<Instances>,
    pub(super) store: Arc<dyn Store>,
    pub(super) access: Access,
    /// The store's lineage as etcd's cluster id.
    pub(super) cluster: u64,
    /// Whose turn it is to read a lot.
    pub(super) turns: Semaphore,
}

/// The store's errors as etcd would say them.
pub fn status(error: &Error) -> Status {
    match error {
        Error::Compacted { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
        }
        Error::Conflict { .. } => Status::aborted(error.to_string()),
        Error::ReadOnly(_) => Status::permission_denied(error.to_string()),
        Error::Unavailable { .. } => Status::unavailable(error.to_string()),
        Error::Corrupt { .. } => Status::internal(error.to_string()),
    }
}

fn refused(error: &Refused) -> Status {
    match error {
        Refused::NoSuchLease => Status::not_found(error.to_string()),
        Refused::LeaseExists => Status::failed_precondition(error.to_string()),
        Refused::TooMany => Status::resource_exhausted(error.to_string()),
        Refused::TooBig => Status::invalid_argument(error.to_string()),
    }
}

impl From<Refused> for Status {
    fn from(error: Refused) -> Self {
        refused(&error)
    }
}

impl Api {
    pub fn header(&self) -> ResponseHeader {
        let revision = self.mirror.view().map_or(0, |snapshot| snapshot.revision);
        self.header_at(revision)
    }

    pub fn header_at(&self, revision: u64) -> ResponseHeader {
        // etcd's first revision is 1; clients take 0 for a broken answer.
        ResponseHeader {
            cluster_id: self.cluster,
            member_id: 1,
            revision: signed(revision.max(1)),
            raft_term: 1,
        }
    }

    /// Reads on a thread that may take its time: a hundred thousand routes must not hold up the heartbeats.
    pub async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let api = Arc::clone(self);
        let _turn = self.turns.acquire().await;
        let read = tokio::task::spawn_blocking(move || read(&api));
        read.await.map_err(|error| Status::internal(error.to_string()))
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let current = self.mirror.view().map_err(|error| status(&error))?;
        let snapshot = match u64::try_from(request.revision).unwrap_or(0) {
            0 => current.clone(),
            asked if asked > current.revision.max(1) => {
                return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
            }
            asked => self.mirror.at(asked).map_err(|error| status(&error))?,
        };
        let mut answer = self.read(request, &snapshot)?;
        answer.header = Some(self.header_at(current.revision));
        Ok(answer)
    }

    fn read(&self, request: &RangeRequest, snapshot: &Snapshot) -> Result<RangeResponse, Status> {
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let span = Span::new(&request.key, &request.range_end);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let sorted =
            request.sort_order == SortOrder::Descend as i32 || request.sort_target != SortTarget::Key as i32;
        // In the order of keys one more than asked for tells whether there are more.
        let most = if sorted { usize::MAX } else { limit.saturating_add(1) };
        let mut count = 0_usize;
        let mut kvs = Vec::new();
        let keyspace = Keyspace { prefix: &self.prefix, snapshot, instances: &self.instances };
        keyspace.walk(&span, |entry| {
            // As etcd counts: whatever the bounds of revisions leave out.
            count += 1;
            if !request.count_only && kvs.len() < most && in_bounds(entry, request) {
                kvs.push(entry.kv(request.keys_only && !sorted));
            }
        });
        if sorted {
            sort(&mut kvs, request);
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { header: None, kvs, more, count: i64::try_from(count).unwrap_or(i64::MAX) })
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        let txn = TxnRequest {
            success: vec![RequestOp { request: Some(Op::RequestPut(request)) }],
            ..TxnRequest::default()
        };
        match self.txn(txn).await?.responses.pop().and_then(|answer| answer.response) {
            Some(Answer::ResponsePut(put)) => Ok(put),
            _ => Err(Status::internal("a put was answered by something else")),
        }
    }

    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let txn = TxnRequest {
            success: vec![RequestOp { request: Some(Op::RequestDeleteRange(request)) }],
            ..TxnRequest::default()
        };
        match self.txn(txn).await?.responses.pop().and_then(|answer| answer.response) {
            Some(Answer::ResponseDeleteRange(deleted)) => Ok(deleted),
            _ => Err(Status::internal("a deletion was answered by something else")),
        }
    }

    /// History is dropped as the mirror sees fit; being asked to is no error.
    pub fn compact(&self, _request: &CompactionRequest) -> CompactionResponse {
        CompactionResponse { header: Some(self.header()) }
    }

    /// All or nothing, like every write here.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        for _ in 0..TRIES {
            let snapshot = self.mirror.view().map_err(|error| status(&error))?;
            let mut commit = Commit::default();
            let (succeeded, responses) = self.decide(&request, &snapshot, &mut commit)?;
            if commit.writes.is_empty() {
                return Ok(TxnResponse { header: Some(self.header()), succeeded, responses });
            }
            match self.store.commit(commit).await {
                Ok(revision) => {
                    self.mirror.reached(revision).await;
                    return Ok(TxnResponse { header: Some(self.header_at(revision)), succeeded, responses });
                }
                // The mirror shows an older state than the store: wait for the newer one and decide again.
                Err(Error::Conflict { .. }) => self.newer_than(snapshot.revision).await,
                Err(error) => return Err(status(&error)),
            }
        }
        Err(Status::aborted("others write the same keys all the time"))
    }

    async fn newer_than(&self, revision: u64) {
        self.mirror.reached(revision + 1).await;
    }

    /// Which branch of a transaction is taken, and what it answers; its writes and what they depend on are gathered
    /// into `commit`.
    fn decide(
        &self,
        request: &TxnRequest,
        snapshot: &Snapshot,
        commit: &mut Commit,
    ) -> Result<(bool, Vec<ResponseOp>), Status> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare, snapshot));
        for compare in &request.compare {
            if let Some(key) = keyspace::parse(&self.prefix, &compare.key) {
                commit.expect.push((key.clone(), observed(snapshot, &key)));
            }
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        Ok((succeeded, self.perform(ops, snapshot, commit)?))
    }

    /// Gathers the writes of `ops` into `commit`, does the instance keys at once, and answers the reads.
    fn perform(
        &self,
        ops: &[RequestOp],
        snapshot: &Snapshot,
        commit: &mut Commit,
    ) -> Result<Vec<ResponseOp>, Status> {
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            let answer = match &op.request {
                Some(Op::RequestRange(range)) => {
                    let mut read = self.read(range, snapshot)?;
                    read.header = Some(self.header_at(snapshot.revision));
                    Answer::ResponseRange(read)
                }
                Some(Op::RequestPut(put)) => Answer::ResponsePut(self.perform_put(put, snapshot, commit)?),
                Some(Op::RequestDeleteRange(delete)) => {
                    Answer::ResponseDeleteRange(self.perform_delete(delete, snapshot, commit)?)
                }
                Some(Op::RequestTxn(inner)) => {
                    let (succeeded, responses) = self.decide(inner, snapshot, commit)?;
                    let header = Some(self.header_at(snapshot.revision));
                    Answer::ResponseTxn(TxnResponse { header, succeeded, responses })
                }
                None => return Err(Status::invalid_argument("an operation of the transaction is empty")),
            };
            answers.push(ResponseOp { response: Some(answer) });
        }
        Ok(answers)
    }

    fn perform_put(
        &self,
        put: &PutRequest,
        snapshot: &Snapshot,
        commit: &mut Commit,
    ) -> Result<PutResponse, Status> {
        let header = Some(self.header_at(snapshot.revision));
        let instance_key = self.instance_key(&put.key);
        if instance_key.is_none() {
            if keyspace::is_placeholder(&self.prefix, put) {
                // What APISIX's `init_etcd` writes is there already, whoever asks for it.
                return Ok(PutResponse { header, prev_kv: None });
            }
            self.may_write(&put.key)?;
        }
        let before = self.find(&put.key, snapshot);
        let put = completed(put, before.as_ref())?;
        let prev_kv = before.filter(|_| put.prev_kv);
        if let Some(name) = instance_key {
            self.instances.put(name, put.value.clone(), put.lease, snapshot.revision.max(1))?;
            return Ok(PutResponse { header, prev_kv });
        }
        let key = self.writable(&put.key)?;
        let ttl = match put.lease {
            0 => None,
            lease => {
                let (_, granted, _) = self.instances.time_to_live(lease).ok_or(Refused::NoSuchLease)?;
                u64::try_from(granted).ok()
            }
        };
        let value = std::str::from_utf8(&put.value)
            .map_err(|_| Status::invalid_argument(format!("the value of `{key}` is not UTF-8")))?;
        commit.writes.push(Write::Put { key, value: value.into(), ttl });
        Ok(PutResponse { header, prev_kv })
    }

    fn perform_delete(
        &self,
        delete: &DeleteRangeRequest,
        snapshot: &Snapshot,
        commit: &mut Commit,
    ) -> Result<DeleteRangeResponse, Status> {
        let header = Some(self.header_at(snapshot.revision));
        let span = Span::new(&delete.key, &delete.range_end);
        if self.instance_key(&delete.key).is_some() {
            let deleted = self.instances.delete(|key| span.contains(key.as_bytes()));
            let deleted = i64::try_from(deleted).unwrap_or(i64::MAX);
            return Ok(DeleteRangeResponse { header, deleted, prev_kvs: Vec::new() });
        }
        self.may_write(&delete.key)?;
        let mut prev_kvs = Vec::new();
        let mut deleted = 0;
        let keyspace = Keyspace { prefix: &self.prefix, snapshot, instances: &self.instances };
        keyspace.walk(&span, |entry| {
            if let Entry::Resource(_, resource) = entry {
                deleted += 1;
                commit.writes.push(Write::Delete { key: resource.key.clone() });
                if delete.prev_kv {
                    prev_kvs.push(entry.kv(false));
                }
            }
        });
        Ok(DeleteRangeResponse { header, deleted, prev_kvs })
    }

    /// The name of an instance key, which every data plane may write.
    fn instance_key(&self, key: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text.strip_prefix(&*self.prefix)?;
        rest.starts_with("/data_plane/").then(|| text.to_owned())
    }

    fn may_write(&self, key: &[u8]) -> Result<(), Status> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Status::permission_denied(format!(
                "etcdserver: permission denied: `{}` is written through the control plane's Admin API; data planes only read",
                String::from_utf8_lossy(key)
            ))),
        }
    }

    fn writable(&self, key: &[u8]) -> Result<Key, Status> {
        self.may_write(key)?;
        keyspace::parse(&self.prefix, key).ok_or_else(|| {
            Status::invalid_argument(format!(
                "`{}` is not the key of a resource",
                String::from_utf8_lossy(key)
            ))
        })
    }

    fn find(&self, key: &[u8], snapshot: &Snapshot) -> Option<KeyValue> {
        let mut found = None;
        let keyspace = Keyspace { prefix: &self.prefix, snapshot, instances: &self.instances };
        keyspace.walk(&Span::new(key, b""), |entry| found = Some(entry.kv(false)));
        found
    }

    fn holds(&self, compare: &Compare, snapshot: &Snapshot) -> bool {
        let found = self.find(&compare.key, snapshot);
        if found.is_none() && compare.target == CompareTarget::Value as i32 {
            // A key that is not there has no value, not even one that differs.
            return false;
        }
        let KeyValue { version, create_revision: created, mod_revision: modified, value, lease, .. } =
            found.unwrap_or_default();
        let order = match (&compare.target_union, CompareTarget::try_from(compare.target)) {
            (Some(TargetUnion::Version(wanted)), _) => version.cmp(wanted),
            (Some(TargetUnion::CreateRevision(wanted)), _) => created.cmp(wanted),
            (Some(TargetUnion::ModRevision(wanted)), _) => modified.cmp(wanted),
            (Some(TargetUnion::Value(wanted)), _) => value.cmp(wanted),
            (Some(TargetUnion::Lease(wanted)), _) => lease.cmp(wanted),
            // A zero is left out on the wire.
            (None, Ok(CompareTarget::Create)) => created.cmp(&0),
            (None, Ok(CompareTarget::Mod)) => modified.cmp(&0),
            (None, Ok(CompareTarget::Lease)) => lease.cmp(&0),
            (None, Ok(CompareTarget::Value)) => value.cmp(&Bytes::new()),
            (None, _) => version.cmp(&0),
        };
        match CompareResult::try_from(compare.result) {
            Ok(CompareResult::Greater) => order.is_gt(),
            Ok(CompareResult::Less) => order.is_lt(),
            Ok(CompareResult::NotEqual) => order.is_ne(),
            Ok(CompareResult::Equal) | Err(_) => order.is_eq(),
        }
    }
}

/// A put with what it keeps of the key as it is.
fn completed(put: &PutRequest, before: Option<&KeyValue>) -> Result<PutRequest, Status> {
    let wrong = |text: &str| Err(Status::invalid_argument(text));
    let mut put = put.clone();
    if put.ignore_value && !put.value.is_empty() {
        return wrong("etcdserver: value is provided");
    }
    if put.ignore_lease && put.lease != 0 {
        return wrong("etcdserver: lease is provided");
    }
    match before {
        None if put.ignore_value || put.ignore_lease => return wrong("etcdserver: key not found"),
        Some(before) if put.ignore_value => put.value = before.value.clone(),
        _ => {}
    }
    if let Some(before) = before.filter(|_| put.ignore_lease) {
        put.lease = before.lease;
    }
    Ok(put)
}

/// What a key is in the state that was decided upon: it must still be so when the commit is done.
fn observed(snapshot: &Snapshot, key: &Key) -> Expect {
    snapshot.get(key).map_or(Expect::Absent, |resource| Expect::At(resource.modified))
}

fn in_bounds(entry: &Entry<'_>, request: &RangeRequest) -> bool {
    let (created, modified) = (signed(entry.created()), signed(entry.modified()));
    let within =
        |value: i64, least: i64, most: i64| (least == 0 || value >= least) && (most == 0 || value <= most);
    within(modified, request.min_mod_revision, request.max_mod_revision)
        && within(created, request.min_create_revision, request.max_create_revision)
}

fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    match SortTarget::try_from(request.sort_target) {
        Ok(SortTarget::Version) => kvs.sort_by_key(|kv| kv.version),
        Ok(SortTarget::Create) => kvs.sort_by_key(|kv| kv.create_revision),
        Ok(SortTarget::Mod) => kvs.sort_by_key(|kv| kv.mod_revision),
        Ok(SortTarget::Value) => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        Ok(SortTarget::Key) | Err(_) => kvs.sort_by(|a, b| a.key.cmp(&b.key)),
    }
    if request.sort_order == SortOrder::Descend as i32 {
        kvs.reverse();
    }
}
