//! Plugins and schemas.

use super::*;

#[tokio::test]
async fn plugins_are_listed_and_described() {
    let api = api();
    let got = api.call("GET /plugins/list", &Value::Null).await.json();
    assert_eq!(got[0], "basic-auth");
    assert_eq!(got.as_array().unwrap().len(), PLUGINS.len());
    let got = api.call("GET /plugins/list?subsystem=x", &Value::Null).await;
    assert_eq!((got.status, got.text.as_str()), (400, "invalid subsystem passed"));
    let limit = json!({ "required": ["count", "time_window"], "properties": { "_meta": { "properties": { "disable": { "type": "boolean" } } } } });
    api.script(&[
        ("GET /plugins/list?subsystem=stream", Value::Null, 200, json!(["ip-restriction", "picky"])),
        ("GET /plugins/asdf", Value::Null, 404, error("plugin not found in subsystem http")),
        ("GET /schema/plugins/asdf", Value::Null, 404, error("plugin not found in subsystem http")),
        ("GET /plugins/limit-count", Value::Null, 200, limit.clone()),
        ("GET /schema/plugins/limit-count", Value::Null, 200, limit),
        ("GET /plugins/limit-count?subsystem=stream", Value::Null, 404, error("plugin not found in subsystem stream")),
        ("GET /plugins?subsystem=asdf", Value::Null, 400, error("unsupported subsystem: asdf")),
        ("GET /plugins/basic-auth?schema_type=consumer", Value::Null, 200, json!({ "required": ["username", "password"] })),
        ("GET /plugins/limit-count?schema_type=consumer", Value::Null, 400, error("not found schema")),
        ("GET /plugins?all=true", Value::Null, 200, json!({
            "key-auth": { "type": "auth", "priority": 2500, "version": 0.1, "consumer_schema": { "required": ["key"] } },
            "example-plugin": { "priority": 0, "type": null, "metadata_schema": { "required": ["ikey", "skey"] } },
        })),
        ("PUT /plugins/reload", Value::Null, 200, json!("done")),
        ("GET /plugins/reload", Value::Null, 405, error("please use PUT method to reload the plugins, GET method is not allowed.")),
    ])
    .await;
}

#[tokio::test]
async fn schemas_of_kinds() {
    let times = json!({ "properties": { "create_time": { "type": "integer" }, "update_time": { "type": "integer" } } });
    api()
        .script(&[
            (
                "GET /schema/route",
                Value::Null,
                200,
                json!({ "properties": { "plugins": { "type": "object" } } }),
            ),
            ("GET /schema/service", Value::Null, 200, json!({ "anyOf": null })),
            ("GET /schema/global_rule", Value::Null, 200, times.clone()),
            ("GET /schema/proto", Value::Null, 200, times.clone()),
            ("GET /schema/stream_route", Value::Null, 200, times),
            ("GET /schema/plugin_config", Value::Null, 200, json!({ "type": "object" })),
            ("GET /schema/noexits", Value::Null, 400, error("not found schema: noexits")),
            ("PUT /schema/service", Value::Null, 404, error("not found")),
            ("POST /schema/service", Value::Null, 404, error("not found")),
        ])
        .await;
}

#[tokio::test]
async fn validating_against_a_schema() {
    let with = |field: &str, value: Value| {
        let mut body =
            json!({ "upstream": { "scheme": "https", "type": "roundrobin", "nodes": { "nghttp2.org": 1 } } });
        body[field] = value;
        body
    };
    let none_of = error("allOf 1 failed: value should match only one schema, but matches none");
    let validate = "POST /schema/validate/routes";
    api()
        .script(&[
            (validate, with("uri", json!("/httpbin/*")), 200, Value::Null),
            (
                validate,
                with("uri", json!(666)),
                400,
                error("property \"uri\" validation failed: wrong type: expected string, got number"),
            ),
            (
                validate,
                with("uri", json!("")),
                400,
                error("property \"uri\" validation failed: string too short, expected at least 1, got 0"),
            ),
            (
                validate,
                with("uris", json!("foobar")),
                400,
                error("property \"uris\" validation failed: wrong type: expected array, got string"),
            ),
            (
                validate,
                with("uris", json!([])),
                400,
                error("property \"uris\" validation failed: expect array to have at least 1 items"),
            ),
            (
                validate,
                with("uris", json!(["/foo", "/foo"])),
                400,
                error(
                    "property \"uris\" validation failed: expected unique items but items 1 and 2 are equal",
                ),
            ),
            (validate, with("desc", json!("x")), 400, none_of),
            (
                validate,
                json!({ "uri": "/", "status": 3 }),
                400,
                error("property \"status\" validation failed: matches none of the enum values"),
            ),
            ("POST /schema/validate/upstreams", upstream(), 200, Value::Null),
            ("POST /schema/validate/nothing", upstream(), 404, error("Unsupported resource type: nothing")),
        ])
        .await;
}

#[tokio::test]
async fn the_openapi_document_has_every_kind_with_what_it_takes() {
    let document = api().call("GET /openapi.json", &Value::Null).await.json();
    for kind in Kind::ALL {
        let schema = &document["components"]["schemas"][kind.name()];
        assert_eq!(schema["type"], "object", "{kind}");
    }
    let methods = |path: &str| {
        let operations = document["paths"][path].as_object().unwrap_or_else(|| panic!("no {path}"));
        operations.keys().filter(|name| *name != "parameters").cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(methods("/routes"), "get post");
    assert_eq!(methods("/routes/{id}"), "get put patch delete");
    assert_eq!(methods("/consumers/{username}/credentials/{id}"), "get put delete");
    assert_eq!(methods("/secrets/{manager}/{id}"), "get put patch delete");
    let parameters = document["paths"]["/consumers/{username}/credentials/{id}"]["parameters"].clone();
    assert_eq!((&parameters[0]["name"], &parameters[1]["name"]), (&json!("username"), &json!("id")));
}

#[tokio::test]
async fn members_of_a_group_say_the_same_of_it() {
    let api = api();
    let limit = |count: u64, more: Value| {
        let mut limit = json!({ "count": count, "time_window": 60, "group": "g" });
        limit.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        json!({ "limit-count": limit })
    };
    let route = |plugins: Value| json!({ "uri": "/", "plugins": plugins });
    let mismatch =
        error("failed to check the configuration of plugin limit-count err: group conf mismatched");
    let elsewhere = json!({ "group": "h" });
    api.script(&[
        ("PUT /routes/1", route(limit(2, json!({}))), 201, Value::Null),
        // Alone in its group, it may say what it likes.
        ("PUT /routes/1", route(limit(1, json!({}))), 200, Value::Null),
        (
            "PUT /services/1",
            json!({ "plugins": limit(1, json!({ "key": "remote_addr", "_meta": { "priority": 1 } })) }),
            201,
            Value::Null,
        ),
        ("PUT /services/2", json!({ "plugins": limit(2, json!({})) }), 400, mismatch.clone()),
        (
            "PUT /services/2",
            json!({ "plugins": limit(2, json!({ "_meta": { "disable": true } })) }),
            201,
            Value::Null,
        ),
        ("PUT /services/2", json!({ "plugins": limit(2, elsewhere) }), 200, Value::Null),
        ("PATCH /routes/1", json!({ "plugins": { "limit-count": { "count": 3 } } }), 400, mismatch.clone()),
        ("DELETE /services/1", Value::Null, 200, Value::Null),
        ("PATCH /routes/1", json!({ "plugins": { "limit-count": { "count": 3 } } }), 200, Value::Null),
        (
            "POST /configs/validate",
            json!({
                "routes": [{ "id": "1", "uri": "/", "plugins": limit(1, json!({})) }],
                "services": [{ "id": "1", "plugins": limit(1, json!({})) }],
            }),
            200,
            Value::Null,
        ),
        (
            "POST /configs/validate",
            json!({
                "routes": [{ "id": "1", "uri": "/", "plugins": limit(1, json!({})) }],
                "consumers": [{ "username": "a", "plugins": limit(2, json!({})) }],
            }),
            400,
            json!({ "errors": [{
                "resource_type": "routes", "resource_id": "1", "index": 0,
                "error": "failed to check the configuration of plugin limit-count err: group conf mismatched",
            }] }),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_reload_that_fails_is_told() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let failing = || -> futures_util::future::BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("config.yaml:1: bad".to_owned()) })
    };
    let config = Config { reload: Arc::new(failing), ..config(store.clone()) };
    let api = Api { router: router(config).unwrap(), store };
    api.script(&[("PUT /plugins/reload", Value::Null, 500, error("config.yaml:1: bad"))]).await;
}
