//! etcd's gRPC services over [`Api`].

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{Stream, StreamExt as _};
use store::etcd::proto::{self, WatchResponse, watch_request::RequestUnion};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Service,
    api::Api,
    watcher::{self, Watcher},
};

/// Answers of about a megabyte at most that wait for one client; more make its watchers wait.
pub(super) const QUEUE: usize = 8;
/// Watches on one stream; APISIX has one, etcdctl as many as it is told.
const WATCHES: usize = 100;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl proto::kv_server::Kv for Service {
    async fn range(
        &self,
        request: Request<proto::RangeRequest>,
    ) -> Result<Response<proto::RangeResponse>, Status> {
        self.api.apart(move |api| api.range(request.get_ref())).await?.map(Response::new)
    }

    async fn put(&self, request: Request<proto::PutRequest>) -> Result<Response<proto::PutResponse>, Status> {
        self.api.put(request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Result<Response<proto::DeleteRangeResponse>, Status> {
        self.api.delete_range(request.into_inner()).await.map(Response::new)
    }

    async fn txn(&self, request: Request<proto::TxnRequest>) -> Result<Response<proto::TxnResponse>, Status> {
        self.api.txn(request.into_inner()).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<proto::CompactionRequest>,
    ) -> Result<Response<proto::CompactionResponse>, Status> {
        Ok(Response::new(self.api.compact(request.get_ref())))
    }
}

#[tonic::async_trait]
impl proto::watch_server::Watch for Service {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        requests: Request<Streaming<proto::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (out, answers) = mpsc::channel(QUEUE);
        tokio::spawn(serve_watches(self.api.clone(), requests.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers).map(Ok))))
    }
}

/// Creates and cancels the watches of one stream until the client is gone.
async fn serve_watches(
    api: Arc<Api>,
    mut requests: Streaming<proto::WatchRequest>,
    out: mpsc::Sender<WatchResponse>,
) {
    let mut running = Watches::default();
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            () = out.closed() => return,
        };
        let answer = match request {
            Some(Ok(request)) => running.answer(&api, request, &out),
            Some(Err(_)) => return,
            // It has nothing more to ask, and goes on listening.
            None => return out.closed().await,
        };
        if let Some(answer) = answer
            && out.send(answer).await.is_err()
        {
            return;
        }
    }
}

/// The watches of one stream; they end with it.
#[derive(Default)]
struct Watches {
    running: HashMap<i64, Running>,
    next: i64,
}

struct Running {
    task: AbortHandle,
    told: Arc<AtomicU64>,
}

impl Watches {
    fn answer(
        &mut self,
        api: &Arc<Api>,
        request: proto::WatchRequest,
        out: &mpsc::Sender<WatchResponse>,
    ) -> Option<WatchResponse> {
        // Those whose history had gone have said so and ended.
        self.running.retain(|_, running| !running.task.is_finished());
        match request.request_union? {
            RequestUnion::CreateRequest(create) => self.create(api, create, out),
            RequestUnion::CancelRequest(cancel) => self.cancel(api, cancel.watch_id),
            RequestUnion::ProgressRequest(_) => self.progress(api),
        }
    }

    fn create(
        &mut self,
        api: &Arc<Api>,
        request: proto::WatchCreateRequest,
        out: &mpsc::Sender<WatchResponse>,
    ) -> Option<WatchResponse> {
        let mut id = request.watch_id;
        if id == 0 {
            while self.running.contains_key(&self.next) {
                self.next += 1;
            }
            id = self.next;
            self.next += 1;
        }
        if self.running.contains_key(&id) {
            return Some(refused(api, "mvcc: duplicate watch ID provided on the WatchStream"));
        }
        if self.running.len() >= WATCHES {
            return Some(refused(api, "too many watches on one stream"));
        }
        let told = Arc::<AtomicU64>::default();
        let watcher = Watcher { id, request, out: out.clone(), told: told.clone() };
        let task = tokio::spawn(watcher::run(api.clone(), watcher)).abort_handle();
        self.running.insert(id, Running { task, told });
        None
    }

    fn cancel(&mut self, api: &Api, id: i64) -> Option<WatchResponse> {
        self.running.remove(&id)?.task.abort();
        Some(WatchResponse { header: Some(api.header()), watch_id: id, canceled: true, ..Default::default() })
    }

    /// How far all watches have come: whoever hears it may ask for what came after. Says nothing before all of them
    /// have begun, as etcd.
    fn progress(&self, api: &Api) -> Option<WatchResponse> {
        let told = self.running.values().map(|running| running.told.load(Ordering::Acquire)).min();
        let current = api.mirror.view().map_or(0, |snapshot| snapshot.revision);
        let revision = told.map_or(current, |told| told.min(current));
        let header = Some(api.header_at(revision));
        (revision > 0).then(|| WatchResponse { header, watch_id: -1, ..Default::default() })
    }
}

/// As etcd answers where no watch comes about.
fn refused(api: &Api, why: &str) -> WatchResponse {
    WatchResponse {
        header: Some(api.header()),
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: why.to_owned(),
        ..Default::default()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

#[tonic::async_trait]
impl proto::lease_server::Lease for Service {
    type LeaseKeepAliveStream = Answers<proto::LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<proto::LeaseGrantRequest>,
    ) -> Result<Response<proto::LeaseGrantResponse>, Status> {
        self.grant(request.get_ref()).map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<proto::LeaseRevokeRequest>,
    ) -> Result<Response<proto::LeaseRevokeResponse>, Status> {
        self.revoke(request.get_ref()).map(Response::new)
    }

    async fn lease_keep_alive(
        &self,
        requests: Request<Streaming<proto::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let api = self.api.clone();
        let service = Self { api };
        let answers = requests.into_inner().map(move |request| request.map(|r| service.keep_alive(&r)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<proto::LeaseTimeToLiveRequest>,
    ) -> Result<Response<proto::LeaseTimeToLiveResponse>, Status> {
        Ok(Response::new(self.time_to_live(request.get_ref())))
    }

    async fn lease_leases(
        &self,
        _: Request<proto::LeaseLeasesRequest>,
    ) -> Result<Response<proto::LeaseLeasesResponse>, Status> {
        Ok(Response::new(self.leases()))
    }
}

impl Service {
    pub(super) fn grant(
        &self,
        request: &proto::LeaseGrantRequest,
    ) -> Result<proto::LeaseGrantResponse, Status> {
        let (id, ttl) = self.api.instances.grant(request.id, request.ttl)?;
        let header = Some(self.api.header());
        Ok(proto::LeaseGrantResponse { header, id, ttl, error: String::new() })
    }

    pub(super) fn revoke(
        &self,
        request: &proto::LeaseRevokeRequest,
    ) -> Result<proto::LeaseRevokeResponse, Status> {
        self.api.instances.revoke(request.id)?;
        Ok(proto::LeaseRevokeResponse { header: Some(self.api.header()) })
    }

    pub(super) fn keep_alive(&self, request: &proto::LeaseKeepAliveRequest) -> proto::LeaseKeepAliveResponse {
        let ttl = self.api.instances.keep_alive(request.id);
        proto::LeaseKeepAliveResponse { header: Some(self.api.header()), id: request.id, ttl }
    }

    pub(super) fn time_to_live(
        &self,
        request: &proto::LeaseTimeToLiveRequest,
    ) -> proto::LeaseTimeToLiveResponse {
        let (ttl, granted_ttl, keys) =
            self.api.instances.time_to_live(request.id).unwrap_or((-1, 0, Vec::new()));
        let keys = if request.keys { keys.into_iter().map(Into::into).collect() } else { Vec::new() };
        let header = Some(self.api.header());
        proto::LeaseTimeToLiveResponse { header, id: request.id, ttl, granted_ttl, keys }
    }

    pub(super) fn leases(&self) -> proto::LeaseLeasesResponse {
        let leases = self.api.instances.leases().into_iter().map(|id| proto::LeaseStatus { id }).collect();
        proto::LeaseLeasesResponse { header: Some(self.api.header()), leases }
    }

    pub(super) fn status(&self) -> proto::StatusResponse {
        let revision = self.api.header().revision;
        proto::StatusResponse {
            header: Some(self.api.header()),
            version: super::ETCD_VERSION.into(),
            leader: 1,
            raft_index: u64::try_from(revision).unwrap_or(0),
            raft_term: 1,
            raft_applied_index: u64::try_from(revision).unwrap_or(0),
            errors: self.api.mirror.last_error().into_iter().collect(),
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl proto::cluster_server::Cluster for Service {
    async fn member_list(
        &self,
        _: Request<proto::MemberListRequest>,
    ) -> Result<Response<proto::MemberListResponse>, Status> {
        let member = proto::Member { id: 1, name: "keelgate".into(), ..Default::default() };
        Ok(Response::new(proto::MemberListResponse {
            header: Some(self.api.header()),
            members: vec![member],
        }))
    }
}

#[tonic::async_trait]
impl proto::maintenance_server::Maintenance for Service {
    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        Ok(Response::new(Self::status(self)))
    }
}

#[tonic::async_trait]
impl proto::auth_server::Auth for Service {
    async fn authenticate(
        &self,
        _: Request<proto::AuthenticateRequest>,
    ) -> Result<Response<proto::AuthenticateResponse>, Status> {
        Err(no_auth())
    }
}

/// Who may connect is decided by the listener: its address, or client certificates on the TLS port.
pub(super) fn no_auth() -> Status {
    Status::failed_precondition("etcdserver: authentication is not enabled")
}
