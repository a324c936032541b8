//! The kinds other than upstreams.

use serde_json::{Value, json};

use super::{
    common::{
        HOST, METHODS, certificate, host, id, ip, list_of, name, port, private_key, properties,
        properties_without, timeout,
    },
    upstream::upstream,
};

fn plugins() -> Value {
    json!({"type": "object"})
}

fn script() -> Value {
    json!({"type": "string", "minLength": 10, "maxLength": 102_400})
}

/// 1 is on, 0 is off.
fn status() -> Value {
    json!({"type": "integer", "enum": [1, 0], "default": 1})
}

/// Of two ways to write one thing at most one.
fn at_most_one(one: &str, many: &str) -> Value {
    json!({"oneOf": [
        {"not": {"anyOf": [{"required": [one]}, {"required": [many]}]}},
        {"required": [one]},
        {"required": [many]},
    ]})
}

pub(super) fn route() -> Value {
    let method = json!({"type": "string", "enum": METHODS});
    json!({
        "type": "object",
        "properties": properties(json!({
            "uri": {"type": "string", "minLength": 1, "maxLength": 4096},
            "uris": list_of(&json!({"type": "string"})),
            "priority": {"type": "integer", "default": 0},
            "methods": {"type": "array", "items": method, "uniqueItems": true},
            "host": host(),
            "hosts": list_of(&host()),
            "remote_addr": ip(),
            "remote_addrs": list_of(&ip()),
            "timeout": timeout(),
            "vars": {"type": "array"},
            "filter_func": {"type": "string", "minLength": 10, "pattern": "^function"},
            "script": script(),
            "script_id": id(),
            "plugins": plugins(),
            "plugin_config_id": id(),
            "upstream": upstream(),
            "service_id": id(),
            "upstream_id": id(),
            "enable_websocket": {"type": "boolean"},
            "status": status(),
        })),
        "allOf": [
            {"oneOf": [{"required": ["uri"]}, {"required": ["uris"]}]},
            at_most_one("host", "hosts"),
            at_most_one("remote_addr", "remote_addrs"),
        ],
        "anyOf": [
            {"required": ["plugins", "uri"]},
            {"required": ["upstream", "uri"]},
            {"required": ["upstream_id", "uri"]},
            {"required": ["service_id", "uri"]},
            {"required": ["plugins", "uris"]},
            {"required": ["upstream", "uris"]},
            {"required": ["upstream_id", "uris"]},
            {"required": ["service_id", "uris"]},
            {"required": ["script", "uri"]},
            {"required": ["script", "uris"]},
        ],
        "not": {"anyOf": [{"required": ["script", "plugins"]}, {"required": ["script", "plugin_config_id"]}]},
        "additionalProperties": false,
    })
}

pub(super) fn service() -> Value {
    json!({
        "type": "object",
        "properties": properties(json!({
            "plugins": plugins(),
            "upstream": upstream(),
            "upstream_id": id(),
            "script": script(),
            "enable_websocket": {"type": "boolean"},
            "hosts": list_of(&host()),
        })),
        "additionalProperties": false,
    })
}

pub(super) fn consumer() -> Value {
    json!({
        "type": "object",
        "properties": properties_without(&["name"], json!({
            "username": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[a-zA-Z0-9_\-]+$"},
            "group_id": id(),
            "plugins": plugins(),
        })),
        "required": ["username"],
        "additionalProperties": false,
    })
}

pub(super) fn credential() -> Value {
    let below_its_consumer = json!({
        "type": "string",
        "minLength": 15,
        "maxLength": 128,
        "pattern": "^[a-zA-Z0-9-_]+/credentials/[a-zA-Z0-9-_.]+$",
    });
    json!({
        "type": "object",
        "properties": properties(json!({
            "id": {"oneOf": [id(), below_its_consumer]},
            "plugins": {"type": "object", "maxProperties": 1},
        })),
        "additionalProperties": false,
    })
}

pub(super) fn ssl() -> Value {
    let sni = json!({"type": "string", "pattern": HOST});
    json!({
        "type": "object",
        "properties": properties_without(&["name"], json!({
            "type": {"type": "string", "default": "server", "enum": ["server", "client"]},
            "cert": certificate(),
            "key": private_key(),
            "sni": sni,
            "snis": {"type": "array", "items": sni, "minItems": 1},
            "certs": {"type": "array", "items": certificate()},
            "keys": {"type": "array", "items": private_key()},
            "client": {
                "type": "object",
                "properties": {
                    "ca": certificate(),
                    "depth": {"type": "integer", "minimum": 0, "default": 1},
                    "skip_mtls_uri_regex": list_of(&json!({"type": "string"})),
                },
                "required": ["ca"],
            },
            "ocsp_stapling": {
                "type": "object",
                "properties": {
                    "enabled": {"type": "boolean", "default": false},
                    "skip_verify": {"type": "boolean", "default": false},
                    "cache_ttl": {"type": "integer", "minimum": 60, "default": 3600},
                },
            },
            "status": status(),
            "ssl_protocols": {
                "type": "array",
                "maxItems": 3,
                "uniqueItems": true,
                "items": {"enum": ["TLSv1.1", "TLSv1.2", "TLSv1.3"]},
            },
        })),
        "if": {"properties": {"type": {"enum": ["server"]}}},
        "then": {"oneOf": [{"required": ["sni", "key", "cert"]}, {"required": ["snis", "key", "cert"]}]},
        "else": {"required": ["key", "cert"]},
        "additionalProperties": false,
    })
}

pub(super) fn proto() -> Value {
    json!({
        "type": "object",
        "properties": properties(json!({
            "content": {"type": "string", "minLength": 1, "maxLength": 1_048_576},
        })),
        "required": ["content"],
        "additionalProperties": false,
    })
}

pub(super) fn global_rule() -> Value {
    json!({
        "type": "object",
        "properties": properties_without(&["name", "desc", "labels"], json!({"plugins": plugins()})),
        "required": ["id", "plugins"],
        "additionalProperties": false,
    })
}

pub(super) fn plugin_config() -> Value {
    json!({
        "type": "object",
        "properties": properties(json!({"name": {"type": "string"}, "plugins": plugins()})),
        "required": ["id", "plugins"],
        "additionalProperties": false,
    })
}

pub(super) fn consumer_group() -> Value {
    json!({
        "type": "object",
        "properties": properties(json!({"name": name(), "plugins": plugins()})),
        "required": ["id", "plugins"],
        "additionalProperties": false,
    })
}

pub(super) fn stream_route() -> Value {
    let logger = json!({
        "properties": {"name": {"type": "string"}, "filter": {"type": "array"}, "conf": {"type": "object"}},
        "dependencies": {"name": ["conf"]},
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": properties(json!({
            "remote_addr": ip(),
            "server_addr": ip(),
            "server_port": port(),
            "sni": host(),
            "upstream": upstream(),
            "upstream_id": id(),
            "service_id": id(),
            "plugins": plugins(),
            "protocol": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "superior_id": id(),
                    "conf": {"type": "object"},
                    "logger": {"type": "array", "items": logger},
                },
                "required": ["name"],
            },
        })),
        "additionalProperties": false,
    })
}
