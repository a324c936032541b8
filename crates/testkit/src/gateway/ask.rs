//! What a test asks a node: by the Admin API, the control API, the metrics, and through the proxy.

use std::fmt::Display;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Method;
use serde_json::{Value, json};

use super::{ADMIN_KEY, Gateway, SOON};
use crate::http::{Response, get, request};
use crate::upstream::Upstream;
use crate::wait::{eventually, expect};

impl Gateway {
    /// A request to the Admin API: `admin(Method::PUT, "routes/1", json)`; `Value::Null` for no body.
    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> Response {
        let url = format!("http://127.0.0.1:{}/apisix/admin/{path}", self.ports.admin);
        let headers = [("X-API-KEY", ADMIN_KEY), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(method, &url, &headers, body).await.unwrap_or_else(|error| panic!("Admin API: {error:#}"))
    }

    /// PUTs a resource, which must be taken.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> impl Future<Output = Response> {
        let caller = Location::caller();
        async move {
            let response = self.admin(Method::PUT, path, body).await;
            assert!(matches!(response.status, 200 | 201), "PUT {path} ({caller}): {}", response.text());
            response
        }
    }

    /// DELETEs a resource, which must be there.
    #[track_caller]
    pub fn delete(&self, path: &str) -> impl Future<Output = Response> {
        let caller = Location::caller();
        async move {
            let response = self.admin(Method::DELETE, path, &Value::Null).await;
            assert_eq!(response.status, 200, "DELETE {path} ({caller}): {}", response.text());
            response
        }
    }

    /// What `/v1/config` on the control API says.
    pub async fn config_view(&self) -> anyhow::Result<Value> {
        let response = get(&self.control_url("/v1/config")).await?;
        anyhow::ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(serde_json::from_slice(&response.body)?)
    }

    /// Waits until `/v1/config` satisfies a condition, and gives it.
    #[track_caller]
    pub fn config_when(
        &self,
        what: impl Display,
        holds: impl Fn(&Value) -> bool,
    ) -> impl Future<Output = Value> {
        eventually(SOON, what, async move || match self.config_view().await {
            Ok(view) if holds(&view) => Ok(view),
            Ok(view) => Err(view.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until it serves from this source.
    #[track_caller]
    pub fn source(&self, source: &str) -> impl Future<Output = Value> {
        self.config_when(format!("source {source}"), move |view| view["source"] == source)
    }

    /// GET on the proxy's port.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        get(&self.url(path)).await
    }

    /// Waits until the proxy answers 200 to a path, and gives the answer.
    #[track_caller]
    pub fn serves(&self, path: &str) -> impl Future<Output = Response> {
        eventually(SOON, format!("200 at {path}"), async move || match self.get(path).await {
            Ok(response) if response.status == 200 => Ok(response),
            Ok(response) => Err(format!("{} {}", response.status, response.text())),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until all that was written so far is in force: changes take effect in their order, and a route to
    /// `marker`, which nothing else leads to, is written last.
    #[track_caller]
    pub fn settle(&self, marker: &Upstream) -> impl Future<Output = ()> {
        static CHANGES: AtomicU32 = AtomicU32::new(0);
        let path = format!("/anything/settled/{}", CHANGES.fetch_add(1, Ordering::Relaxed));
        let upstream = json!({ "type": "roundrobin", "nodes": { marker.node(): 1 } });
        let route = json!({ "uri": path, "priority": 1000, "upstream": upstream });
        let settled = eventually(SOON, "changes in force", async move || {
            let answer = self.get(&path).await.map_err(|error| format!("{error:#}"))?;
            // Another route may take it before this one is there.
            let own = answer.header("x-upstream") == marker.port().to_string();
            expect(own, format!("{} {}", answer.status, answer.text()))
        });
        async move {
            self.put("routes/settled", &route).await;
            settled.await;
        }
    }

    /// The value of a metric's line, as `keelgate_config_source{source="bucket"}`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let url = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", self.ports.prometheus);
        let text = get(&url).await?.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.and_then(|value| value.trim().parse().ok()))
    }
}
