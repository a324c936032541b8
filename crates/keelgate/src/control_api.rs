//! What this node tells about itself: status (7085), control API (9090), metrics (9091).
//!
//! The rule to know: everything here reads; only `accept`, `backup` and `reload` ask the planes to do something.

mod apisix;
mod health;
mod metrics;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{
    planes::{self, control::ControlPlane, data::DataPlane},
    reload::Reloader,
    settings::{Settings, SourceFrom},
};

pub use metrics::router as metrics_router;

/// What there is to see, swapped as a whole by a reload.
pub struct View {
    parts: ArcSwap<Parts>,
    pub reloader: Reloader,
}

/// The planes of this process.
pub struct Parts {
    pub settings: Settings,
    pub data: Option<Arc<DataPlane>>,
    pub source: Option<store::source::Handle>,
    pub control: Option<Arc<ControlPlane>>,
    /// Who this node is: see [`planes::instance_id`].
    instance_id: String,
}

impl Parts {
    /// Whether resources come from a control plane, if only this process's own.
    fn has_control_plane(&self) -> bool {
        let from = self.settings.source.as_ref().map(|source| &source.from);
        matches!(from, Some(SourceFrom::Etcd(_) | SourceFrom::Own))
    }

    /// Whether resources come from a file.
    fn has_file(&self) -> bool {
        self.settings.source.as_ref().is_some_and(|source| matches!(source.from, SourceFrom::File(_)))
    }

    /// Whether a verified configuration is served, wherever it came from.
    fn is_ready(&self) -> bool {
        match &self.source {
            Some(source) => {
                let lets_in = self.data.as_ref().is_none_or(|data| data.shared.status.is_open());
                source.status().ready && lets_in
            }
            None => self.control.as_ref().is_some_and(|control| control.opened().is_some()),
        }
    }
}

impl View {
    pub fn new(settings: &Settings, reloader: Reloader) -> Self {
        let instance_id = planes::instance_id(settings);
        let parts =
            Parts { settings: settings.clone(), data: None, source: None, control: None, instance_id };
        Self { parts: ArcSwap::from_pointee(parts), reloader }
    }

    pub fn show(
        &self,
        settings: &Settings,
        data: Option<Arc<DataPlane>>,
        source: Option<store::source::Handle>,
        control: Option<Arc<ControlPlane>>,
    ) {
        let instance_id = match self.parts.load() {
            before if before.settings.data_dir == settings.data_dir => before.instance_id.clone(),
            _ => planes::instance_id(settings),
        };
        self.parts.store(Arc::new(Parts { settings: settings.clone(), data, source, control, instance_id }));
    }

    pub fn parts(&self) -> Arc<Parts> {
        self.parts.load_full()
    }
}

/// The control API: ours, and APISIX's.
pub fn router(view: Arc<View>) -> Router {
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/config/accept", post(accept))
        .route("/v1/backup", post(backup))
        .merge(health::router())
        .with_state(view.clone())
        .merge(apisix::router(view))
        .fallback(not_found)
        // As in APISIX, where a method is part of a route.
        .method_not_allowed_fallback(not_found)
}

/// nginx's page, as APISIX's control API leaves it to nginx to answer what it does not know.
async fn not_found() -> Response {
    const PAGE: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n\
        <center><h1>404 Not Found</h1></center>\r\n<hr><center>openresty</center>\r\n</body>\r\n</html>\r\n";
    (StatusCode::NOT_FOUND, Html(PAGE)).into_response()
}

/// The status API. APISIX's paths and answers.
pub fn status_router(view: Arc<View>) -> Router {
    Router::new()
        .route("/status", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/status/ready", get(ready))
        .with_state(view)
}

/// Ready means that a verified configuration is served, wherever it came from.
async fn ready(State(view): State<Arc<View>>) -> Response {
    if view.parts().is_ready() {
        return Json(json!({"status": "ok"})).into_response();
    }
    let body = json!({"status": "error", "error": "no verified configuration is being served yet"});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn config(State(view): State<Arc<View>>) -> Json<Value> {
    Json(describe(&view.parts()))
}

/// The whole state of this node as `/v1/config` shows it.
pub fn describe(parts: &Parts) -> Value {
    let mut shown = Map::new();
    shown.insert("role".into(), parts.settings.role.name().into());
    shown.insert("group".into(), parts.settings.group.clone().into());
    shown.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    shown.insert("instance_id".into(), parts.instance_id.clone().into());
    shown.insert("pid".into(), std::process::id().into());
    let opened = parts.control.as_ref().and_then(|control| control.opened());
    match &parts.source {
        Some(source) => {
            if let Ok(Value::Object(status)) = serde_json::to_value(source.status()) {
                shown.extend(status);
            }
            for (part, is_there) in [("cp", parts.has_control_plane()), ("file", parts.has_file())] {
                if !is_there {
                    shown.insert(part.into(), Value::Null);
                }
            }
            shown.insert("ready".into(), parts.is_ready().into());
        }
        None => {
            let snapshot = opened.as_ref().and_then(|opened| opened.mirror.view().ok()).unwrap_or_default();
            shown.insert("source".into(), "none".into());
            shown.insert("store_id".into(), (*snapshot.store_id).into());
            shown.insert("revision".into(), snapshot.revision.into());
            shown.insert("resources".into(), snapshot.len().into());
            shown.insert("held".into(), Value::Null);
            shown.insert("ready".into(), parts.is_ready().into());
        }
    }
    shown.insert("rejected".into(), rejected(parts).into());
    if let Some(data) = &parts.data {
        shown.insert("discovery".into(), discovery(data));
        shown.insert("secrets".into(), secrets(data));
    }
    if let Some(opened) = opened {
        let exporter = opened.exporter.as_ref();
        shown.insert("backup".into(), exporter.map_or(Value::Null, |exporter| json!(exporter.status())));
        let instances: Vec<Value> = opened
            .instances
            .list()
            .into_iter()
            .map(|(ago, beat)| json!({"heard_s_ago": ago.as_secs(), "instance": beat}))
            .collect();
        shown.insert("data_planes".into(), instances.into());
        shown.insert("store_error".into(), opened.mirror.last_error().into());
    }
    if let Some(damage) = parts.control.as_ref().and_then(|control| control.damage()) {
        shown.insert("store_error".into(), damage.into());
    }
    Value::Object(shown)
}

/// How DNS and registries fare, by kind; `host` are the names of nodes.
fn discovery(data: &DataPlane) -> Value {
    let heard = data.directory().heard().into_iter().map(|heard| {
        let at = heard.last_answer.map(|at| chrono::DateTime::<chrono::Utc>::from(at).to_rfc3339());
        let shown = json!({"services": heard.services, "last_answer": at, "last_error": heard.last_error});
        (heard.kind.name().to_owned(), shown)
    });
    Value::Object(heard.collect())
}

/// How secret managers fare, by their ids.
fn secrets(data: &DataPlane) -> Value {
    let heard = data.heard_of_secrets().into_iter().map(|heard| {
        let at = heard.last_answer.map(|at| chrono::DateTime::<chrono::Utc>::from(at).to_rfc3339());
        let shown = json!({
            "followed": heard.followed, "failing": heard.failing, "unresolved": heard.unresolved,
            "last_answer": at, "last_error": heard.last_error,
        });
        (heard.manager.into(), shown)
    });
    Value::Object(heard.collect())
}

/// What was refused, by reading or by compiling.
fn rejected(parts: &Parts) -> Vec<Value> {
    let Some(data) = &parts.data else { return Vec::new() };
    let unreadable = data.last().unreadable;
    let mut all: Vec<Value> = unreadable.iter().map(|rejected| json!(rejected)).collect();
    all.extend(data.report.load().rejected.iter().map(|rejected| {
        json!({
            "kind": rejected.kind().name(),
            "id": rejected.id(),
            "reason": rejected.reason,
            "since": chrono::DateTime::<chrono::Utc>::from(rejected.since).to_rfc3339(),
            "serving_stale": rejected.serving_stale,
        })
    }));
    all
}

async fn accept(State(view): State<Arc<View>>) -> Response {
    let parts = view.parts();
    let mut accepted = Vec::new();
    if let Some(source) = &parts.source
        && let Ok(held) = source.accept().await
    {
        accepted.push(format!(
            "the control plane's configuration: {} resources at revision {}",
            held.offered.resources, held.offered.revision
        ));
    }
    let opened = parts.control.as_ref().and_then(|control| control.opened());
    if let Some(exporter) = opened.as_ref().and_then(|opened| opened.exporter.as_ref()) {
        let held = exporter.status().backends.into_iter().filter(|backend| backend.held.is_some());
        let names: Vec<String> = held.map(|backend| format!("the backup in {}", backend.name)).collect();
        if !names.is_empty() {
            exporter.accept().await;
            accepted.extend(names);
        }
    }
    Json(json!({ "accepted": accepted })).into_response()
}

async fn backup(State(view): State<Arc<View>>) -> Response {
    let opened = view.parts().control.as_ref().and_then(|control| control.opened());
    let Some(exporter) = opened.as_ref().and_then(|opened| opened.exporter.as_ref()) else {
        return error(StatusCode::NOT_FOUND, "this node writes no backup: it has no `fallback_cp`");
    };
    Json(json!(exporter.now().await)).into_response()
}

/// An error as APISIX's APIs answer it.
fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error_msg": text }))).into_response()
}
