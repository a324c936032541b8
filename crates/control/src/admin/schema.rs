//! The schemas of kinds, and checking against them without writing.

use http::StatusCode;
use model::Kind;
use serde_json::Value;

use super::{
    answer::{Answer, Outcome},
    rules::Rules,
};

/// `GET /schema/{singular}`.
pub fn get(rules: &Rules, name: &str) -> Outcome {
    let named = |kind: &Kind| kind.singular().replace(' ', "_") == name;
    match Kind::ALL.iter().find(|kind| named(kind)) {
        Some(kind) => Ok(Answer::ok(rules.schema(*kind).clone())),
        None => Err(Answer::bad(format!("not found schema: {name}"))),
    }
}

/// `POST /schema/validate/{plural}`: against the schema alone, plugins and references are not looked at.
pub fn validate(rules: &Rules, name: &str, body: Option<Value>) -> Outcome {
    let Some(kind) = Kind::from_name(name) else {
        return Err(Answer::refusal(StatusCode::NOT_FOUND, format!("Unsupported resource type: {name}")));
    };
    rules.check_schema(kind, &body.unwrap_or_default()).map_err(Answer::bad)?;
    Ok(Answer::empty(StatusCode::OK))
}
