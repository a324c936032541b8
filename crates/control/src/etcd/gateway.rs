//! etcd's JSON gateway: the same calls over HTTP/1.1 for APISIX data planes.
//!
//! The rule to know: it is lua-resty-etcd that speaks to it. Paths, the `{"result":…}` lines of a watch and the
//! shape of errors are as etcd's gateway has them.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use store::etcd::proto::{
    self, AuthenticateRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, TxnRequest,
    WatchRequest, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    Service,
    watcher::{self, Watcher},
};

/// Bytes of one request's body.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

pub fn router(service: Service) -> Router {
    let calls = Router::new()
        .route("/kv/range", post(range))
        .route("/kv/put", post(put))
        .route("/kv/deleterange", post(delete_range))
        .route("/kv/txn", post(txn))
        .route("/kv/compaction", post(compact))
        .route("/kv/lease/revoke", post(revoke))
        .route("/kv/lease/timetolive", post(time_to_live))
        .route("/kv/lease/leases", post(leases))
        .route("/watch", post(watch))
        .route("/lease/grant", post(grant))
        .route("/lease/revoke", post(revoke))
        .route("/lease/keepalive", post(keep_alive))
        .route("/lease/timetolive", post(time_to_live))
        .route("/lease/leases", post(leases))
        .route("/maintenance/status", post(status))
        .route("/auth/authenticate", post(authenticate));
    Router::new()
        .route("/version", get(version))
        .route("/health", get(|| async { Json(json!({"health": "true"})) }))
        // lua-resty-etcd asks for the prefix of the version it found; all name the same thing.
        .nest("/v3", calls.clone())
        .nest("/v3beta", calls)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(service)
}

async fn version() -> impl IntoResponse {
    Json(json!({"etcdserver": super::ETCD_VERSION, "etcdcluster": super::ETCD_VERSION}))
}

async fn range(State(service): State<Service>, body: Bytes) -> Response {
    // Writing it as JSON takes as long as reading it.
    let read = service.api.apart(move |api| {
        match parse(&body).and_then(|request: RangeRequest| api.range(&request)) {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => refuse(&error),
        }
    });
    read.await.unwrap_or_else(|error| refuse(&error))
}

async fn put(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { service.api.put(parse::<PutRequest>(&body)?).await }).await
}

async fn delete_range(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { service.api.delete_range(parse::<DeleteRangeRequest>(&body)?).await }).await
}

async fn txn(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { service.api.txn(parse::<TxnRequest>(&body)?).await }).await
}

async fn compact(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { Ok(service.api.compact(&parse::<CompactionRequest>(&body)?)) }).await
}

async fn grant(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { service.grant(&parse::<LeaseGrantRequest>(&body)?) }).await
}

async fn revoke(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { service.revoke(&parse::<LeaseRevokeRequest>(&body)?) }).await
}

async fn keep_alive(State(service): State<Service>, body: Bytes) -> Response {
    // A stream in gRPC: over HTTP one question, one line.
    answer(async { Ok(json!({"result": service.keep_alive(&parse::<LeaseKeepAliveRequest>(&body)?)})) }).await
}

async fn time_to_live(State(service): State<Service>, body: Bytes) -> Response {
    answer(async { Ok(service.time_to_live(&parse::<LeaseTimeToLiveRequest>(&body)?)) }).await
}

async fn leases(State(service): State<Service>) -> Response {
    answer(async { Ok(service.leases()) }).await
}

async fn status(State(service): State<Service>) -> Response {
    answer(async { Ok(service.status()) }).await
}

async fn authenticate(body: Bytes) -> Response {
    answer(async {
        parse::<AuthenticateRequest>(&body)?;
        Err::<proto::AuthenticateResponse, _>(super::grpc::no_auth())
    })
    .await
}

async fn watch(State(service): State<Service>, body: Bytes) -> Response {
    let create = match parse::<WatchRequest>(&body).map(|request| request.request_union) {
        Ok(Some(RequestUnion::CreateRequest(create))) => create,
        Ok(_) => return refuse(&Status::invalid_argument("a watch begins with `create_request`")),
        Err(error) => return refuse(&error),
    };
    let (out, answers) = mpsc::channel(super::grpc::QUEUE);
    let watcher = Watcher { id: create.watch_id, request: create, out, told: Arc::default() };
    tokio::spawn(watcher::run(Arc::clone(&service.api), watcher));
    let lines = ReceiverStream::new(answers).map(|answer| {
        let mut line = json!({ "result": answer }).to_string();
        line.push('\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Status> {
    let bad = |error: serde_json::Error| Status::invalid_argument(format!("the body: {error}"));
    match serde_json::from_slice(body) {
        Ok(read) => Ok(read),
        Err(error) => {
            let mut value: Value = serde_json::from_slice(body).map_err(bad)?;
            if !drop_nulls(&mut value) {
                return Err(bad(error));
            }
            serde_json::from_value(value).map_err(bad)
        }
    }
}

/// In the JSON of protocol buffers `null` is the default, as if the field were not there. Says whether there was any.
fn drop_nulls(value: &mut Value) -> bool {
    let Value::Object(fields) = value else { return false };
    let before = fields.len();
    fields.retain(|_, field| !field.is_null());
    let some = before != fields.len();
    fields.values_mut().fold(some, |some, field| drop_nulls(field) || some)
}

/// What is nowhere: in the words of gRPC to who speaks it, in those of etcd's gateway to others.
pub async fn unknown(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("").into_http::<Body>();
    }
    refuse(&Status::not_found("Not Found"))
}

async fn answer<T: Serialize>(call: impl Future<Output = Result<T, Status>>) -> Response {
    match call.await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &Status) -> Response {
    let status = match error.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = error.message();
    (status, Json(json!({"error": text, "message": text, "code": error.code() as i32}))).into_response()
}
