//! Asks registries over HTTP.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use reqwest::{RequestBuilder, Response, redirect};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::upstream::client_tls;

/// Milliseconds, as registries' timeouts are written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u32);

impl Millis {
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.max(1).into())
    }
}

/// `timeout` of Eureka and Nacos.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    pub connect: Millis,
    pub send: Millis,
    pub read: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Millis(2000), send: Millis(2000), read: Millis(5000) }
    }
}

/// More than any registry has to say.
const MOST: usize = 256 << 20;

/// Asks one registry.
#[derive(Clone)]
pub struct Client(reqwest::Client);

impl Client {
    /// `roots`: whom the server's certificate must come from; none: it is not checked.
    pub fn new(connect: Duration, roots: Option<&Arc<RootCertStore>>) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_tls::plain(roots)?)
            .connect_timeout(connect)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build();
        client.map(Self).map_err(|error| chain(&error))
    }

    pub fn get(&self, url: &str) -> RequestBuilder {
        self.0.get(url)
    }

    pub fn post(&self, url: &str) -> RequestBuilder {
        self.0.post(url)
    }
}

/// What it answers, if that is 200.
pub async fn answer(request: RequestBuilder) -> Result<Response, String> {
    let response = request.send().await.map_err(|error| chain(&error))?;
    match response.status().as_u16() {
        200 => Ok(response),
        status => Err(format!("status = {status}")),
    }
}

/// The JSON that it answers within `limit`, and the head.
pub async fn json<T: DeserializeOwned>(
    request: RequestBuilder,
    limit: Duration,
) -> Result<(HeaderMap, T), String> {
    let mut response = answer(request.timeout(limit)).await?;
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + chunk.len() > MOST {
            return Err("it says more than 256 MiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body)
        .map(|read| (headers, read))
        .map_err(|error| format!("it is not understood: {error}"))
}

/// An error with its reasons. URLs are left out: there may be secrets in them.
pub fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(reason) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&reason.to_string());
        next = reason.source();
    }
    if error.is_timeout() { format!("it does not answer in time ({text})") } else { text }
}

/// Pauses between attempts: 1 s, and twice as long each time, up to half a minute.
pub struct Pauses(Duration);

impl Pauses {
    pub fn new() -> Self {
        Self(Duration::from_secs(1))
    }

    pub async fn pause(&mut self) {
        let jitter = rand::random_range(0.8..1.2);
        tokio::time::sleep(self.0.mul_f64(jitter)).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(30));
    }
}
