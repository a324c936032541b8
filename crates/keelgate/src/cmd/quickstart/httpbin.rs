//! The sample upstream: the part of httpbin that people try gateways with.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, OriginalUri, Path, Query},
    response::IntoResponse,
    routing::{any, get},
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

/// Longest `/delay/N`, in seconds.
const LONGEST_DELAY: u64 = 10;

type Args = Query<BTreeMap<String, String>>;
type Peer = ConnectInfo<SocketAddr>;

/// Serves until the process ends.
pub async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/ip", get(ip))
        .route("/get", get(echo))
        .route("/headers", get(|headers: HeaderMap| async move { Json(json!({"headers": named(&headers)})) }))
        .route("/status/{code}", any(status))
        .route("/delay/{seconds}", any(delay))
        .route("/anything", any(echo))
        .route("/anything/{*rest}", any(echo));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

async fn ip(peer: Peer, headers: HeaderMap) -> Json<Value> {
    Json(json!({ "origin": origin(&peer, &headers) }))
}

async fn status(Path(code): Path<u16>) -> impl IntoResponse {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST)
}

async fn delay(
    Path(seconds): Path<u64>,
    method: Method,
    uri: OriginalUri,
    args: Args,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    tokio::time::sleep(Duration::from_secs(seconds.min(LONGEST_DELAY))).await;
    echo(method, uri, args, peer, headers, body).await
}

async fn echo(
    method: Method,
    OriginalUri(uri): OriginalUri,
    Query(args): Args,
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    Json(json!({
        "args": args,
        "data": String::from_utf8_lossy(&body),
        "headers": named(&headers),
        "method": method.as_str(),
        "origin": origin(&peer, &headers),
        "url": format!("http://{host}{uri}"),
    }))
}

fn origin(ConnectInfo(peer): &Peer, headers: &HeaderMap) -> String {
    let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    forwarded.map_or_else(|| peer.ip().to_string(), str::to_owned)
}

fn named(headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, header)| (name.to_string(), value(header))).collect()
}
