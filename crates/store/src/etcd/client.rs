//! An etcd client: requests that find a host that answers, with a token where one is needed.
//!
//! The rule to know: what only reads is tried on every host; what writes is tried again only when it surely was not
//! done.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream::{self, BoxStream, StreamExt};
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tonic::{
    Code, ConnectError, Request, Response, Status, client::GrpcService as Service, metadata::MetadataValue,
    transport::Channel,
};

use super::{
    connect::{self, Config, chain},
    proto::{
        AuthenticateRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
        WatchResponse, auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use crate::Error;

/// A client of one cluster. Clones share connections and token.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    hosts: Vec<Host>,
    /// The host that answered last.
    current: AtomicUsize,
    token: Mutex<Option<Arc<str>>>,
}

struct Host {
    url: String,
    channel: Channel,
}

/// Whether a request may be sent twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Always,
    IfNotDone,
}

/// Why a plain HTTP request has no answer.
#[derive(Debug)]
pub struct NoAnswer {
    pub reason: String,
    /// Whoever listens there speaks gRPC only: grpc-go of etcd 3.4 and before ends any other request so.
    pub only_grpc: bool,
}

impl From<tonic::transport::Error> for NoAnswer {
    fn from(error: tonic::transport::Error) -> Self {
        let mut causes =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let only_grpc = causes.any(|cause| {
            let cause = cause.downcast_ref::<h2::Error>();
            cause.is_some_and(|h2| {
                h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::PROTOCOL_ERROR)
            })
        });
        Self { reason: chain(&error), only_grpc }
    }
}

impl Client {
    /// Must be made inside a runtime; connects when it is first used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let mut hosts = config
            .hosts
            .iter()
            .map(|url| Ok(Host { url: url.clone(), channel: connect::channel(&config, url)? }))
            .collect::<Result<Vec<_>, Error>>()?;
        if hosts.is_empty() {
            return Err(Error::Unavailable { store: "etcd".to_owned(), reason: "it has no host".to_owned() });
        }
        // Many clients with one configuration do not all go to its first host.
        hosts.shuffle(&mut rand::rng());
        Ok(Self(Arc::new(Inner { config, hosts, current: AtomicUsize::new(0), token: Mutex::new(None) })))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call(Repeat::Always, request, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).range(request).await
        })
        .await
    }

    /// Never done twice. After an error that is not etcd's own it may be done or not.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call(Repeat::IfNotDone, request, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).txn(request).await
        })
        .await
    }

    /// A lease of `ttl` seconds.
    pub async fn lease_grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        // A lease nobody knows of ends by itself.
        self.call(Repeat::Always, request, |channel, request| async move {
            LeaseClient::new(channel).lease_grant(request).await
        })
        .await
    }

    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        self.call(Repeat::IfNotDone, LeaseRevokeRequest { id }, |channel, request| async move {
            LeaseClient::new(channel).lease_revoke(request).await
        })
        .await
    }

    /// One watch. The first answer says that it is `created`; the stream ends with the connection, and dropping it
    /// ends the watch.
    pub async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        // A watch lasts as long as its request stream, which therefore ends when nobody reads the answers.
        let (reading, read) = watch::channel(());
        let responses = self
            .call(Repeat::Always, create, |channel, request: Request<WatchCreateRequest>| {
                let (metadata, extensions, create) = request.into_parts();
                let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
                let mut read = read.clone();
                let unread = async move { while read.changed().await.is_ok() {} };
                let requests = stream::iter([create]).chain(stream::pending()).take_until(unread);
                let request = Request::from_parts(metadata, extensions, requests);
                async move { WatchClient::new(channel).max_decoding_message_size(usize::MAX).watch(request).await }
            })
            .await?;
        Ok(responses.inspect(move |_| drop(reading.borrow())).boxed())
    }

    /// A plain HTTP request to the host that answered last, over the same connection. Tried once.
    pub async fn http(
        &self,
        request: http::Request<tonic::body::Body>,
    ) -> Result<http::Response<tonic::body::Body>, NoAnswer> {
        let mut channel = self.0.hosts[self.0.current.load(Ordering::Relaxed)].channel.clone();
        std::future::poll_fn(|context| Service::poll_ready(&mut channel, context)).await?;
        Ok(channel.call(request).await?)
    }

    /// What a status means to the user of a store.
    pub fn error(&self, status: &Status) -> Error {
        match status.code() {
            Code::PermissionDenied => Error::ReadOnly(format!("{self} ({})", status.message())),
            _ => Error::Unavailable { store: self.to_string(), reason: self.reason(status) },
        }
    }

    /// In TLS 1.3 a client's certificate is refused after the handshake: the word on it may come too late to be read,
    /// and then all that is known is a connection that was closed.
    fn reason(&self, status: &Status) -> String {
        let reason = chain(status);
        let host = &self.0.hosts[self.0.current.load(Ordering::Relaxed)];
        if host.url.starts_with("https:") && reason.contains("connection closed") {
            return format!(
                "{reason} (as a server does that does not accept our certificate: see `etcd.tls`)"
            );
        }
        reason
    }

    /// Sends a request to the hosts in turn, until one answers.
    async fn call<M: Clone, R, F>(
        &self,
        repeat: Repeat,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        // Each host once, and once more for a connection that had died unnoticed or a token that had expired.
        let mut attempts = self.0.hosts.len() + 1;
        loop {
            attempts -= 1;
            let index = self.0.current.load(Ordering::Relaxed);
            let status = match self.attempt(index, message.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if token_refused(&status) {
                *self.token() = None;
            } else if answered(&status) {
                return Err(status);
            } else {
                let next = (index + 1) % self.0.hosts.len();
                // Others that failed on the same host have moved on from it already.
                let _ = self.0.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
                tracing::debug!(
                    host = self.0.hosts[index].url,
                    error = chain(&status),
                    "etcd does not answer"
                );
            }
            if attempts == 0 || (repeat == Repeat::IfNotDone && !surely_not_done(&status)) {
                return Err(status);
            }
        }
    }

    async fn attempt<M, R, F>(
        &self,
        index: usize,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let channel = self.0.hosts[index].channel.clone();
        let answer = async {
            let mut request = Request::new(message);
            // A member cut off from its cluster says so, instead of being silent.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            if let Some(token) = self.authenticate(channel.clone()).await? {
                let token = token.parse().map_err(|_| Status::internal("the token is not ASCII"))?;
                request.metadata_mut().insert("token", token);
            }
            send(channel, request).await
        };
        match tokio::time::timeout(self.0.config.timeout, answer).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {:?}", self.0.config.timeout))),
        }
    }

    /// The token to send, if any: the one we have, or a new one.
    async fn authenticate(&self, channel: Channel) -> Result<Option<Arc<str>>, Status> {
        let Some((name, password)) = &self.0.config.user else { return Ok(None) };
        if let Some(token) = &*self.token() {
            return Ok(Some(token.clone()));
        }
        let request = AuthenticateRequest { name: name.clone(), password: password.to_string() };
        match AuthClient::new(channel).authenticate(request).await {
            Ok(answer) => {
                let token: Arc<str> = answer.into_inner().token.into();
                *self.token() = Some(token.clone());
                Ok(Some(token))
            }
            Err(status) if status.message().contains("authentication is not enabled") => Ok(None),
            Err(status) => Err(status),
        }
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<Arc<str>>> {
        self.0.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.0.hosts[self.0.current.load(Ordering::Relaxed)];
        write!(f, "etcd at {}", host.url)
    }
}

/// The token is unknown (expired, or its member was restarted) or older than the last change of users.
fn token_refused(status: &Status) -> bool {
    let message = status.message();
    message.contains("invalid auth token") || message.contains("revision of auth store is old")
}

/// Whether this is etcd's word, which another host would only repeat.
fn answered(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented => true,
        // etcd's out of space, but not HTTP/2's ENHANCE_YOUR_CALM.
        Code::ResourceExhausted => status.message().contains("etcdserver"),
        _ => false,
    }
}

fn surely_not_done(status: &Status) -> bool {
    let causes =
        std::iter::successors(Some(status as &(dyn std::error::Error + 'static)), |error| error.source());
    token_refused(status)
        || status.message().contains("etcdserver: no leader")
        || causes.into_iter().any(<dyn std::error::Error>::is::<ConnectError>)
}
