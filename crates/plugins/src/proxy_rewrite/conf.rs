//! What users configure of `proxy-rewrite`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
pub struct Conf {
    pub uri: Option<String>,
    pub method: Option<String>,
    pub regex_uri: Option<Vec<String>>,
    pub host: Option<String>,
    pub headers: Option<Map<String, Value>>,
    pub use_real_request_uri_unsafe: bool,
}

/// Those that nginx has a number for.
const METHODS: [&str; 14] = [
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK", "UNLOCK",
    "PATCH", "TRACE",
];

pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "uri": {
                "description": "the new URI; may have variables in it",
                "type": "string",
                "minLength": 1,
                "maxLength": 4096,
                "pattern": r"^\/.*"
            },
            "method": {"description": "the new method", "type": "string", "enum": METHODS},
            "regex_uri": {
                "description": "pairs of a regular expression and what the part of the path it matches is \
                                replaced by; the first that matches counts, and `uri` comes before all",
                "type": "array",
                "minItems": 2,
                "items": {"type": "string"}
            },
            "host": {
                "description": "the new `Host`",
                "type": "string",
                "pattern": r"^[0-9a-zA-Z-.]+(:\d{1,5})?$"
            },
            "headers": headers(),
            "use_real_request_uri_unsafe": {
                "description": "pass on the URI as the client wrote it, dot segments and all",
                "type": "boolean",
                "default": false
            }
        },
        "minProperties": 1
    })
}

fn headers() -> Value {
    let scalar = json!([{"type": "string"}, {"type": "number"}]);
    let list = json!({"type": "array", "minItems": 1, "items": {"oneOf": scalar}});
    let named = json!({
        "type": "object",
        "minProperties": 1,
        "patternProperties": {"^[^:]+$": {"oneOf": [{"type": "string"}, {"type": "number"}, list]}}
    });
    json!({
        "description": "headers of the request to the upstream; may have variables and `$1` of `regex_uri` in them",
        "oneOf": [
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": false,
                "properties": {
                    "add": named,
                    "set": named,
                    "remove": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "pattern": "^[^:]+$"}
                    }
                }
            },
            {
                "type": "object",
                "minProperties": 1,
                "patternProperties": {"^[^:]+$": {"oneOf": scalar}}
            }
        ]
    })
}
