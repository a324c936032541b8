//! Writing and reading resources of every kind.

use super::*;

fn none() -> Value {
    Value::Null
}

#[tokio::test]
async fn a_route_is_created_replaced_read_and_deleted() {
    let body =
        json!({ "methods": ["GET"], "upstream": upstream(), "desc": "new route", "uri": "/index.html" });
    let expected = json!({ "key": "/apisix/routes/1", "value": body });
    api()
        .script(&[
            ("PUT /routes/1", body.clone(), 201, expected.clone()),
            ("PUT /routes/1", body.clone(), 200, expected.clone()),
            ("GET /routes/1", none(), 200, expected),
            (
                "GET /routes/1/",
                none(),
                200,
                json!({ "createdIndex": 2, "modifiedIndex": 3, "value": { "id": "1" } }),
            ),
            ("DELETE /routes/1", none(), 200, json!({ "deleted": "1", "key": "/apisix/routes/1" })),
            ("DELETE /routes/not_found", none(), 404, json!({ "message": "Key not found" })),
            ("GET /routes/1", none(), 404, json!({ "message": "Key not found" })),
            ("PATCH /routes/1", json!({ "uri": "/" }), 404, json!({ "message": "Key not found" })),
        ])
        .await;
}

#[tokio::test]
async fn nothing_is_added_to_what_is_written_but_id_and_times() {
    let api = api();
    let got = api.call("PUT /services/1", &json!({ "upstream": upstream() })).await.json();
    let mut value = got["value"].clone();
    assert!(got.as_object().unwrap().keys().eq(["key", "value"]), "{got}");
    for time in ["create_time", "update_time"] {
        assert!(value.as_object_mut().unwrap().remove(time).unwrap().is_u64());
    }
    assert_eq!(value, json!({ "upstream": upstream(), "id": "1" }));
    assert_eq!(api.stored("services/1").await["upstream"], upstream());
}

#[tokio::test]
async fn whole_numbers_are_whole_however_they_are_written() {
    let body = r#"{"uri":"/","priority":1e1,"status":1.0,"upstream":{"nodes":[{"host":"a","port":80.0,"weight":-0}],
        "retries":2.0,"timeout":{"connect":1.0,"send":0.5,"read":1},"checks":{"active":{"healthy":{"successes":2.0}}}},
        "plugins":{"limit-count":{"count":1.0,"time_window":6e1,"rejected_code":503.0}}}"#;
    let settled: Value = serde_json::from_str(
        r#"{"priority":10,"status":1,"upstream":{"nodes":[{"host":"a","port":80,"weight":0}],"retries":2,
        "timeout":{"connect":1,"send":0.5,"read":1},"checks":{"active":{"healthy":{"successes":2}}}},
        "plugins":{"limit-count":{"count":1,"time_window":60,"rejected_code":503}}}"#,
    )
    .unwrap();
    let api = api();
    let whole = json!(format!("{{\"routes\":[{}]}}", body.replacen('{', "{\"id\":\"3\",", 1)));
    api.script(&[
        ("PUT /routes/1", json!(body), 201, json!({ "value": settled })),
        ("GET /routes/1", none(), 200, json!({ "value": settled })),
        ("PATCH /routes/1", json!(r#"{"priority":2.0}"#), 200, json!({ "value": { "priority": 2 } })),
        ("POST /configs/validate", whole, 200, none()),
    ])
    .await;
}

#[tokio::test]
async fn what_no_data_plane_would_serve_is_refused() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let serves = |kind, conf: &Value| match conf.get("upstream").and_then(|upstream| upstream.get("retries"))
    {
        Some(_) => Err(format!("{kind} without retries only")),
        None => Ok(()),
    };
    let config = Config { serves: Arc::new(serves), ..config(store.clone()) };
    let api = Api { router: router(config).unwrap(), store };
    let mut bad = route("/");
    bad["upstream"]["retries"] = json!(1);
    let refused = error("invalid configuration: routes without retries only");
    let tcp = json!({ "nodes": {}, "scheme": "tcp" });
    api.script(&[
        ("PUT /routes/1", bad.clone(), 400, refused.clone()),
        ("POST /routes", bad.clone(), 400, refused.clone()),
        ("PUT /routes/1", route("/"), 201, none()),
        ("PATCH /routes/1", json!({ "upstream": { "retries": 1 } }), 400, refused),
        ("POST /configs/validate", json!({ "routes": [bad] }), 400, none()),
        ("PUT /upstreams/1", tcp.clone(), 201, none()),
        ("PUT /services/1", json!({ "upstream": tcp }), 201, none()),
        ("PUT /stream_routes/1", json!({ "service_id": "1" }), 201, none()),
        (
            "PUT /routes/1",
            json!({ "uri": "/", "upstream_id": "1" }),
            400,
            error("upstream info by upstream id [1]: upstreams of scheme tcp are not for HTTP"),
        ),
        (
            "PUT /routes/1",
            json!({ "uri": "/", "service_id": "1" }),
            400,
            error("service info by service id [1]: upstreams of scheme tcp are not for HTTP"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn post_makes_an_id() {
    let api = api();
    let body = json!({ "uri": "/index.html", "upstream": upstream() });
    let first = api.call("POST /routes", &body).await;
    let second = api.call("POST /routes", &body).await;
    assert_eq!((first.status, second.status), (201, 201));
    let id = |got: &Got| got.json()["value"]["id"].as_str().unwrap().to_owned();
    assert_eq!(id(&first).len(), 20);
    assert_ne!(id(&first), id(&second));
    assert_eq!(first.json()["key"], format!("/apisix/routes/{}", id(&first)));
    api.script(&[
        ("POST /routes", json!({ "id": 1, "uri": "/" }), 400, error("wrong route id, do not need it")),
        ("POST /routes/1", json!({ "uri": "/" }), 400, error("wrong route id, do not need it")),
        ("POST /services/1", json!({}), 400, error("wrong service id, do not need it")),
        ("POST /upstreams/1", upstream(), 400, error("wrong upstream id, do not need it")),
        (&format!("GET /routes/{}", id(&first)), none(), 200, none()),
    ])
    .await;
}

#[tokio::test]
async fn ids_come_from_the_path_or_the_body() {
    let with_id = |id: Value| json!({ "id": id, "uri": "/index.html", "plugins": {} });
    let bad_id = error(
        "invalid configuration: property \"id\" validation failed: object matches none of the required",
    );
    api()
        .script(&[
            ("PUT /routes/1", with_id(json!(3)), 400, error("wrong route id")),
            ("PUT /routes/1", with_id(json!(1)), 201, json!({ "value": { "id": "1" } })),
            ("PUT /routes", with_id(json!("1")), 200, json!({ "key": "/apisix/routes/1" })),
            ("PUT /routes", with_id(json!(7)), 201, json!({ "key": "/apisix/routes/7" })),
            ("PUT /routes", with_id(json!(-100)), 400, bad_id.clone()),
            ("PUT /routes/*invalid", json!({ "uri": "/" }), 400, bad_id.clone()),
            ("PUT /routes", json!({ "uri": "/" }), 400, error("missing route id")),
            ("PUT /routes/a-b-c-ABC_0123", json!({ "uri": "/", "plugins": {} }), 201, none()),
            ("PUT /services/a.b", json!({}), 201, none()),
            ("PUT /plugin_configs", json!({ "plugins": {} }), 400, error("missing plugin config id")),
            ("DELETE /routes", none(), 400, error("missing route id")),
            ("PATCH /routes", json!({}), 400, error("missing route id")),
        ])
        .await;
}

#[tokio::test]
async fn bodies_are_judged_as_apisix_does() {
    let too_large = format!("{{\"desc\":\"{}\"}}", "a".repeat(1_600_000));
    let size = too_large.len();
    let too_large_error =
        format!("invalid request body: request size {size} is greater than the maximum size 1572864 allowed");
    let api = api();
    api.script(&[
        ("PUT /routes/1", none(), 400, error("missing configurations")),
        ("PUT /routes/1", json!("{\"uri\":"), 400, json!({ "error_msg": "invalid request body: …", "req_body": "{\"uri\":" })),
        ("PUT /routes/1", json!("[]"), 400, error("invalid configuration: wrong type: expected object, got table")),
        ("PUT /routes/1", json!("1"), 400, error("invalid configuration: wrong type: expected object, got number")),
        ("GET /routes/1", json!("{"), 400, json!({ "error_msg": "invalid request body: …" })),
        ("PATCH /routes/1", none(), 400, error("missing new configuration")),
        ("PUT /routes/1", json!({ "methods": ["invalid_method"], "uri": "/" }), 400, error(
            "invalid configuration: property \"methods\" validation failed: failed to validate item 1: matches none of the enum values"
        )),
        ("PUT /routes/1", json!({ "uri": "/", "host": "a", "hosts": ["b"] }), 400, error("only one of host or hosts is allowed")),
        ("PUT /routes/1", json!({ "uri": "/", "plugins": { "limit-count": { "count": 1 } } }), 400, error(
            "failed to check the configuration of plugin limit-count err: property \"time_window\" is required"
        )),
        ("PUT /routes/1", json!({ "uri": "/", "plugins": { "nothing": {} } }), 400, error("unknown plugin [nothing]")),
        ("PUT /routes/1", json!({ "uri": "/", "plugins": { "picky": {} } }), 400, error(
            "failed to check the configuration of plugin picky err: it is never content"
        )),
        ("PUT /routes/1", json!({ "uri": "/", "upstream": { "nodes": {}, "type": "chash" } }), 400, error("missing key")),
    ])
    .await;
    let length = size.to_string();
    let got = api.send("PUT /routes/1", &[("content-length", &length)], too_large.clone().into()).await;
    assert_eq!((got.status, &got.json()["error_msg"]), (400, &json!(too_large_error)));
    let got = api.send("PUT /routes/1", &[], too_large.into()).await;
    assert_eq!(got.status, 400, "a body whose length is not told: {}", got.text);
}

#[tokio::test]
async fn times_are_set_here() {
    let api = api();
    let forbidden = |what: &str| error(&format!("the property is forbidden:  {what}"));
    api.script(&[
        ("PUT /routes/1", json!({ "uri": "/", "create_time": 1 }), 400, forbidden("create_time")),
        ("PUT /routes/1", json!({ "uri": "/", "update_time": 1 }), 400, forbidden("update_time")),
        (
            "POST /services",
            json!({ "upstream": { "create_time": 1 } }),
            400,
            forbidden("upstream.create_time"),
        ),
        ("PUT /routes/1", route("/"), 201, none()),
        (
            "PATCH /routes/1",
            json!({ "create_time": 5, "update_time": 6 }),
            200,
            json!({ "value": { "create_time": 5, "update_time": 6 } }),
        ),
    ])
    .await;
    let replaced = api.call("PUT /routes/1", &route("/")).await.json();
    assert_eq!(replaced["value"]["create_time"], 5);
    assert!(replaced["value"]["update_time"].as_u64().unwrap() > 6);
    api.script(&[(
        "PATCH /routes/1",
        json!({ "update_time": 7 }),
        200,
        json!({ "value": { "update_time": 7 } }),
    )])
    .await;
    let patched = api.call("PATCH /routes/1/uri", &json!("\"/new\"")).await.json();
    assert_eq!(patched["value"]["create_time"], 5);
    assert!(patched["value"]["update_time"].as_u64().unwrap() > 7);
    assert_eq!(patched["value"]["uri"], "/new");
}

#[tokio::test]
async fn patching() {
    let nodes = |nodes: Value| json!({ "key": "/apisix/upstreams/1", "value": { "nodes": nodes } });
    api()
        .script(&[
            ("PUT /upstreams/1", json!({ "nodes": { "127.0.0.1:8080": 1, "127.0.0.1:8090": 1 }, "type": "roundrobin" }), 201, none()),
            ("PATCH /upstreams/1", json!({ "desc": "d" }), 200, json!({ "value": { "desc": "d", "type": "roundrobin" } })),
            ("PATCH /upstreams/1", json!({ "nodes": { "127.0.0.1:8090": null, "127.0.0.1:8081": 3 } }), 200,
                nodes(json!({ "127.0.0.1:8080": 1, "127.0.0.1:8081": 3, "127.0.0.1:8090": null }))),
            ("PATCH /upstreams/1/nodes", json!({ "127.0.0.6:8081": 0 }), 200,
                nodes(json!({ "127.0.0.6:8081": 0, "127.0.0.1:8080": null }))),
            ("PATCH /upstreams/1/desc", json!("\"again\""), 200, json!({ "value": { "desc": "again" } })),
            ("PATCH /upstreams/1/retries", json!("1"), 200, json!({ "value": { "retries": 1 } })),
            ("PATCH /upstreams/1/retries", json!("null"), 200, json!({ "value": { "retries": null } })),
            ("PATCH /upstreams/1/retries", json!("-1"), 400, error(
                "invalid configuration: property \"retries\" validation failed: expected -1 to be at least 0"
            )),
            ("PATCH /upstreams/1/desc/x", json!("1"), 400, error("invalid sub-path: /desc")),
            ("PATCH /upstreams/1", json!("1"), 400, error("invalid configuration")),
            ("PATCH /upstreams/1", json!({ "id": "2" }), 400, error("wrong upstream id")),
            ("GET /upstreams/1", none(), 200, json!({ "value": { "desc": "again", "id": "1" } })),
        ])
        .await;
}

#[tokio::test]
async fn labels_merge_and_arrays_are_replaced() {
    let mut body = route("/index.html");
    body["labels"] = json!({ "build": "16", "env": "production" });
    body["methods"] = json!(["GET", "PUT"]);
    api()
        .script(&[
            ("PUT /routes/1", body, 201, none()),
            ("PATCH /routes/1", json!({ "labels": { "build": "17" }, "methods": ["POST"] }), 200,
                json!({ "value": { "labels": { "build": "17", "env": "production" }, "methods": ["POST"] } })),
            ("PUT /routes/1", json!({ "uri": "/", "labels": { "env": ["a"] } }), 400, error(
                "invalid configuration: property \"labels\" validation failed: failed to validate env (matching \".*\"): wrong type: expected string, got table"
            )),
        ])
        .await;
}

#[tokio::test]
async fn what_a_kind_does_not_take_is_refused() {
    let refused = |method: &str, noun: &str| error(&format!("not supported `{method}` method for {noun}"));
    api()
        .script(&[
            ("POST /consumers", json!({}), 405, refused("POST", "consumer")),
            ("PATCH /consumers/a", json!({}), 405, refused("PATCH", "consumer")),
            ("POST /consumers/a/credentials", json!({}), 405, refused("POST", "credential")),
            ("POST /plugin_metadata", json!({}), 405, refused("POST", "plugin_metadata")),
            ("POST /plugin_configs", json!({}), 405, refused("POST", "plugin config")),
            ("POST /consumer_groups", json!({}), 405, refused("POST", "consumer group")),
            ("POST /global_rules", json!({}), 405, refused("POST", "global rule")),
            ("POST /secrets", json!({}), 405, refused("POST", "secret")),
            ("PATCH /protos/1", json!({}), 405, refused("PATCH", "proto")),
            ("PATCH /stream_routes/1", json!({}), 405, refused("PATCH", "stream route")),
            ("PUT /routs/1", json!({}), 404, error("Unsupported resource type: routs")),
            ("GET /credentials", none(), 404, error("Unsupported resource type: credentials")),
            ("GET /", none(), 404, error("Unsupported resource type: ")),
            ("TRACE /routes", none(), 404, none()),
            ("DELETE /routes/1/upstream", none(), 404, error("not found")),
        ])
        .await;
}

#[tokio::test]
async fn every_kind_is_kept() {
    let proto =
        "{\"content\": \"syntax = \\\"proto3\\\";\n package proto;\n message A { string name = 1; }\"}";
    let vault = json!({ "uri": "http://127.0.0.1:12800/get", "prefix": "apisix", "token": "apisix" });
    let plugins = json!({ "plugins": { "proxy-rewrite": { "uri": "/" } } });
    let api = api();
    api.script(&[
        ("PUT /protos/1", json!(proto), 201, json!({ "value": { "content": "…\n package proto;…" } })),
        ("PUT /secrets/vault/1", vault.clone(), 201, json!({ "key": "/apisix/secrets/vault/1", "value": { "id": "vault/1" } })),
        ("GET /secrets/vault/1", none(), 200, json!({ "value": vault })),
        ("GET /secrets", none(), 200, json!({ "total": 1 })),
        ("PATCH /secrets/vault/1/token", json!("\"unknown\""), 200, json!({ "value": { "token": "unknown" } })),
        ("PATCH /secrets/vault/1", json!({ "token": "apisix" }), 200, json!({ "key": "/apisix/secrets/vault/1" })),
        ("PATCH /secrets/vault", json!({}), 400, error("no secret id")),
        ("PUT /secrets/nothing/1", json!({}), 400, error("invalid secret manager: nothing")),
        ("PUT /secrets/vault/2", json!({ "uri": "/get", "prefix": "a", "token": "a" }), 400, json!({ "error_msg": "…validation failed: failed to match pattern…" })),
        ("DELETE /secrets/vault/1", none(), 200, json!({ "key": "/apisix/secrets/vault/1" })),
        ("PUT /global_rules/1", plugins.clone(), 201, json!({ "key": "/apisix/global_rules/1" })),
        ("PATCH /global_rules/1/plugins", json!({ "traffic-split": {} }), 200, json!({ "value": { "plugins": { "proxy-rewrite": null } } })),
        ("PUT /plugin_configs/1", plugins.clone(), 201, none()),
        ("PUT /consumer_groups/1", plugins.clone(), 201, none()),
        ("PUT /consumer_groups/1", json!({ "plugins": {}, "labels": "a" }), 400, error(
            "invalid configuration: property \"labels\" validation failed: wrong type: expected object, got string"
        )),
        ("PUT /global_rules/2", json!({}), 400, error("invalid configuration: property \"plugins\" is required")),
        ("PUT /stream_routes/1", json!({ "remote_addr": "127.0.0.1", "upstream": upstream() }), 201, none()),
        ("PUT /plugin_metadata/example-plugin", json!({ "skey": "val", "ikey": 1 }), 201, json!({ "key": "/apisix/plugin_metadata/example-plugin" })),
    ])
    .await;
    assert_eq!(
        api.stored("plugin_metadata/example-plugin").await,
        json!({ "skey": "val", "ikey": 1, "id": "example-plugin" })
    );
    api.script(&[
        ("PUT /plugin_metadata", json!({ "k": "v" }), 400, error("missing plugin name")),
        ("PUT /plugin_metadata/test", json!({ "k": "v" }), 400, error("invalid plugin name")),
        (
            "PUT /plugin_metadata/example-plugin",
            json!({ "skey": "v" }),
            400,
            error("invalid configuration: property \"ikey\" is required"),
        ),
        ("PUT /plugin_metadata/proxy-rewrite", json!({ "any": 1 }), 201, none()),
        ("DELETE /plugin_metadata/example-plugin", none(), 200, json!({ "deleted": "1" })),
        ("DELETE /plugin_metadata/not_found", none(), 404, none()),
    ])
    .await;
}

#[tokio::test]
async fn a_ttl_reaches_the_store() {
    let api = api();
    api.script(&[(
        "PUT /routes/1?ttl=xxx",
        route("/"),
        400,
        error("invalid argument ttl: should be a number"),
    )])
    .await;
    assert_eq!(api.call("POST /routes?ttl=1", &route("/")).await.status, 201);
    for _ in 0..300 {
        if api.call("GET /routes", &none()).await.json()["total"] == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the route outlived its ttl");
}
