//! `POST /configs/validate`: a whole configuration is checked, nothing is written, every error is told.

use std::collections::HashSet;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use model::Kind;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Outcome},
    call,
    conf::lua_type,
    place::id_text,
    rules::Rules,
    shared_limits::Groups,
};

/// The client's own revision of a resource, beside its configuration.
pub const INDEX: &str = "modifiedIndex";

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
        let text = std::str::from_utf8(body).ok();
        let read = text.and_then(|text| model::snapshot_file::yaml(text).ok());
        let settled = |fields| {
            let mut whole = Value::Object(fields);
            model::number::settle(&mut whole);
            whole
        };
        read.map(settled).ok_or_else(|| "invalid yaml request body".to_owned())
    } else {
        call::parse(body)
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
    let mut groups = Groups::default();
    // Credentials stand among the consumers.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Credentials) {
        if let Err((error, got)) = version(whole, kind) {
            errors.push(json!({ "resource_type": kind, "error": format!("{error}, got {got}") }));
        }
        let mut seen = HashSet::new();
        let resources = match whole.get(kind.name()) {
            Some(Value::Array(resources)) => &resources[..],
            None | Some(Value::Null) => &[],
            Some(Value::Object(members)) if members.is_empty() => &[],
            Some(other) => {
                let error = format!("{kind} must be an array, got {}", lua_type(other));
                errors.push(json!({ "resource_type": kind, "error": error }));
                &[]
            }
        };
        for (index, conf) in resources.iter().enumerate() {
            let problems = [
                check(rules, kind, conf).err(),
                duplicate(kind, conf, &mut seen),
                groups.check(rules, kind, conf).err(),
            ];
            let id = name_of(conf).unwrap_or_default();
            errors.extend(problems.into_iter().flatten().map(
                |error| json!({ "resource_type": kind, "resource_id": id, "index": index, "error": error }),
            ));
        }
    }
    errors
}

/// Refuses a version that is no number.
pub fn versions(whole: &Value) -> Result<(), String> {
    Kind::ALL.into_iter().try_for_each(|kind| version(whole, kind)).map_err(|(error, _)| error)
}

/// What is wrong with the version of a kind, and what it is.
fn version(whole: &Value, kind: Kind) -> Result<(), (String, &'static str)> {
    let name = format!("{kind}_conf_version");
    match whole.get(&name) {
        None | Some(Value::Number(_)) => Ok(()),
        Some(other) => Err((format!("{name} must be a number"), lua_type(other))),
    }
}

fn name_of(conf: &Value) -> Option<String> {
    conf.get("id").or_else(|| conf.get("username")).and_then(id_text)
}

/// A credential is told apart from consumers by its id.
fn check(rules: &Rules, kind: Kind, conf: &Value) -> Result<(), String> {
    let mut conf = conf.clone();
    if let Value::Object(fields) = &mut conf
        && fields.get(INDEX).is_some_and(|index| index.as_u64().is_some())
    {
        fields.shift_remove(INDEX);
    }
    let id = conf.get("id").and_then(id_text).unwrap_or_default();
    match (kind, id.split_once('/')) {
        (Kind::Consumers, Some((_, rest))) if rest.starts_with("credentials/") => {
            conf["id"] = json!(rest.trim_start_matches("credentials/"));
            rules.check(Kind::Credentials, &conf)
        }
        (Kind::Secrets, None) => Err(format!("invalid secret id: {id}")),
        _ => rules.check(kind, &conf),
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
