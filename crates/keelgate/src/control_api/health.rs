//! Which nodes are up: `/v1/healthcheck` as JSON and as a page, and the metric.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use model::{Key, Kind, Resource};
use proxy::upstream::health::Target;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Parts, View, apisix, error};

/// Whose upstreams can be checked, in APISIX's order.
const CHECKED: [Kind; 4] = [Kind::Routes, Kind::StreamRoutes, Kind::Services, Kind::Upstreams];

pub fn router() -> Router<Arc<View>> {
    Router::new().route("/v1/healthcheck", get(all)).route("/v1/healthcheck/{*of}", get(one))
}

/// One resource whose upstream is checked.
#[derive(Serialize)]
pub struct Checked {
    pub name: String,
    /// Empty before the first request has come.
    pub nodes: Arc<[Arc<Target>]>,
    /// How nodes are asked.
    #[serde(rename = "type")]
    kind: String,
}

/// Every resource whose upstream is checked.
pub fn checked(parts: &Parts) -> Vec<Checked> {
    let snapshot = apisix::snapshot(parts);
    CHECKED.into_iter().flat_map(|kind| snapshot.of(kind)).filter_map(|r| Checked::of(parts, r)).collect()
}

impl Checked {
    /// None where the resource has no checks.
    fn of(parts: &Parts, resource: &Resource) -> Option<Self> {
        let value: Value = resource.read().ok()?;
        let (checks, name) = match (&value["checks"], &value["upstream"]["checks"]) {
            (Value::Null, Value::Null) => return None,
            (Value::Null, inline) => (inline, format!("{}#upstream", resource.key)),
            (own, _) => (own, resource.key.to_string()),
        };
        let health = parts.data.as_ref().and_then(|data| data.checkers().get(&name));
        Some(Self {
            name: apisix::full_key(parts, &resource.key),
            nodes: health.map(|health| health.checked()).unwrap_or_default(),
            kind: checks["active"]["type"].as_str().unwrap_or("http").to_owned(),
        })
    }
}

async fn all(State(view): State<Arc<View>>, headers: HeaderMap) -> Response {
    let checked = checked(&view.parts());
    if wants_page(&headers) { Html(page(&checked)).into_response() } else { Json(checked).into_response() }
}

async fn one(State(view): State<Arc<View>>, Path(of): Path<String>, headers: HeaderMap) -> Response {
    let mut segments = of.split('/');
    let folder = segments.next().unwrap_or_default();
    let Some(id) = segments.next() else {
        return error(StatusCode::NOT_FOUND, &format!("missing src id for src type {folder}"));
    };
    let Some(kind) = CHECKED.into_iter().find(|kind| kind.name() == folder) else {
        return error(StatusCode::BAD_REQUEST, &format!("invalid src type {folder}"));
    };
    let parts = view.parts();
    let snapshot = apisix::snapshot(&parts);
    let Some(resource) = snapshot.get(&Key::new(kind, id)) else {
        return error(StatusCode::NOT_FOUND, &format!("{folder}[{id}] not found"));
    };
    match Checked::of(&parts, resource) {
        Some(checked) if wants_page(&headers) => Html(page(&[checked])).into_response(),
        Some(checked) => Json(checked).into_response(),
        None => error(StatusCode::NOT_FOUND, &format!("no checker for {folder}[{id}]")),
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// A table with a line for each node, red where it is down.
fn page(checked: &[Checked]) -> String {
    const HEADINGS: [&str; 9] = [
        "Index",
        "Upstream",
        "Check type",
        "Host",
        "Status",
        "Success counts",
        "TCP Failures",
        "HTTP Failures",
        "TIMEOUT Failures",
    ];
    let mut rows = String::new();
    let nodes = checked.iter().flat_map(|one| one.nodes.iter().map(move |node| (one, node)));
    for (number, (one, node)) in nodes.enumerate() {
        let (state, counters) = (node.state(), node.counters());
        rows.push_str(if state.is_up() { "<tr>" } else { "<tr bgcolor=\"#FF0000\">" });
        let status = json!(state);
        for cell in [
            &(number + 1).to_string(),
            &one.name,
            &one.kind,
            &format!("{}:{}", node.id.ip, node.id.port),
            status.as_str().unwrap_or_default(),
            &counters.success.to_string(),
            &counters.tcp_failure.to_string(),
            &counters.http_failure.to_string(),
            &counters.timeout_failure.to_string(),
        ] {
            // Writing to a String can't fail.
            let _ = write!(rows, "<td>{}</td>", escaped(cell));
        }
        rows.push_str("</tr>\n");
    }
    let headings: String = HEADINGS.iter().map(|heading| format!("<th>{heading}</th>")).collect();
    let title = "Upstream check status";
    format!(
        "<html xmlns=\"http://www.w3.org/1999/xhtml\">\n<head><title>{title}</title></head>\n<body>\n\
         <h1>{title}</h1>\n<table cellspacing=\"0\" cellpadding=\"3\" border=\"1\">\n\
         <tr bgcolor=\"#C0C0C0\">{headings}</tr>\n{rows}</table>\n</body>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
