//! The Admin API described as an OpenAPI 3.1 document, made from the list of kinds and their schemas.

use http::Method;
use model::Kind;
use serde_json::{Map, Value, json};

use super::{place::Place, rules::Rules};

/// `GET /openapi.json`.
pub fn document(rules: &Rules) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in Kind::ALL {
        schemas.insert(kind.to_string(), rules.schema(kind).clone());
        let base = collection(kind);
        paths.insert(base.clone(), operations(kind, &base, false));
        paths.insert(format!("{base}/{{id}}"), operations(kind, &base, true));
    }
    paths.insert(
        "/plugins/list".to_owned(),
        json!({ "get": read("listPlugins", "The names of all plugins.") }),
    );
    paths.insert(
        "/plugins/{name}".to_owned(),
        json!({
            "parameters": [parameter("name")],
            "get": read("getPlugin", "The schema of a plugin."),
        }),
    );
    paths.insert(
        "/schema/{kind}".to_owned(),
        json!({
            "parameters": [parameter("kind")],
            "get": read("getSchema", "The schema of a kind."),
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Keelgate Admin API", "version": "3" },
        "servers": [{ "url": "/apisix/admin" }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "apiKey", "in": "header", "name": "X-API-KEY" } },
        },
    })
}

/// Where the resources of a kind are.
fn collection(kind: Kind) -> String {
    match kind {
        Kind::Credentials => "/consumers/{username}/credentials".to_owned(),
        Kind::Secrets => "/secrets/{manager}".to_owned(),
        _ => format!("/{kind}"),
    }
}

/// The methods a path takes, those of one resource or of the collection.
fn operations(kind: Kind, base: &str, one: bool) -> Value {
    let mut operations = Map::new();
    let mut parameters: Vec<Value> = base.split(['{', '}']).skip(1).step_by(2).map(parameter).collect();
    if one {
        parameters.push(parameter("id"));
    }
    operations.insert("parameters".to_owned(), Value::Array(parameters));
    let methods: &[Method] = if one {
        &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE]
    } else {
        &[Method::GET, Method::POST]
    };
    let place = Place { kind, owner: None, id: None, rest: vec![] };
    for method in methods.iter().filter(|method| place.allow(method).is_ok()) {
        operations.insert(method.as_str().to_ascii_lowercase(), operation(kind, method, one));
    }
    Value::Object(operations)
}

fn operation(kind: Kind, method: &Method, one: bool) -> Value {
    let noun = kind.singular();
    let (verb, codes): (&str, &[u16]) = match *method {
        Method::GET if one => ("get", &[200, 400, 404]),
        Method::GET => ("list", &[200, 400, 404]),
        Method::POST => ("create", &[201, 400]),
        Method::PUT => ("put", &[200, 201, 400, 404]),
        Method::PATCH => ("patch", &[200, 400, 404]),
        _ => ("delete", &[200, 400, 404]),
    };
    let mut operation = json!({
        "operationId": format!("{verb}_{}", kind.name()),
        "summary": format!("{verb} {noun}"),
        "tags": [kind.name()],
        "responses": responses(codes),
    });
    let body = match *method {
        Method::PUT | Method::POST => json!({ "$ref": format!("#/components/schemas/{kind}") }),
        Method::PATCH => json!({ "type": "object" }),
        _ => return operation,
    };
    operation["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": body } } });
    operation
}

/// What may be answered everywhere, and here.
fn responses(codes: &[u16]) -> Value {
    let named = codes.iter().chain(&[401, 403, 503]).map(|code| {
        let meaning = match code {
            200 => "Done, or what was asked for",
            201 => "Created",
            400 => "Refused, with the reason",
            401 => "No key, a wrong key, or a viewer's key on a write",
            403 => "This address may not call, or this node takes no writes",
            404 => "There is no such thing",
            _ => "The store can't be reached",
        };
        let content = json!({ "application/json": { "schema": { "type": "object" } } });
        (code.to_string(), json!({ "description": meaning, "content": content }))
    });
    Value::Object(named.collect())
}

fn read(id: &str, summary: &str) -> Value {
    let any = json!({ "application/json": { "schema": {} } });
    json!({
        "operationId": id,
        "summary": summary,
        "responses": {
            "200": { "description": summary, "content": any },
            "400": { "description": "Refused, with the reason" },
            "401": { "description": "No key, or a wrong key" },
            "404": { "description": "There is no such thing" },
        },
    })
}

fn parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
}
