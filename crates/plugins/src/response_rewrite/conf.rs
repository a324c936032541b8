//! What users configure of `response-rewrite`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
pub struct Conf {
    pub max_resp_body_size: usize,
    pub headers: Option<Map<String, Value>>,
    pub body: Option<String>,
    pub body_base64: bool,
    pub status_code: Option<u16>,
    pub vars: Option<Value>,
    pub filters: Option<Vec<FilterConf>>,
}

#[derive(Debug, Deserialize)]
pub struct FilterConf {
    pub regex: String,
    pub scope: Scope,
    pub replace: String,
    pub options: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Once,
    Global,
}

pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "max_resp_body_size": {
                "description": "bytes of a body that are held for filters; what is longer is cut off",
                "type": "integer",
                "minimum": 1,
                "default": 64 * 1024 * 1024
            },
            "headers": headers(),
            "body": {"description": "the new body", "type": "string"},
            "body_base64": {
                "description": "whether `body` is written in Base64",
                "type": "boolean",
                "default": false
            },
            "status_code": {
                "description": "the new status",
                "type": "integer",
                "minimum": 200,
                "maximum": 598
            },
            "vars": {"description": "for which responses: conditions on variables", "type": "array"},
            "filters": {
                "description": "replacements in the body, one after the other",
                "type": "array",
                "minItems": 1,
                "items": filter()
            }
        },
        "dependencies": {
            "body": {"not": {"required": ["filters"]}},
            "filters": {"not": {"required": ["body"]}}
        }
    })
}

fn filter() -> Value {
    json!({
        "type": "object",
        "required": ["regex", "replace"],
        "properties": {
            "regex": {"type": "string", "minLength": 1},
            "scope": {
                "description": "the first match, or all",
                "type": "string",
                "enum": ["once", "global"],
                "default": "once"
            },
            "replace": {"type": "string"},
            "options": {"description": "those of ngx.re.sub", "type": "string", "default": "jo"}
        }
    })
}

fn headers() -> Value {
    let named = json!({
        "type": "object",
        "minProperties": 1,
        "patternProperties": {"^[^:]+$": {"oneOf": [{"type": "string"}, {"type": "number"}]}}
    });
    json!({
        "description": "headers of the response; may have variables in them",
        "anyOf": [
            named,
            {
                "properties": {
                    "add": {
                        "description": "`name: value`",
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "pattern": "^[^:]+:[^:]*[^/]$"}
                    },
                    "set": named,
                    "remove": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "pattern": "^[^:]+$"}
                    }
                }
            }
        ]
    })
}
