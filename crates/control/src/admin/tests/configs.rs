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
