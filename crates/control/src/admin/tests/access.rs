//! Who is let in.

use axum::{body::Body, extract::ConnectInfo};
use tower::ServiceExt as _;

use super::*;

fn guarded(change: impl FnOnce(&mut Config)) -> Api {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let mut config = config(store.clone());
    config.key_required = true;
    let key = |name: &str, role| AdminKey { name: name.to_owned(), key: format!("{name}-key"), role };
    config.keys = vec![key("admin", Role::Admin), key("viewer", Role::Viewer)];
    change(&mut config);
    Api { router: router(config).unwrap(), store }
}

async fn status(api: &Api, what: &str, headers: &[(&str, &str)]) -> u16 {
    api.send(what, headers, Body::from(route("/").to_string())).await.status
}

#[tokio::test]
async fn a_key_is_asked_for() {
    let api = guarded(|_| {});
    let put = "PUT /routes/1";
    assert_eq!(status(&api, put, &[]).await, 401);
    assert_eq!(status(&api, put, &[("x-api-key", "wrong")]).await, 401);
    assert_eq!(status(&api, put, &[("x-api-key", "admin-key")]).await, 201);
    assert_eq!(status(&api, put, &[("x_api_key", "admin-key")]).await, 200);
    assert_eq!(status(&api, "PUT /routes/1?api_key=admin-key", &[]).await, 200);
    assert_eq!(status(&api, put, &[("cookie", "a=b; x_api_key=admin-key")]).await, 200);
    assert_eq!(status(&api, put, &[("x-api-key", "viewer-key")]).await, 401);
    assert_eq!(status(&api, "GET /routes", &[("x-api-key", "viewer-key")]).await, 200);
    for path in ["GET /plugins/list", "PUT /plugins/reload", "POST /schema/validate/routes", "GET /nothing"] {
        assert_eq!(status(&api, path, &[]).await, 401, "{path}");
    }
    let got = api.call("GET /routes", &Value::Null).await;
    assert_eq!(got.json(), json!({ "error_msg": "failed to check token", "description": "missing apikey" }));
    assert_eq!(got.header("x-api-version"), None);
    let got = api.call("GET /routes?api_key=x", &Value::Null).await;
    assert_eq!(got.json()["description"], "wrong apikey");
    let got = api.call("DELETE /routes/1?api_key=viewer-key", &Value::Null).await;
    assert_eq!(got.json()["description"], "invalid method for role viewer");
}

#[tokio::test]
async fn paths_are_read_as_nginx_reads_them() {
    let api = api();
    let at = async |path: &str| {
        let request =
            http::Request::get(path).extension(ConnectInfo(std::net::SocketAddr::from(([127, 0, 0, 1], 1))));
        let answer = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("x-api-version"))
    };
    for path in [
        "//apisix/admin/routes",
        "/apisix//admin/routes",
        "/apisix/./admin/routes",
        "/a/../apisix/admin/routes",
    ] {
        assert_eq!(at(path).await, (200, true), "{path}");
    }
    for path in ["/apisix/admin/../routes", "/apisix/administrator", "/../apisix/admin/routes", "/"] {
        assert_eq!(at(path).await, (404, false), "{path}");
    }
    for id in [".", ".."] {
        let got = api.call("PUT /routes", &json!({ "id": id, "uri": "/", "plugins": {} })).await;
        assert_eq!(got.status, 400, "{}", got.text);
    }
    assert_eq!(api.call("GET /routes?gateway_group_id=", &Value::Null).await.status, 200);
}

#[tokio::test]
async fn keys_in_answers_begin_as_in_etcd() {
    let api = guarded(|config| (config.key_required, config.prefix) = (false, "/gates".into()));
    api.script(&[
        ("PUT /routes/1", route("/"), 201, json!({ "key": "/gates/routes/1" })),
        ("GET /routes/1", Value::Null, 200, json!({ "key": "/gates/routes/1" })),
        ("DELETE /routes/1", Value::Null, 200, json!({ "key": "/gates/routes/1" })),
    ])
    .await;
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_unless_none_is_required() {
    let api = guarded(|config| config.keys.clear());
    assert_eq!(status(&api, "GET /routes", &[("x-api-key", "")]).await, 401);
    let api = guarded(|config| config.key_required = false);
    assert_eq!(status(&api, "GET /routes", &[("x-api-key", "wrong")]).await, 200);
    assert_eq!(status(&api, "PUT /routes/1", &[]).await, 201);
}

#[tokio::test]
async fn the_older_version_tells_what_was_done() {
    let api = guarded(|config| (config.key_required, config.version) = (false, Version::V2));
    let node = json!({ "key": "/apisix/routes/1", "value": { "uri": "/", "id": "1" }, "createdIndex": null });
    api.script(&[
        ("PUT /routes/1", route("/"), 201, json!({ "action": "set", "node": node })),
        ("PATCH /routes/1", json!({ "desc": "x" }), 200, json!({ "action": "compareAndSwap", "node": node })),
        ("GET /routes/1", Value::Null, 200, json!({ "action": "get", "node": node })),
        ("GET /routes/2", Value::Null, 404, json!({ "message": "Key not found", "node": null })),
        ("DELETE /routes/1", Value::Null, 200, json!({ "action": "delete", "deleted": "1", "node": {} })),
        ("POST /routes", route("/"), 201, json!({ "action": "create", "node": { "value": { "uri": "/" } } })),
    ])
    .await;
    let list = api.call("GET /routes", &Value::Null).await;
    let node = &list.json()["node"];
    assert_eq!(
        (&node["key"], &node["dir"], list.header("x-api-version")),
        (&json!("/apisix/routes"), &json!(true), Some("v2"))
    );
    assert_eq!(node["nodes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_are_let_in_by_network() {
    let allowing = |nets: &[&str]| {
        let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        guarded(|config| config.allow = nets)
    };
    let key = [("x-api-key", "admin-key")];
    assert_eq!(status(&allowing(&["127.0.0.0/24"]), "GET /routes", &key).await, 200);
    assert_eq!(status(&allowing(&["10.0.0.0/8", "127.0.0.1/32"]), "GET /routes", &key).await, 200);
    let outside = allowing(&["10.0.0.0/8"]);
    for what in ["GET /routes", "OPTIONS /routes", "HEAD "] {
        assert_eq!(status(&outside, what, &key).await, 403, "{what}");
    }
}

#[tokio::test]
async fn every_answer_has_its_headers() {
    let api = api();
    let got = api.call("GET /routes", &Value::Null).await;
    assert!(got.header("server").unwrap().starts_with("APISIX/3."));
    assert_eq!(got.header("x-api-version"), Some("v3"));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("access-control-allow-origin"), Some("*"));
    assert_eq!(got.header("access-control-expose-headers"), Some("*"));
    let got = api.call("OPTIONS /routes/1", &Value::Null).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("access-control-allow-methods"), Some("POST, GET, PUT, OPTIONS, DELETE, PATCH"));
    assert_eq!(got.header("access-control-allow-headers"), Some("*"));
    let closed = guarded(|config| (config.cors, config.server_tokens) = (false, false));
    let got = closed.call("GET /routes", &Value::Null).await;
    assert_eq!((got.header("access-control-allow-origin"), got.header("server")), (None, Some("APISIX")));
    assert_eq!(closed.call("HEAD ", &Value::Null).await.status, 200);
    assert_eq!(closed.call("OPTIONS /routes", &Value::Null).await.status, 404);
}

#[tokio::test]
async fn groups_have_their_own_stores() {
    let other: Arc<dyn Store> = Arc::new(Memory::default());
    let api = guarded(|config| {
        config.key_required = false;
        config.groups.insert("other".to_owned(), other);
    });
    api.script(&[
        ("PUT /routes/1?gateway_group_id=default", route("/a"), 201, Value::Null),
        ("PUT /routes/2?gateway_group_id=other", route("/b"), 201, Value::Null),
        ("GET /routes", Value::Null, 200, json!({ "total": 1 })),
        ("GET /routes/2?gateway_group_id=other", Value::Null, 200, Value::Null),
        ("GET /routes/2", Value::Null, 404, Value::Null),
        ("GET /routes?gateway_group_id=x", Value::Null, 404, error("gateway group [x] does not exist here")),
    ])
    .await;
}

#[tokio::test]
async fn stream_routes_need_stream_mode() {
    let api = guarded(|config| (config.stream, config.key_required) = (false, false));
    let got = api.call("GET /stream_routes", &Value::Null).await;
    assert_eq!(got.json(), error("stream mode is disabled, can not add stream routes"));
}
