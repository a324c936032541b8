//! Whole configurations.

use axum::body::Body;

use super::*;

const VALIDATE: &str = "POST /configs/validate";

#[tokio::test]
async fn a_whole_configuration_is_validated_and_not_kept() {
    let mut with_id = route("/test");
    with_id["id"] = json!("r1");
    let whole = json!({
        "routes": [with_id],
        "upstreams": [{ "id": "u", "nodes": { "127.0.0.1:1980": 1 }, "type": "roundrobin" }],
        "consumers": [
            { "username": "jack", "plugins": { "key-auth": { "key": "auth-one" } } },
            { "id": "jack/credentials/c1", "plugins": { "key-auth": { "key": "auth-two" } } },
        ],
        "routes_conf_version": 3,
    });
    api()
        .script(&[
            (VALIDATE, whole, 200, json!({})),
            (VALIDATE, json!({}), 200, json!({})),
            ("GET /routes/r1", Value::Null, 404, Value::Null),
            (VALIDATE, Value::Null, 400, error("invalid request body: empty request body")),
            (VALIDATE, json!("not json"), 400, json!({ "error_msg": "invalid request body: …" })),
        ])
        .await;
}

#[tokio::test]
async fn every_error_is_told() {
    let good = |id: &str| json!({ "id": id, "uri": "/", "upstream": upstream() });
    let whole = json!({
        "routes": [{ "id": "r1", "uri": 123 }, good("r2"), good("r2")],
        "upstreams": [{ "id": "u", "type": "chash", "hash_on": "vars", "nodes": {} }],
        "services_conf_version": "x",
    });
    let got = api().call(VALIDATE, &whole).await;
    assert_eq!(got.status, 400);
    let got = got.json();
    assert_eq!(got["error_msg"], "Configuration validation failed");
    let errors = got["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 4, "{got}");
    let of = |kind: &str| errors.iter().filter(|error| error["resource_type"] == kind).collect::<Vec<_>>();
    assert_eq!((&of("routes")[0]["resource_id"], &of("routes")[0]["index"]), (&json!("r1"), &json!(0)));
    assert_eq!(of("routes")[1]["error"], "found duplicate id r2 in routes");
    assert_eq!(of("routes")[1]["index"], 2);
    assert_eq!(of("upstreams")[0]["error"], "missing key");
    assert!(of("services")[0]["error"].as_str().unwrap().contains("must be a number"));
}

#[tokio::test]
async fn yaml_is_read_too() {
    let yaml = [("content-type", "application/yaml")];
    let got = api().send(VALIDATE, &yaml, Body::from("routes:\n  - id: r1\n    uri: 1\n")).await;
    assert_eq!(got.json()["errors"][0]["resource_id"], "r1");
    let got = api().send(VALIDATE, &yaml, Body::from("a: [")).await;
    assert_eq!(got.json(), error("invalid request body: invalid yaml request body"));
}

#[tokio::test]
async fn a_whole_configuration_is_replaced_at_once() {
    let api = api();
    let put = async |digest: &str, whole: &Value| {
        api.send("PUT /configs", &[("x-digest", digest)], Body::from(whole.to_string())).await
    };
    let route = |id: &str| json!({ "id": id, "uri": "/", "upstream": upstream() });
    api.script(&[
        ("PUT /routes/old", json!({ "uri": "/old", "plugins": {} }), 201, Value::Null),
        ("PUT /services/s", json!({}), 201, Value::Null),
        ("PUT /configs", json!({}), 400, error("missing digest header")),
    ])
    .await;
    let first = json!({
        "routes": [route("1"), route("2")],
        "consumers": [
            { "username": "jack" },
            { "id": "jack/credentials/c", "plugins": { "key-auth": { "key": "the-key" } } },
        ],
        "services_conf_version": 0,
    });
    let got = put("one", &first).await;
    assert_eq!((got.status, got.header("x-digest")), (202, Some("one")), "{}", got.text);
    assert_eq!(put("one", &first).await.status, 204);
    api.script(&[
        ("GET /routes/old", Value::Null, 404, Value::Null),
        ("GET /routes", Value::Null, 200, json!({ "total": 2 })),
        // Its version stayed the same, so it was left alone.
        ("GET /services/s", Value::Null, 200, Value::Null),
        (
            "GET /consumers/jack/credentials/c",
            Value::Null,
            200,
            json!({ "value": { "id": "c", "plugins": { "key-auth": { "key": "the-key" } } } }),
        ),
        ("GET /configs", Value::Null, 200, json!({ "routes_conf_version": 1, "services_conf_version": 0 })),
    ])
    .await;
    assert_eq!(
        api.stored("consumers/jack/credentials/c").await["plugins"]["key-auth"]["key"],
        "JCX7x1qN5e9kHt0GuJfWpw=="
    );

    // What did not change is not written again.
    let before = api.store.get(&"routes/1".parse().unwrap()).await.unwrap().unwrap().modified;
    let mut second = first.clone();
    second["routes"] = json!([route("1"), route("3")]);
    second["routes_conf_version"] = json!(100);
    assert_eq!(put("two", &second).await.status, 202);
    assert_eq!(api.store.get(&"routes/1".parse().unwrap()).await.unwrap().unwrap().modified, before);
    assert!(api.store.get(&"routes/2".parse().unwrap()).await.unwrap().is_none());

    second["routes_conf_version"] = json!(99);
    let got = put("three", &second).await;
    assert_eq!(got.json(), error("routes_conf_version must be greater than or equal to (100)"));
    let head = api.call("HEAD /configs", &Value::Null).await;
    assert_eq!((head.status, head.header("x-digest")), (200, Some("two")));

    // What is read can be written back.
    let all = api.call("GET /configs", &Value::Null).await.json();
    assert_eq!((&all["X-Digest"], all["X-Last-Modified"].is_u64()), (&json!("two"), true), "{all}");
    assert_eq!(put("four", &all).await.status, 202);
    let bad = json!({ "routes": [{ "id": "x", "uri": 1 }] });
    assert_eq!(put("five", &bad).await.status, 400);
}
