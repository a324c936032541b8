//! `POST /configs/validate`: a whole configuration is checked, nothing is written, every error is told.

use std::collections::HashSet;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use model::Kind;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Outcome},
    place::id_text,
    rules::Rules,
};

pub fn answer(rules: &Rules, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let errors = errors(rules, &whole(headers, body)?);
    if errors.is_empty() {
        return Ok(Answer::ok(json!({})));
    }
    Err(Answer::json(
        StatusCode::BAD_REQUEST,
        json!({ "error_msg": "Configuration validation failed", "errors": errors }),
    ))
}

/// A configuration as JSON or YAML, by its content type.
pub fn whole(headers: &HeaderMap, body: &[u8]) -> Result<Value, Answer> {
    if body.is_empty() {
        return Err(Answer::bad("invalid request body: empty request body"));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let read = if kind.starts_with("application/yaml") {
        serde_saphyr::from_slice(body).map_err(|_| "invalid yaml request body".to_owned())
    } else {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    };
    match read {
        Ok(whole @ Value::Object(_)) => Ok(whole),
        Ok(_) => Err(Answer::bad("invalid request body: expected an object")),
        Err(error) => Err(Answer::bad(format!("invalid request body: {error}"))),
    }
}

/// Everything that is wrong with a configuration, resource by resource.
pub fn errors(rules: &Rules, whole: &Value) -> Vec<Value> {
    let mut errors = Vec::new();
    for kind in Kind::ALL {
        let version = format!("{kind}_conf_version");
        if whole.get(&version).is_some_and(|version| !version.is_number()) {
            errors.push(json!({ "resource_type": kind, "error": format!("{version} must be a number") }));
        }
        let mut seen = HashSet::new();
        let resources = whole.get(kind.name()).and_then(Value::as_array);
        for (index, conf) in resources.into_iter().flatten().enumerate() {
            let problems = [check(rules, kind, conf).err(), duplicate(kind, conf, &mut seen)];
            let id = name_of(conf).unwrap_or_default();
            errors.extend(problems.into_iter().flatten().map(
                |error| json!({ "resource_type": kind, "resource_id": id, "index": index, "error": error }),
            ));
        }
    }
    errors
}

fn name_of(conf: &Value) -> Option<String> {
    conf.get("id").or_else(|| conf.get("username")).and_then(id_text)
}

/// Credentials stand among the consumers, told apart by their id.
fn check(rules: &Rules, kind: Kind, conf: &Value) -> Result<(), String> {
    let id = conf.get("id").and_then(id_text).unwrap_or_default();
    match (kind, id.split_once('/')) {
        (Kind::Consumers, Some((_, rest))) if rest.starts_with("credentials/") => {
            let mut credential = conf.clone();
            credential["id"] = json!(rest.trim_start_matches("credentials/"));
            rules.check(Kind::Credentials, &credential)
        }
        (Kind::Secrets, None) => Err(format!("invalid secret id: {id}")),
        _ => rules.check(kind, conf),
    }
}

fn duplicate(kind: Kind, conf: &Value, seen: &mut HashSet<String>) -> Option<String> {
    let name = name_of(conf)?;
    let field = match (kind, conf.get("id")) {
        (Kind::Consumers, Some(_)) => "credential id",
        (Kind::Consumers, None) => "username",
        _ => "id",
    };
    let message = format!("found duplicate {field} {name} in {kind}");
    (!seen.insert(name)).then_some(message)
}
