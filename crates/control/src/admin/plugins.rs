//! What plugins there are and what they take.

use http::{Method, StatusCode};
use model::{PluginFacts, plugin_facts::find};
use serde_json::{Map, Value, json};

use super::{
    Reload,
    answer::{Answer, Outcome},
    call::Args,
    rules::Rules,
};

/// `GET /plugins/list`: names, highest priority first.
pub fn list(rules: &Rules, args: &Args) -> Outcome {
    let Some(plugins) = rules.plugins_of(args.get("subsystem").unwrap_or("http")) else {
        return Err(Answer::text(StatusCode::BAD_REQUEST, "invalid subsystem passed"));
    };
    let mut plugins: Vec<&PluginFacts> = plugins.iter().collect();
    plugins.sort_by_key(|facts| std::cmp::Reverse(facts.priority));
    Ok(Answer::ok(plugins.iter().map(|facts| facts.name).collect()))
}

/// `GET /plugins/{name}`, `/schema/plugins/{name}` and `/plugins?all=true`.
pub fn get(rules: &Rules, name: Option<&str>, args: &Args) -> Outcome {
    let subsystem = args.get("subsystem").unwrap_or("http");
    let Some(plugins) = rules.plugins_of(subsystem) else {
        return Err(Answer::bad(format!("unsupported subsystem: {subsystem}")));
    };
    if args.get("all") == Some("true") {
        let all: Map<String, Value> =
            plugins.iter().map(|facts| (facts.name.to_owned(), described(rules, facts))).collect();
        return Ok(Answer::ok(Value::Object(all)));
    }
    let Some(facts) = name.and_then(|name| find(plugins, name)) else {
        let reason = format!("plugin not found in subsystem {subsystem}");
        return Err(Answer::refusal(StatusCode::NOT_FOUND, reason));
    };
    match (args.get("schema_type"), facts.consumer_schema) {
        (Some("consumer"), Some(schema)) => Ok(Answer::ok(schema())),
        (Some("consumer"), None) => Err(Answer::bad("not found schema")),
        _ => Ok(Answer::ok(rules.plugin_schema(facts))),
    }
}

/// `PUT /plugins/reload`: the settings are read again, and with them which plugins there are.
pub async fn reload(method: &Method, reload: &Reload) -> Outcome {
    if *method == Method::PUT {
        let done = |()| Answer::text(StatusCode::OK, "done");
        let failed = |reason| Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, reason);
        return reload().await.map(done).map_err(failed);
    }
    let reason = format!("please use PUT method to reload the plugins, {method} method is not allowed.");
    Err(Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, reason))
}

fn described(rules: &Rules, facts: &PluginFacts) -> Value {
    let mut described = json!({
        "version": 0.1,
        "priority": facts.priority,
        "schema": rules.plugin_schema(facts),
    });
    if let Some(schema) = facts.consumer_schema {
        described["consumer_schema"] = schema();
        described["type"] = json!("auth");
    }
    if let Some(schema) = facts.metadata_schema {
        described["metadata_schema"] = schema();
    }
    described
}
