//! APISIX's control API: the resources in force, the schemas.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::StatusCode;
use model::{Key, Kind, Resource, Snapshot, resource::Upstream, schema::Checker};
use proxy::plugin::Spec;
use proxy::upstream::discovery::Kind as Discovery;
use serde_json::{Map, Value, json};

use super::{Parts, View, error, not_found};
use crate::{planes, settings::SourceFrom};

/// The folders that can be listed, and the word for one of them.
const SHOWN: [(Kind, &str, &str); 4] = [
    (Kind::Routes, "routes", "route"),
    (Kind::Services, "services", "service"),
    (Kind::Upstreams, "upstreams", "upstream"),
    (Kind::StreamRoutes, "stream_routes", "stream_route"),
];

pub fn router(view: Arc<View>) -> Router {
    let mut router = Router::new();
    for (kind, many, one) in SHOWN {
        let list = move |State(view): State<Arc<View>>| async move { list(&view, kind) };
        let show = move |State(view): State<Arc<View>>, Path(id): Path<String>| async move {
            show(&view, kind, &id)
        };
        router =
            router.route(&format!("/v1/{many}"), get(list)).route(&format!("/v1/{one}/{{id}}"), get(show));
    }
    router
        .route("/v1/plugin_metadatas", get(all_metadata))
        .route("/v1/plugin_metadata/{name}", get(metadata))
        .route("/v1/schema", get(schema))
        .route("/v1/discovery/{kind}/dump", get(discovery_dump))
        .route("/v1/discovery/{kind}/show_dump_file", get(discovery_dump_file))
        // There is no garbage to collect: it answers as APISIX does, for scripts.
        .route("/v1/gc", post(|| async { StatusCode::OK }))
        .route("/v1/plugins/reload", put(reload))
        .with_state(view)
}

/// As in APISIX, which plugins there are is read from the settings again, and all the rest of them with it.
async fn reload(State(view): State<Arc<View>>) -> Response {
    match view.reloader.ask().await {
        Ok(()) => "done".into_response(),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason),
    }
}

/// The resources in force.
pub fn snapshot(parts: &Parts) -> Snapshot {
    if let Some(data) = &parts.data {
        return data.plan().snapshot.clone();
    }
    let opened = parts.control.as_ref().and_then(|control| control.opened());
    opened.and_then(|opened| opened.mirror.view().ok()).unwrap_or_default()
}

/// The key as APISIX's workers know it: with etcd's prefix, unless resources come from a file.
pub fn full_key(parts: &Parts, key: &Key) -> String {
    match parts.settings.source.as_ref().map(|source| &source.from) {
        Some(SourceFrom::File(_)) => format!("/{key}"),
        _ => format!("/apisix/{key}"),
    }
}

fn list(view: &View, kind: Kind) -> Response {
    let parts = view.parts();
    let snapshot = snapshot(&parts);
    let checker = checker(&parts);
    let shown = |resource| shown(&parts, checker.as_ref(), resource);
    Json(snapshot.of(kind).map(|resource| shown(resource)).collect::<Vec<_>>()).into_response()
}

fn show(view: &View, kind: Kind, id: &str) -> Response {
    let parts = view.parts();
    match snapshot(&parts).get(&Key::new(kind, id)) {
        Some(resource) => Json(shown(&parts, checker(&parts).as_ref(), resource)).into_response(),
        None => error(StatusCode::NOT_FOUND, &format!("{}[{id}] not found", kind.singular())),
    }
}

/// Knows the defaults of what is not written.
fn checker(parts: &Parts) -> Option<Checker> {
    Checker::new(planes::plugin_facts(&parts.settings)).ok()
}

/// A resource as APISIX's workers hold it, with its defaults.
fn shown(parts: &Parts, checker: Option<&Checker>, resource: &Resource) -> Value {
    let mut value: Value = resource.read().unwrap_or(Value::Null);
    let mut filled = value.clone();
    if checker.is_some_and(|checker| checker.fill(resource.key.kind, &mut filled).is_ok()) {
        value = filled;
    }
    if let Some(members) = value.as_object_mut() {
        members.insert("id".to_owned(), (*resource.key.id).into());
        for plugin in members.get_mut("plugins").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(conf) = plugin.1.as_object_mut() {
                conf.entry("_meta").or_insert_with(|| json!({}));
            }
        }
    }
    list_nodes(&mut value);
    hide_key(&mut value);
    if let Some(inline) = value.get_mut("upstream") {
        list_nodes(inline);
        hide_key(inline);
    }
    json!({
        "key": full_key(parts, &resource.key),
        "value": value,
        "createdIndex": resource.created,
        "modifiedIndex": resource.modified,
        "clean_handlers": {},
        "has_domain": false,
        "orig_modifiedIndex": resource.modified,
        "update_count": 0,
    })
}

/// A private key of a file is in plain text: nobody needs to see it here.
fn hide_key(upstream: &mut Value) {
    if let Some(tls) = upstream.get_mut("tls").and_then(Value::as_object_mut) {
        tls.shift_remove("client_key");
    }
}

/// Nodes that are written as a map are shown as the list they mean.
fn list_nodes(upstream: &mut Value) {
    if !upstream["nodes"].is_object() {
        return;
    }
    if let Ok(read) = serde_json::from_value::<Upstream>(json!({ "nodes": upstream["nodes"] })) {
        let nodes = read.nodes.iter().map(|node| match node.port {
            Some(port) => json!({"host": node.host, "port": port, "weight": node.weight}),
            None => json!({"host": node.host, "weight": node.weight}),
        });
        upstream["nodes"] = nodes.collect();
    }
}

async fn all_metadata(State(view): State<Arc<View>>) -> Response {
    let all: Vec<Value> =
        snapshot(&view.parts()).of(Kind::PluginMetadata).filter_map(|resource| named(resource)).collect();
    Json(all).into_response()
}

async fn metadata(State(view): State<Arc<View>>, Path(name): Path<String>) -> Response {
    let found =
        snapshot(&view.parts()).get(&Key::new(Kind::PluginMetadata, name.clone())).and_then(|r| named(r));
    match found {
        Some(metadata) => Json(metadata).into_response(),
        None => error(StatusCode::NOT_FOUND, &format!("plugin metadata[{name}] not found")),
    }
}

fn named(resource: &Resource) -> Option<Value> {
    let mut value: Map<String, Value> = resource.read().ok()?;
    value.insert("id".into(), (*resource.key.id).into());
    Some(Value::Object(value))
}

async fn schema(State(view): State<Arc<View>>) -> Json<Value> {
    let parts = view.parts();
    let mut main: Map<String, Value> = Kind::ALL
        .into_iter()
        .map(|kind| (kind.singular().replace(' ', "_"), model::schema::of(kind).clone()))
        .collect();
    main.insert("plugins".to_owned(), plugins_schema());
    main.insert("upstream_hash_vars_schema".to_owned(), model::schema::hash_variable());
    main.insert("upstream_hash_header_schema".to_owned(), model::schema::hash_field());
    let plugins: Map<String, Value> = planes::specs(&parts.settings).map(described).collect();
    let stream_plugins: Map<String, Value> = planes::stream_specs(&parts.settings).map(described).collect();
    Json(json!({"main": main, "plugins": plugins, "stream_plugins": stream_plugins}))
}

/// The list of plugins that APISIX keeps in etcd.
fn plugins_schema() -> Value {
    let properties = json!({"name": {"type": "string", "minLength": 1}, "stream": {"type": "boolean"}});
    json!({"type": "array", "items": {"type": "object", "properties": properties, "required": ["name"]}})
}

/// A plugin by its name.
fn described(spec: &Spec) -> (String, Value) {
    let facts = spec.facts;
    let schema = model::schema::plugin_schema(&facts);
    let mut entry = json!({"priority": facts.priority, "version": 0.1, "schema": schema});
    if let Some(consumer) = facts.consumer_schema {
        entry["consumer_schema"] = consumer();
        entry["type"] = json!("auth");
    }
    if let Some(metadata) = facts.metadata_schema {
        entry["metadata_schema"] = metadata();
    }
    (facts.name.to_owned(), entry)
}

/// What is known from a registry.
async fn discovery_dump(State(view): State<Arc<View>>, Path(kind): Path<String>) -> Response {
    let parts = view.parts();
    let dump =
        parts.data.as_ref().zip(Discovery::of(&kind)).and_then(|(data, kind)| data.directory().dump(kind));
    match dump {
        Some(dump) => Json(dump).into_response(),
        None => not_found().await,
    }
}

/// The file that a registry's `dump` names.
async fn discovery_dump_file(State(view): State<Arc<View>>, Path(kind): Path<String>) -> Response {
    let parts = view.parts();
    let file = parts
        .data
        .as_ref()
        .zip(Discovery::of(&kind))
        .and_then(|(data, kind)| data.directory().dump_file(kind));
    match file {
        Some(Ok(text)) => text.into_response(),
        Some(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        None => not_found().await,
    }
}
