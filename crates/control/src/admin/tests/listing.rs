//! Lists, pages and filters.

use super::*;

async fn ids(api: &Api, what: &str) -> Vec<String> {
    let got = api.call(&format!("GET {what}"), &Value::Null).await;
    assert_eq!(got.status, 200, "{what}: {}", got.text);
    let list = got.json();
    list["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["value"]["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn eleven() -> Api {
    let api = api();
    for n in (1..=11).rev() {
        let mut body = route(&format!("/hello{n}"));
        body["name"] = json!(n.to_string());
        body["labels"] = json!({ n.to_string(): "x" });
        assert_eq!(api.call(&format!("PUT /routes/{n}"), &body).await.status, 201);
    }
    api
}

#[tokio::test]
async fn pages_are_cut_by_creation() {
    let api = eleven().await;
    let by_creation: Vec<String> = (1..=11).rev().map(|n| n.to_string()).collect();
    assert_eq!(ids(&api, "/routes?page=1&page_size=10").await, by_creation[..10]);
    assert_eq!(ids(&api, "/routes/?page=2&page_size=10").await, by_creation[10..]);
    assert!(ids(&api, "/routes?page=3&page_size=10").await.is_empty());
    assert_eq!(ids(&api, "/routes?page=-1&page_size=10").await.len(), 10);
    assert_eq!(ids(&api, "/routes?page_size=2").await.len(), 11);
    assert_eq!(ids(&api, "/routes").await[..3], ["1", "10", "11"]);
    for size in ["2", "501"] {
        let got = api.call(&format!("GET /routes/?page=1&page_size={size}"), &Value::Null).await;
        assert_eq!((got.status, got.text.as_str()), (400, "page_size must be between 10 and 500"));
    }
}

#[tokio::test]
async fn filters_narrow_the_list_before_it_is_cut() {
    let api = eleven().await;
    assert_eq!(ids(&api, "/routes?name=1").await, ["1", "10", "11"]);
    assert_eq!(ids(&api, "/routes?name=%5E1$").await, ["1"]);
    assert_eq!(ids(&api, "/routes?name=(").await, [""; 0]);
    // As in routes: PCRE.
    assert_eq!(ids(&api, "/routes?name=%5E1(%3F!0)").await, ["1", "11"]);
    assert_eq!(ids(&api, "/routes?label=1").await, ["1"]);
    assert_eq!(ids(&api, "/routes?label=x").await, [""; 0]);
    assert_eq!(ids(&api, "/routes?label=").await, [""; 0]);
    assert_eq!(ids(&api, "/routes?name=&uri=").await.len(), 11);
    assert_eq!(ids(&api, "/routes?uri=hello1").await, ["1", "10", "11"]);
    assert_eq!(ids(&api, "/routes?uri=hello1&label=10").await, ["10"]);
    assert_eq!(ids(&api, "/routes?name=test&uri=foo&label=").await, [""; 0]);
    assert_eq!(ids(&api, "/routes?name=1&page=1&page_size=10").await.len(), 3);
    let got = api.call("GET /routes?name=1&page=2&page_size=10", &Value::Null).await.json();
    assert_eq!((&got["total"], got["list"].as_array().unwrap().len()), (&json!(3), 0));
}

#[tokio::test]
async fn routes_are_found_by_uris_and_by_what_they_point_at() {
    let api = api();
    api.script(&[
        ("PUT /services/1", json!({}), 201, Value::Null),
        ("PUT /upstreams/1", upstream(), 201, Value::Null),
        ("PUT /routes/1", json!({ "uris": ["/hello", "/world"], "service_id": 1 }), 201, Value::Null),
        (
            "PUT /routes/2",
            json!({ "uris": ["/foo"], "service_id": "1", "upstream_id": "1" }),
            201,
            Value::Null,
        ),
        ("PUT /routes/3", json!({ "uri": "/bar", "upstream_id": "1" }), 201, Value::Null),
    ])
    .await;
    assert_eq!(ids(&api, "/routes?uri=world").await, ["1"]);
    assert_eq!(ids(&api, "/routes?filter=service_id%3D1").await, ["1", "2"]);
    assert_eq!(ids(&api, "/routes?filter=service_id%3D1%26upstream_id%3D1").await, ["2"]);
    assert_eq!(ids(&api, "/routes?filter=nothing%3D1").await.len(), 3);
}
