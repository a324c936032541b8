//! Service registries in small: what Consul, Eureka, Nacos and Kubernetes document of their HTTP APIs, as far as a
//! gateway asks for it.
//!
//! ```text
//! let registry = Registry::start(Kind::Consul);
//! registry.set("web", &[upstream.address()]);
//! registry.stop();
//! ```
//!
//! The one rule: whoever does not show the secret, in the way of the kind, is refused.

mod kinds;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::Value;
use tokio::sync::watch;

use crate::background::Task;
use crate::{fake, ports};

/// Which registry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Consul,
    ConsulKv,
    Eureka,
    Nacos,
    Kubernetes,
}

/// The token, or the password of `user`.
pub const SECRET: &str = "registry-secret";

type Services = BTreeMap<String, Vec<SocketAddr>>;
type Body = BoxBody<Bytes, Infallible>;

/// A running registry; stops with its handle.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
    running: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct State {
    kind: Kind,
    services: Arc<Mutex<Services>>,
    /// Counts the changes.
    index: watch::Sender<u64>,
    /// In the place of every answer.
    nonsense: Mutex<Option<String>>,
    requests: Mutex<Vec<String>>,
}

impl Registry {
    pub fn start(kind: Kind) -> Self {
        let state = Arc::new(State {
            kind,
            services: Arc::default(),
            index: watch::channel(1).0,
            nonsense: Mutex::default(),
            requests: Mutex::default(),
        });
        let registry = Self { address: ports::address(), state, running: Mutex::default() };
        registry.restart();
        registry
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the instances of a service; none takes it out.
    pub fn set(&self, service: &str, instances: &[SocketAddr]) {
        let mut services = self.state.services.lock().unwrap();
        if instances.is_empty() {
            services.remove(service);
        } else {
            services.insert(service.to_owned(), instances.to_vec());
        }
        self.state.index.send_modify(|index| *index += 1);
    }

    /// Says this to everybody from now on.
    pub fn babble(&self, text: &str) {
        *self.state.nonsense.lock().unwrap() = Some(text.to_owned());
        self.state.index.send_modify(|index| *index += 1);
    }

    /// The requests that have come, with their queries.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop();
        }
    }

    /// Opens the same port again.
    pub fn restart(&self) {
        self.stop();
        let state = self.state.clone();
        let answer = move |request| {
            let state = state.clone();
            async move { state.answer(request).await }
        };
        *self.running.lock().unwrap() = Some(fake::serve(self.address, answer));
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.requests.lock().unwrap().push(request.uri().to_string());
        if !kinds::is_allowed(self.kind, &request) {
            return text(403, "who are you?");
        }
        if let Some(nonsense) = &*self.nonsense.lock().unwrap() {
            return text(200, nonsense);
        }
        match self.kind {
            Kind::Consul => self.consul(&request).await,
            Kind::ConsulKv => self.consul_kv(&request).await,
            Kind::Eureka => self.eureka(&request),
            Kind::Nacos => self.nacos(&request),
            Kind::Kubernetes => self.kubernetes(&request),
        }
    }

    fn services(&self) -> Services {
        self.services.lock().unwrap().clone()
    }
}

fn json(value: &Value) -> Response<Body> {
    text(200, &value.to_string())
}

fn text(status: u16, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned())).boxed();
    Response::builder().status(status).body(body).expect("a response")
}
