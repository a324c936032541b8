//! APISIX's API-driven mode, `traditional` with the provider `yaml`: one PUT replaces everything.
//!
//! The one rule: what was taken with 202 is what the proxy serves, and goes on serving after a restart.

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::{ADMIN_KEY, Gateway};
use testkit::http::{Response, request};
use testkit::upstream::Upstream;

use crate::{KEELGATE, answers, to};

async fn node() -> Gateway {
    let mut node = Gateway::new(KEELGATE, "traditional", "yaml");
    node.start().await;
    node
}

/// A request to `/apisix/admin/configs`.
async fn configs(node: &Gateway, method: Method, headers: &[(&str, &str)], body: &str) -> Response {
    let url = format!("http://127.0.0.1:{}/apisix/admin/configs", node.ports().admin);
    let headers: Vec<_> = [("X-API-KEY", ADMIN_KEY)].into_iter().chain(headers.iter().copied()).collect();
    request(method, &url, &headers, body.to_owned()).await.unwrap()
}

async fn put(node: &Gateway, digest: &str, whole: &Value) -> Response {
    configs(node, Method::PUT, &[("X-Digest", digest)], &whole.to_string()).await
}

async fn taken(node: &Gateway, digest: &str, whole: &Value) {
    let answer = put(node, digest, whole).await;
    assert_eq!((answer.status, answer.header("x-digest")), (202, digest), "{}", answer.text());
    assert!(answer.header("x-last-modified").parse::<u64>().unwrap() > 0);
}

fn route(id: &str, uri: &str, upstream: &Upstream) -> Value {
    json!({ "id": id, "uri": uri, "upstream": to(upstream) })
}

#[tokio::test]
async fn one_request_replaces_everything() {
    let (upstream, node) = (Upstream::start(), node().await);
    let empty = configs(&node, Method::GET, &[], "").await;
    assert_eq!((empty.status, empty.header("x-digest")), (200, ""));
    assert_eq!(empty.json()["routes_conf_version"], 0);

    let one = json!({ "routes": [route("1", "/anything/1", &upstream)] });
    assert_eq!(configs(&node, Method::PUT, &[], &one.to_string()).await.status, 400);
    taken(&node, "a", &one).await;
    answers(&node, "/anything/1", &[], 200).await;
    assert_eq!(put(&node, "a", &one).await.status, 204);
    let head = configs(&node, Method::HEAD, &[], "").await;
    assert_eq!((head.status, head.header("x-digest")), (200, "a"));
    let read = configs(&node, Method::GET, &[], "").await;
    assert_eq!((&read.json()["routes"], &read.json()["routes_conf_version"]), (&one["routes"], &json!(1)));

    let yaml = format!(
        "routes:\n- id: \"2\"\n  uri: /anything/2\n  plugins:\n    key-auth:\n  upstream: {}\nconsumers:\n\
         - username: jack\n- id: jack/credentials/c\n  plugins: {{ key-auth: {{ key: k }} }}\n",
        to(&upstream)
    );
    let as_yaml = [("X-Digest", "b"), ("Content-Type", "application/yaml")];
    let answer = configs(&node, Method::PUT, &as_yaml, &yaml).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answers(&node, "/anything/1", &[], 404).await;
    answers(&node, "/anything/2", &[], 401).await;
    answers(&node, "/anything/2", &[("apikey", "k")], 200).await;
    let read = configs(&node, Method::GET, &[("Accept", "application/yaml")], "").await;
    assert_eq!(read.header("content-type"), "application/yaml");
    assert!(read.text().contains("id: jack/credentials/c"), "{}", read.text());

    let single = node.admin(Method::PUT, "routes/1", &route("1", "/", &upstream)).await;
    assert_eq!(single.status, 404, "only whole configurations are written: {}", single.text());
}

#[tokio::test]
async fn versions_say_what_has_changed() {
    let (upstream, node) = (Upstream::start(), node().await);
    let with = |version: u64, index: u64, uri: &str| {
        let mut route = route("1", uri, &upstream);
        route["modifiedIndex"] = json!(index);
        json!({ "routes_conf_version": version, "routes": [route] })
    };
    taken(&node, "a", &with(10, 1, "/anything/a")).await;
    answers(&node, "/anything/a", &[], 200).await;

    let lower = put(&node, "b", &with(9, 2, "/anything/b")).await;
    let text = "routes_conf_version must be greater than or equal to (10)";
    assert_eq!((lower.status, lower.json()), (400, json!({ "error_msg": text })));

    // Neither the same version of a kind nor the same index of a resource changes it; what comes after them does.
    taken(&node, "c", &with(10, 2, "/anything/b")).await;
    taken(&node, "d", &with(11, 1, "/anything/b")).await;
    let mut marked = with(12, 1, "/anything/b");
    marked["routes"].as_array_mut().unwrap().push(route("2", "/anything/later", &upstream));
    taken(&node, "e", &marked).await;
    answers(&node, "/anything/later", &[], 200).await;
    answers(&node, "/anything/a", &[], 200).await;
    answers(&node, "/anything/b", &[], 404).await;

    taken(&node, "f", &with(13, 2, "/anything/b")).await;
    answers(&node, "/anything/b", &[], 200).await;
    answers(&node, "/anything/a", &[], 404).await;
    let read = configs(&node, Method::GET, &[], "").await.json();
    assert_eq!((&read["routes"][0]["modifiedIndex"], &read["routes_conf_version"]), (&json!(2), &json!(13)));
}

#[tokio::test]
async fn a_restart_keeps_it_and_an_empty_one_empties() {
    let (upstream, mut node) = (Upstream::start(), node().await);
    let routes: Vec<_> = ["1", "2", "3"].map(|id| route(id, &format!("/anything/{id}"), &upstream)).into();
    taken(&node, "a", &json!({ "routes": routes })).await;
    answers(&node, "/anything/3", &[], 200).await;

    node.kill9();
    node.start().await;
    answers(&node, "/anything/3", &[], 200).await;
    let read = configs(&node, Method::GET, &[], "").await;
    assert_eq!((&read.json()["routes"], read.header("x-digest")), (&json!(routes), ""));

    taken(&node, "b", &json!({})).await;
    answers(&node, "/anything/3", &[], 404).await;
    node.restart().await;
    answers(&node, "/anything/3", &[], 404).await;
}

#[tokio::test]
async fn a_bad_one_changes_nothing() {
    let (upstream, node) = (Upstream::start(), node().await);
    taken(&node, "a", &json!({ "routes": [route("1", "/anything/1", &upstream)] })).await;
    let refused = [
        ("{abcd", "invalid request body: Expected object key string but found invalid token at character 2"),
        ("", "invalid request body: empty request body"),
        (r#"{"routes_conf_version":"x"}"#, "routes_conf_version must be a number"),
        (r#"{"routes":7}"#, "routes must be an array, got number"),
        (
            r#"{"routes":[{"id":"1","uri":1}]}"#,
            "invalid configuration: property \"uri\" validation failed: wrong type: expected string, got number",
        ),
        (r#"{"services":[{"id":"1","plugins":{"no-such":{}}}]}"#, "unknown plugin [no-such]"),
        (r#"{"services":[{"id":"1"},{"id":"1"}]}"#, "found duplicate id 1 in services"),
    ];
    for (body, reason) in refused {
        let answer = configs(&node, Method::PUT, &[("X-Digest", "b")], body).await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "error_msg": reason })), "{body}");
    }
    assert_eq!(configs(&node, Method::HEAD, &[], "").await.header("x-digest"), "a");
    answers(&node, "/anything/1", &[], 200).await;
}
