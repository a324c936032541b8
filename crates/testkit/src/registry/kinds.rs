//! What each kind of registry answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::{Body, Kind, SECRET, State, json as answer, text};

/// The token that Nacos gives for the password.
const TOKEN: &str = "a-token";

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn query(request: &Request<Incoming>) -> HashMap<String, String> {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect()
}

pub fn is_allowed(kind: Kind, request: &Request<Incoming>) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let authorization = header(AUTHORIZATION.as_str());
    match kind {
        Kind::Consul | Kind::ConsulKv => header("x-consul-token") == Some(SECRET),
        Kind::Eureka => authorization == Some(&format!("Basic {}", base64(&format!("user:{SECRET}")))),
        Kind::Kubernetes => authorization == Some(&format!("Bearer {SECRET}")),
        Kind::Nacos => {
            let query = query(request);
            let login = request.uri().path().ends_with("/auth/login");
            let (key, value) = if login { ("password", SECRET) } else { ("accessToken", TOKEN) };
            query.get(key).is_some_and(|given| given == value)
        }
    }
}

impl State {
    /// Consul's blocking query: answers when the index is another than the one asked from. Gives the new one.
    async fn blocked(&self, request: &Request<Incoming>) -> u64 {
        let query = query(request);
        let mut index = self.index.subscribe();
        if let (Some(seen), Some(wait)) = (query.get("index"), query.get("wait")) {
            let seen: u64 = seen.parse().unwrap_or(0);
            let wait = Duration::from_secs(wait.trim_end_matches('s').parse().unwrap_or(60));
            let _ = tokio::time::timeout(wait, index.wait_for(|index| *index != seen)).await;
        }
        *index.borrow()
    }

    pub(super) async fn consul(&self, request: &Request<Incoming>) -> Response<Body> {
        let index = self.blocked(request).await;
        let services = self.services();
        let path = request.uri().path();
        let body = if path == "/v1/catalog/services" {
            let names =
                services.keys().map(|name| (name.clone(), json!([]))).chain([("consul".into(), json!([]))]);
            Value::Object(names.collect())
        } else if let Some(name) = path.strip_prefix("/v1/health/service/") {
            let instance = |at: &SocketAddr| {
                json!({"Node": {"Address": "127.0.0.1"}, "Service": {
                    "Service": name, "Address": at.ip().to_string(), "Port": at.port(), "Meta": null}})
            };
            services.get(name).into_iter().flatten().map(instance).collect()
        } else if path == "/v1/health/state/any" {
            json!([])
        } else {
            return text(404, "");
        };
        indexed(answer(&body), index)
    }

    pub(super) async fn consul_kv(&self, request: &Request<Incoming>) -> Response<Body> {
        let index = self.blocked(request).await;
        let Some(prefix) = request.uri().path().strip_prefix("/v1/kv/") else { return text(404, "") };
        let services = self.services();
        let entries = services.iter().flat_map(|(service, instances)| {
            instances.iter().map(move |at| {
                json!({"Key": format!("{prefix}/{service}/{at}"), "Value": base64(r#"{"weight": 1}"#)})
            })
        });
        let entries: Vec<_> = entries.collect();
        // As Consul: a prefix without keys is not found.
        let response = if entries.is_empty() { text(404, "") } else { answer(&Value::from(entries)) };
        indexed(response, index)
    }

    pub(super) fn eureka(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/eureka/apps" {
            return text(404, "");
        }
        let instance = |at: &SocketAddr| {
            json!({"ipAddr": at.ip().to_string(), "status": "UP", "overriddenStatus": "UNKNOWN",
                "port": {"$": at.port(), "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
                "metadata": {"zone": "a"}})
        };
        let application = |(name, instances): (String, Vec<SocketAddr>)| json!({"name": name, "instance": instances.iter().map(instance).collect::<Vec<_>>()});
        let applications: Vec<_> = self.services().into_iter().map(application).collect();
        answer(&json!({"applications": {"versions__delta": "1", "application": applications}}))
    }

    pub(super) fn nacos(&self, request: &Request<Incoming>) -> Response<Body> {
        let query = query(request);
        match request.uri().path() {
            "/nacos/v1/auth/login" => answer(&json!({"accessToken": TOKEN, "tokenTtl": 18000})),
            "/nacos/v1/ns/instance/list" => {
                let part = |name: &str| query.get(name).cloned().unwrap_or_default();
                let key = format!("{}/{}/{}", part("namespaceId"), part("groupName"), part("serviceName"));
                let instance =
                    |at: &SocketAddr| json!({"ip": at.ip().to_string(), "port": at.port(), "weight": 1.0});
                let services = self.services();
                let hosts: Vec<_> = services.get(&key).into_iter().flatten().map(instance).collect();
                answer(&json!({"name": key, "hosts": hosts}))
            }
            _ => text(404, ""),
        }
    }

    /// Services are `namespace/name`, each with one port, `http`.
    pub(super) fn kubernetes(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/api/v1/endpoints" {
            return text(404, "");
        }
        let query = query(request);
        let version = (*self.index.borrow()).to_string();
        if !query.contains_key("watch") {
            let items: Vec<_> = self.services().into_iter().map(|(name, at)| endpoints(&name, &at)).collect();
            let metadata = json!({"resourceVersion": version});
            return answer(&json!({"kind": "EndpointsList", "metadata": metadata, "items": items}));
        }
        // A change is told as if every object had changed, which a client must bear.
        let (mut seen, now) = (self.services(), self.services.clone());
        let events = WatchStream::from_changes(self.index.subscribe()).map({
            move |index| {
                let services = now.lock().unwrap().clone();
                let gone = seen.iter().filter(|(name, _)| !services.contains_key(*name));
                let gone = gone.map(|(name, at)| ("DELETED", endpoints(name, at)));
                let here = services.iter().map(|(name, at)| ("MODIFIED", endpoints(name, at)));
                let mut lines = String::new();
                for (kind, mut object) in gone.chain(here) {
                    object["metadata"]["resourceVersion"] = index.to_string().into();
                    lines += &format!("{}\n", json!({"type": kind, "object": object}));
                }
                seen = services;
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(lines)))
            }
        });
        Response::new(StreamBody::new(events).boxed())
    }
}

fn endpoints(name: &str, instances: &[SocketAddr]) -> Value {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let subset = |at: &SocketAddr| json!({"addresses": [{"ip": at.ip().to_string()}], "ports": [{"name": "http", "port": at.port()}]});
    let subsets: Vec<_> = instances.iter().map(subset).collect();
    json!({"metadata": {"namespace": namespace, "name": name, "resourceVersion": "1"}, "subsets": subsets})
}

fn indexed(mut response: Response<Body>, index: u64) -> Response<Body> {
    response.headers_mut().insert("x-consul-index", HeaderValue::from(index));
    response
}
