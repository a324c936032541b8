//! The control API, where scripts of APISIX look for things.

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::Gateway;
use testkit::http::{Client, get};

use crate::KEELGATE;

#[tokio::test]
async fn what_it_does_not_know_is_nginxs_page() {
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let mut client = Client::connect(&node.control_url("")).await.unwrap();
    for (method, path) in [
        (Method::GET, "/v1/test/products"),
        (Method::GET, "/v1/plugins/reload"),
        (Method::POST, "/v1/plugins/reload"),
        (Method::GET, "/v1/discovery/eureka/dump"),
    ] {
        let answer = client.send(method.clone(), path, &[], "").await.unwrap();
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(
            answer.text().starts_with("<html>\r\n<head><title>404 Not Found</title>"),
            "{}",
            answer.text()
        );
    }
    let answer = client.send(Method::PUT, "/v1/plugins/reload", &[], "").await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "done".into()));
}

#[tokio::test]
async fn plugins_are_loaded_again_from_the_settings() {
    let mut node = Gateway::traditional(KEELGATE).with(json!({ "plugins": ["cors"] }));
    node.start().await;
    let listed = async |node: &Gateway| node.admin(Method::GET, "plugins/list", &Value::Null).await.json();
    assert_eq!(listed(&node).await, json!(["cors"]));
    node.merge_config(json!({ "plugins": ["cors", "key-auth"] }));
    assert_eq!(listed(&node).await, json!(["cors"]), "it was not asked for yet");
    let answer = node.admin(Method::PUT, "plugins/reload", &Value::Null).await;
    assert_eq!((answer.status, answer.text()), (200, "done".into()));
    assert_eq!(listed(&node).await, json!(["cors", "key-auth"]));

    // A file that can't be taken changes nothing, and who asked is told.
    node.merge_config(json!({ "plugins": 7 }));
    let mut client = Client::connect(&node.control_url("")).await.unwrap();
    let answer = client.send(Method::PUT, "/v1/plugins/reload", &[], "").await.unwrap();
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("plugins"), "{}", answer.text());
    assert_eq!(listed(&node).await.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_schemas_are_all_that_apisix_shows() {
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let schema = get(&node.control_url("/v1/schema")).await.unwrap().json();
    let main = &schema["main"];
    for name in [
        "consumer",
        "consumer_group",
        "global_rule",
        "plugin_config",
        "proto",
        "route",
        "service",
        "ssl",
        "stream_route",
        "upstream",
    ] {
        assert_eq!(main[name]["type"], "object", "{name}");
    }
    assert_eq!(main["plugins"]["type"], "array");
    for name in ["upstream_hash_vars_schema", "upstream_hash_header_schema"] {
        assert_eq!(main[name]["type"], "string", "{name}");
    }
    let plugin = &schema["plugins"]["key-auth"];
    assert_eq!((&plugin["type"], &plugin["priority"]), (&"auth".into(), &2500.into()), "{plugin}");
    assert_eq!(plugin["consumer_schema"]["type"], "object");
    assert_eq!(plugin["schema"]["properties"]["_meta"]["properties"]["disable"]["type"], "boolean");
}
