//! How secret managers are reached.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::common::uri;

pub(super) static ALL: LazyLock<[(&str, Value); 3]> =
    LazyLock::new(|| [("vault", vault()), ("aws", aws()), ("gcp", gcp())]);

fn vault() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "properties": {"uri": uri(), "prefix": text, "token": text, "namespace": text},
        "required": ["uri", "prefix", "token"],
    })
}

fn aws() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "properties": {
            "access_key_id": text,
            "secret_access_key": text,
            "session_token": text,
            "region": {"type": "string", "default": "us-east-1"},
            "endpoint_url": uri(),
        },
        "required": ["access_key_id", "secret_access_key"],
    })
}

fn gcp() -> Value {
    let text = json!({"type": "string"});
    let text_or = |default: &str| json!({"type": "string", "default": default});
    json!({
        "type": "object",
        "properties": {
            "auth_config": {
                "type": "object",
                "properties": {
                    "client_email": text,
                    "private_key": text,
                    "project_id": text,
                    "token_uri": text_or("https://oauth2.googleapis.com/token"),
                    "scope": {
                        "type": "array",
                        "items": text,
                        "default": ["https://www.googleapis.com/auth/cloud-platform"],
                    },
                    "entries_uri": text_or("https://secretmanager.googleapis.com/v1"),
                },
                "required": ["client_email", "private_key", "project_id"],
            },
            "ssl_verify": {"type": "boolean", "default": true},
            "auth_file": text,
        },
        "oneOf": [{"required": ["auth_config"]}, {"required": ["auth_file"]}],
    })
}
