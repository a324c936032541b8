//! Answers in the shapes of version 2 (`admin_api_version: v2`), where they told what was done.
//!
//! The rule to know: only what went well has another shape; refusals are the same in both.

use http::Method;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Content};

/// Wraps an answer about resources; `folder` is the key of the list they are in.
pub fn reshape(method: &Method, folder: &str, mut answer: Answer) -> Answer {
    if let Content::Json(body @ Value::Object(_)) = &mut answer.body {
        let fields = std::mem::take(body);
        if let Value::Object(fields) = fields {
            *body = reshaped(method, folder, fields);
        }
    }
    answer
}

fn reshaped(method: &Method, folder: &str, mut fields: Map<String, Value>) -> Value {
    let action = match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "set",
        Method::PATCH => "compareAndSwap",
        _ => {
            fields.extend([("action".to_owned(), json!("delete")), ("node".to_owned(), json!({}))]);
            return Value::Object(fields);
        }
    };
    let node = match fields.shift_remove("list") {
        Some(list) => json!({ "dir": true, "key": folder, "nodes": list }),
        None => {
            fields.retain(|name, _| !["createdIndex", "modifiedIndex"].contains(&name.as_str()));
            Value::Object(fields)
        }
    };
    json!({ "action": action, "node": node })
}
