//! The Prometheus page: what the engine counted, and what is to say of configuration and backups.

use std::{fmt::Write as _, sync::Arc};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, Uri, header};
use model::Kind;
use store::source::Origin;

use super::{Parts, View, apisix, health};
use crate::planes::{self, data::DataPlane};

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn router(view: Arc<View>, path: &str) -> Router {
    let path: Arc<str> = path.into();
    // Not a route: what a person wrote there need not be one, and a route that is none is a panic.
    let page = move |view: State<Arc<View>>, uri: Uri| async move {
        if uri.path() == &*path {
            page(view).await.into_response()
        } else {
            StatusCode::NOT_FOUND.into_response()
        }
    };
    Router::new().fallback(get(page)).with_state(view)
}

async fn page(State(view): State<Arc<View>>) -> impl IntoResponse {
    let parts = view.parts();
    let attr = parts.settings.instance.config.config_payload.plugin_attr.get("prometheus").cloned();
    let prefix =
        attr.as_ref().and_then(|attr| attr["metric_prefix"].as_str()).unwrap_or("apisix_").to_owned();
    let mut text = parts.data.as_ref().map_or_else(String::new, |data| data.shared.metrics.render(&prefix));
    node(&prefix, &mut Page(&mut text));
    own(&parts, &prefix, &mut Page(&mut text));
    upstreams(&parts, &prefix, &mut Page(&mut text));
    ([(header::CONTENT_TYPE, TEXT)], text)
}

struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, f64)]) {
        self.family("gauge", (name, help), values);
    }

    fn family(&mut self, kind: &str, (name, help): (&str, &str), values: &[(&str, f64)]) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// What APISIX's dashboards look for on every node. Errors of its library for metrics there can be none of.
fn node(prefix: &str, page: &mut Page<'_>) {
    let errors = format!("{prefix}nginx_metric_errors_total");
    page.family("counter", (&errors, "Number of nginx-lua-prometheus errors"), &[("", 0.0)]);
    let labels = format!("{{hostname=\"{}\",version=\"{}\"}}", planes::hostname(), env!("CARGO_PKG_VERSION"));
    page.gauge(&format!("{prefix}node_info"), "Info of APISIX node", &[(&labels, 1.0)]);
}

fn own(parts: &Parts, prefix: &str, page: &mut Page<'_>) {
    if let Some(source) = &parts.source {
        configuration(parts, &source.status(), prefix, page);
    }
    let opened = parts.control.as_ref().and_then(|control| control.opened());
    if let Some(exporter) = opened.as_ref().and_then(|opened| opened.exporter.as_ref()) {
        backup(&exporter.status(), page);
    }
}

fn upstreams(parts: &Parts, prefix: &str, page: &mut Page<'_>) {
    let checked = health::checked(parts);
    let nodes = checked.iter().flat_map(|one| one.nodes.iter().map(move |node| (&one.name, node)));
    let values: Vec<(String, f64)> = nodes
        .map(|(name, node)| {
            let labels = format!("{{name=\"{name}\",ip=\"{}\",port=\"{}\"}}", node.id.ip, node.id.port);
            (labels, f64::from(u8::from(node.is_up())))
        })
        .collect();
    if !values.is_empty() {
        let values: Vec<(&str, f64)> =
            values.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
        page.gauge(&format!("{prefix}upstream_status"), "Upstream status from health check", &values);
    }
}

fn configuration(parts: &Parts, status: &store::source::Status, prefix: &str, page: &mut Page<'_>) {
    let flag = |on: bool| f64::from(u8::from(on));
    let sources: Vec<(String, f64)> = Origin::ALL
        .into_iter()
        .map(|origin| (format!("{{source=\"{origin}\"}}"), flag(status.source == Some(origin))))
        .collect();
    let sources: Vec<(&str, f64)> = sources.iter().map(|(label, value)| (label.as_str(), *value)).collect();
    page.gauge("keelgate_config_source", "1 for the source of the configuration in force", &sources);
    page.gauge(
        "keelgate_config_revision",
        "Revision of the configuration in force",
        &[("", count(status.revision))],
    );
    page.gauge(
        "keelgate_config_age_seconds",
        "Seconds since the store was last known to hold the configuration in force",
        &[("", status.age_s.map_or(f64::NAN, count))],
    );
    page.gauge(
        "keelgate_config_held",
        "1 while a returning control plane's configuration is held",
        &[("", flag(status.held.is_some()))],
    );
    page.gauge(
        "keelgate_config_rejected",
        "Resources that are refused",
        &[("", count(super::rejected(parts).len() as u64))],
    );
    if status.bucket.last_poll.is_some() {
        page.gauge(
            "keelgate_bucket_reachable",
            "1 if the backup could be read when it was last looked at",
            &[("", flag(status.bucket.last_error.is_none()))],
        );
    }
    if parts.has_file() {
        page.gauge(
            "keelgate_config_file_error",
            "1 while the file with the configuration can't be read as it is",
            &[("", flag(status.file.last_error.is_some()))],
        );
    }
    if let Some(data) = &parts.data {
        page.gauge(
            "keelgate_config_apply_seconds",
            "How long the last change took to compile and put in force",
            &[("", data.last().took.as_secs_f64())],
        );
    }
    if let Some(data) = &parts.data {
        secrets(data, page);
    }
    if parts.has_control_plane() {
        control_plane(parts, status, prefix, page);
    }
}

/// Only where there is one: an alert on it must not fire for a node that stands alone.
fn control_plane(parts: &Parts, status: &store::source::Status, prefix: &str, page: &mut Page<'_>) {
    let connected = f64::from(u8::from(status.cp.connected));
    page.gauge("keelgate_cp_connected", "1 while the control plane is followed", &[("", connected)]);
    // APISIX's names for the same, for dashboards that are there already.
    page.gauge(
        &format!("{prefix}etcd_reachable"),
        "Config server etcd reachable from APISIX, 0 is unreachable",
        &[("", connected)],
    );
    let snapshot = apisix::snapshot(parts);
    let newest = |kind: Kind| snapshot.of(kind).map(|resource| resource.modified).max().unwrap_or(0);
    let mut indexes: Vec<(&str, u64)> = INDEXED.iter().map(|kind| (kind.name(), newest(*kind))).collect();
    // Credentials are below the consumers' prefix.
    let credentials = newest(Kind::Credentials);
    for (_, index) in indexes.iter_mut().filter(|(name, _)| *name == Kind::Consumers.name()) {
        *index = credentials.max(*index);
    }
    indexes.push(("max_modify_index", indexes.iter().map(|(_, index)| *index).max().unwrap_or(0)));
    indexes.extend([("prev_index", status.revision), ("x_etcd_index", status.revision)]);
    let values: Vec<(String, f64)> =
        indexes.into_iter().map(|(key, index)| (format!("{{key=\"{key}\"}}"), count(index))).collect();
    let values: Vec<(&str, f64)> = values.iter().map(|(label, value)| (label.as_str(), *value)).collect();
    let name = format!("{prefix}etcd_modify_indexes");
    page.gauge(&name, "Etcd modify index for APISIX keys", &values);
}

/// Those of which APISIX tells when they were last written: `etcd_modify_index` in `prometheus/exporter.lua`.
const INDEXED: [Kind; 8] = [
    Kind::Routes,
    Kind::Services,
    Kind::Ssls,
    Kind::Consumers,
    Kind::GlobalRules,
    Kind::Upstreams,
    Kind::StreamRoutes,
    Kind::Protos,
];

fn secrets(data: &DataPlane, page: &mut Page<'_>) {
    let heard = data.heard_of_secrets();
    if heard.is_empty() {
        return;
    }
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&proxy::secrets::Heard) -> usize| {
        let values: Vec<(String, f64)> = heard
            .iter()
            .map(|one| (format!("{{manager=\"{}\"}}", one.manager), count(value(one) as u64)))
            .collect();
        let values: Vec<(&str, f64)> = values.iter().map(|(label, value)| (label.as_str(), *value)).collect();
        page.gauge(name, help, &values);
    };
    gauge("keelgate_secrets_followed", "Secrets that are asked of a manager", &|one| one.followed);
    gauge("keelgate_secrets_failing", "Secrets that a manager did not give when last asked", &|one| {
        one.failing
    });
    gauge("keelgate_secrets_unresolved", "Secrets without any value", &|one| one.unresolved);
}

fn backup(status: &control::export::Status, page: &mut Page<'_>) {
    let flag = |on: bool| f64::from(u8::from(on));
    let each = |value: &dyn Fn(&control::export::BackendStatus) -> f64| -> Vec<(String, f64)> {
        status.backends.iter().map(|one| (format!("{{backend=\"{}\"}}", one.name), value(one))).collect()
    };
    let mut family = |kind: &str, name: &str, help: &str, values: Vec<(String, f64)>| {
        let values: Vec<(&str, f64)> = values.iter().map(|(label, value)| (label.as_str(), *value)).collect();
        page.family(kind, (name, help), &values);
    };
    family(
        "counter",
        "keelgate_backup_errors_total",
        "Failed attempts to write",
        each(&|one| count(one.errors_total)),
    );
    let mut gauge = |name: &str, help: &str, values: Vec<(String, f64)>| family("gauge", name, help, values);
    gauge(
        "keelgate_backup_last_success_timestamp_seconds",
        "When the backup was last written or found unchanged",
        each(&|one| one.last_success.map_or(0.0, |at| at.timestamp() as f64)),
    );
    gauge(
        "keelgate_backup_age_seconds",
        "Seconds since the backup was last written or found unchanged; since the start where it never was",
        each(&|one| (chrono::Utc::now() - one.last_success.unwrap_or(status.since)).num_seconds() as f64),
    );
    gauge("keelgate_backup_sequence", "Sequence of the newest backup", each(&|one| count(one.sequence)));
    gauge(
        "keelgate_backup_verified",
        "1 if the newest backup was read back, compiled and found equal to the store",
        each(&|one| flag(one.verified == Some(true) && one.held.is_none())),
    );
    gauge(
        "keelgate_backup_guard_held",
        "1 while a backup is not written because the store looks wrong",
        each(&|one| flag(one.held.is_some())),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; 2^53 is enough")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_page_is_where_it_was_put_and_a_strange_place_is_no_panic() {
        let loaded =
            crate::settings::parse("", std::path::Path::new("/srv/conf/config.yaml"), &|_| None).unwrap();
        let view = Arc::new(View::new(&loaded.settings, crate::reload::Reloader::new().0));
        for (path, asked, status) in
            [("/m", "/m", 200), ("/m", "/n", 404), ("m", "/m", 404), ("/{", "/x", 404)]
        {
            let request = http::Request::get(asked).body(axum::body::Body::empty()).unwrap();
            let answer = router(view.clone(), path).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path} {asked}");
        }
    }
}
