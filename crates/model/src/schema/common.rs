//! What several schemas share.

use serde_json::{Map, Value, json};

/// `*`, a name, a wildcard name, an address.
pub(super) const HOST: &str = r"^\*$|^\*?[0-9a-zA-Z-._\[\]:]+$";

pub(super) const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"];

pub(super) fn id() -> Value {
    json!({"anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-_.]+$"},
        {"type": "integer", "minimum": 1},
    ]})
}

pub(super) fn host() -> Value {
    json!({"type": "string", "pattern": HOST})
}

/// A list of distinct `items`, not empty.
pub(super) fn list_of(items: &Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1, "uniqueItems": true})
}

/// An address or a network.
pub(super) fn ip() -> Value {
    let byte = "([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])";
    let v4 = [byte; 4].join(r"\.");
    let v6 = "([a-fA-F0-9]{0,4}:){1,8}(:[a-fA-F0-9]{0,4}){0,8}([a-fA-F0-9]{0,4})?";
    json!({"type": "string", "anyOf": [
        {"title": "IPv4", "type": "string", "format": "ipv4"},
        {"title": "IPv4/CIDR", "type": "string", "pattern": format!("^{v4}/([12]?[0-9]|3[0-2])$")},
        {"title": "IPv6", "type": "string", "format": "ipv6"},
        {"title": "IPv6/CIDR", "type": "string", "pattern": format!("^{v6}/[0-9]{{1,3}}$")},
    ]})
}

pub(super) fn uri() -> Value {
    json!({"type": "string", "pattern": r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?"})
}

pub(super) fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256})
}

pub(super) fn timeout() -> Value {
    let seconds = json!({"type": "number", "exclusiveMinimum": 0});
    json!({
        "type": "object",
        "properties": {"connect": seconds, "send": seconds, "read": seconds},
        "required": ["connect", "send", "read"],
    })
}

pub(super) fn certificate() -> Value {
    json!({"type": "string", "minLength": 128, "maxLength": 65536})
}

pub(super) fn private_key() -> Value {
    json!({"type": "string", "minLength": 64, "maxLength": 65536})
}

pub(super) fn port() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 65535})
}

/// What every kind has, before its own `properties`.
pub(super) fn properties(own: Value) -> Value {
    let label = json!({"type": "string", "pattern": r"^\S+$", "minLength": 1, "maxLength": 256});
    let Value::Object(mut all) = json!({
        "id": id(),
        "name": name(),
        "desc": {"type": "string", "maxLength": 256},
        "labels": {"type": "object", "patternProperties": {".*": label}},
        "create_time": {"type": "integer"},
        "update_time": {"type": "integer"},
    }) else {
        return own;
    };
    all.extend(own.as_object().cloned().unwrap_or_else(Map::new));
    Value::Object(all)
}

/// [`properties`] without those that the kind does not have.
pub(super) fn properties_without(absent: &[&str], own: Value) -> Value {
    let mut all = properties(own);
    if let Some(all) = all.as_object_mut() {
        all.retain(|name, _| !absent.contains(&name.as_str()));
    }
    all
}
