//! Tells the control plane who we are and what we serve, and is told the group's instance configuration.
//!
//! The rule to know: it travels as plain JSON over the very connection that configuration is read from, so there is
//! no second address, no second TLS set-up, and no way to reach one and not the other.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use model::{Instance, InstanceEnvelope};
use serde::Serialize;
use serde_json::Value;

use super::etcd::Node;
use crate::etcd::Client;

const PATH: &str = "/api/dataplane/heartbeat";
const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer; a keyring and some plugin attributes are far less.
const LARGEST_ANSWER: usize = 16 << 20;

/// What a heartbeat says. API7's names.
#[derive(Debug, Serialize)]
pub(super) struct Beat<'a> {
    #[serde(flatten)]
    pub node: &'a Node,
    pub gateway_group: &'a str,
    /// The revision that is served.
    pub control_plane_revision: u64,
    /// Where it comes from.
    pub source: &'a str,
}

/// What came back.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Instance(Box<Instance>),
    /// Whoever listens there takes no heartbeats: a plain etcd.
    Unknown,
    /// A control plane that will not have us, and why.
    Refused(String),
}

/// Sends one. An error says that there was no answer.
pub(super) async fn beat(client: &Client, beat: &Beat<'_>) -> Result<Answer, String> {
    let body = serde_json::to_vec(beat).map_err(|error| error.to_string())?;
    let body = Full::new(Bytes::from(body));
    let request = Request::post(PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(tonic::body::Body::new(body))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let (head, body) = match client.http(request).await {
            Ok(answer) => answer.into_parts(),
            Err(none) if none.only_grpc => return Ok(Answer::Unknown),
            Err(none) => return Err(none.reason),
        };
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
        read(head.status, &body.to_bytes())
    };
    tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| format!("no answer within {TIMEOUT:?}"))?
}

fn read(status: StatusCode, body: &[u8]) -> Result<Answer, String> {
    if status.is_success() {
        let envelope = serde_json::from_slice::<InstanceEnvelope>(body);
        return Ok(envelope.map_or(Answer::Unknown, |envelope| Answer::Instance(Box::new(envelope.config))));
    }
    let reason = serde_json::from_slice::<Value>(body).ok();
    match reason.as_ref().and_then(|body| body.get("error_msg")?.as_str()) {
        _ if status.is_server_error() => Err(format!("the heartbeat was answered with {status}")),
        // etcd has no such word in its answers.
        Some(reason) => Ok(Answer::Refused(reason.to_owned())),
        None => Ok(Answer::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_control_plane_from_an_etcd() {
        let instance = br#"{"config":{"config_version":4,"config_payload":{"plugin_attr":{"a":1}}}}"#;
        let Ok(Answer::Instance(instance)) = read(StatusCode::OK, instance) else { panic!("no instance") };
        assert_eq!(instance.config_version, 4);
        for (status, body, expected) in [
            (404, "404 page not found\n", Ok(Answer::Unknown)),
            (404, r#"{"error":"Not Found","code":5}"#, Ok(Answer::Unknown)),
            (404, r#"{"error_msg":"another group"}"#, Ok(Answer::Refused("another group".into()))),
            (200, "{}", Ok(Answer::Unknown)),
            (503, "", Err("the heartbeat was answered with 503 Service Unavailable".into())),
        ] {
            assert_eq!(read(StatusCode::from_u16(status).unwrap(), body.as_bytes()), expected, "{body}");
        }
    }

    /// A control plane that takes heartbeats on the port where it speaks gRPC, and repeats what it was told.
    #[tokio::test]
    async fn speaks_plain_http_over_the_clients_connection() {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let echo = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", PATH));
            let told = request.into_body().collect().await?.to_bytes();
            let told = String::from_utf8_lossy(&told).into_owned();
            let answer = format!(r#"{{"config":{{"config_version":1,"config_payload":{{"told":{told}}}}}}}"#);
            Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer))))
        });
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(stream), echo).await
        };
        let node = Node { instance_id: "me".into(), ..Node::default() };
        let said = Beat { node: &node, gateway_group: "default", control_plane_revision: 7, source: "disk" };
        let config = crate::etcd::Config { hosts: vec![url], ..crate::etcd::Config::default() };
        let client = Client::new(config).unwrap();
        let answer = tokio::select! {
            answer = beat(&client, &said) => answer,
            ended = server => panic!("the server ended: {ended:?}"),
        };
        let Ok(Answer::Instance(instance)) = answer else { panic!("{answer:?}") };
        let told = &instance.config_payload.other["told"];
        assert_eq!(told["instance_id"], "me");
        assert_eq!(told["gateway_group"], "default");
        assert_eq!(told["control_plane_revision"], 7);
        assert_eq!(told["source"], "disk");
    }
}
