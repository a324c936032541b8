//! A configuration on its way into the store: what is taken, and the times and ids that are given to it.

use std::time::{SystemTime, UNIX_EPOCH};

use model::Resource;
use serde_json::{Map, Value, json};

use super::answer::Answer;

pub type Conf = Map<String, Value>;

/// The object in a body.
pub fn configuration(body: Option<Value>) -> Result<Conf, Answer> {
    match body {
        None => Err(Answer::bad("missing configurations")),
        Some(Value::Object(conf)) => Ok(conf),
        Some(other) => {
            let got = lua_type(&other);
            Err(Answer::bad(format!("invalid configuration: wrong type: expected object, got {got}")))
        }
    }
}

/// What APISIX's schema checker calls the type of a value.
pub fn lua_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "userdata",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Object(_) => "table",
    }
}

/// Times are ours to set: refuses those of a client.
pub fn forbid_times(conf: &Conf) -> Result<(), Answer> {
    let places =
        [(Some(conf), ""), (object(conf, "upstream"), "upstream."), (object(conf, "plugins"), "plugins.")];
    for (fields, prefix) in places {
        let given = |name: &&str| fields.is_some_and(|fields| fields.contains_key(*name));
        if let Some(name) = ["create_time", "update_time"].into_iter().find(|name| given(name)) {
            return Err(Answer::bad(format!("the property is forbidden:  {prefix}{name}")));
        }
    }
    Ok(())
}

fn object<'a>(conf: &'a Conf, field: &str) -> Option<&'a Conf> {
    conf.get(field).and_then(Value::as_object)
}

/// Sets the times; what is replaced keeps when it was created.
pub fn stamp(conf: &mut Value, old: Option<&Resource>) {
    #[derive(serde::Deserialize)]
    struct Created {
        create_time: Option<Value>,
    }
    let created = old.and_then(|old| old.read::<Created>().ok()?.create_time);
    conf["create_time"] = created.unwrap_or_else(|| json!(now()));
    conf["update_time"] = json!(now());
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// An id for POST: twenty digits as in APISIX, later ones greater.
pub fn new_id() -> String {
    let micros =
        SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_micros()).unwrap_or_default();
    format!("{micros:016}{:04}", rand::random_range(0..10_000))
}
