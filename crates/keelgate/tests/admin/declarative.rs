//! A client that has a whole configuration and brings the control plane to it: validates it, lists what is there,
//! PUTs what differs, DELETEs what is no longer wanted.
//!
//! The one rule: a second run right after the first has nothing to do.

use http::Method;
use serde_json::{Map, Value, json};
use testkit::certs::Ca;
use testkit::gateway::Gateway;
use testkit::upstream::Upstream;

use crate::{KEELGATE, answers};

/// In the order in which every reference points backwards.
const KINDS: [&str; 11] = [
    "secrets",
    "protos",
    "plugin_metadata",
    "ssls",
    "upstreams",
    "plugin_configs",
    "consumer_groups",
    "consumers",
    "global_rules",
    "services",
    "routes",
];

#[tokio::test]
async fn a_whole_configuration_is_synced_and_stays() {
    let upstream = Upstream::start();
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let mut wanted = configuration(&upstream);

    assert_eq!(sync(&node, &wanted).await, Done { put: 12, deleted: 0 });
    answers(&node, "/anything/a", &[("apikey", "key-of-jack")], 200).await;
    answers(&node, "/anything/a", &[("apikey", "another-key")], 200).await;
    answers(&node, "/anything/a", &[], 401).await;
    assert_eq!(sync(&node, &wanted).await, Done::default(), "the second run finds a difference");

    // One changed, one new, three gone.
    wanted["routes"][0]["plugins"] = json!({});
    wanted["routes"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "id": "b", "uri": "/anything/b", "service_id": "s" }));
    for (kind, at) in [("global_rules", 0), ("protos", 0), ("consumers", 1)] {
        wanted[kind].as_array_mut().unwrap().remove(at);
    }
    assert_eq!(sync(&node, &wanted).await, Done { put: 2, deleted: 3 });
    answers(&node, "/anything/a", &[], 200).await;
    answers(&node, "/anything/b", &[], 200).await;
    assert_eq!(sync(&node, &wanted).await, Done::default(), "the second run finds a difference");

    assert_eq!(sync(&node, &json!({})).await, Done { put: 0, deleted: 10 });
    answers(&node, "/anything/a", &[], 404).await;
    assert_eq!(sync(&node, &json!({})).await, Done::default());
}

#[tokio::test]
async fn what_does_not_validate_changes_nothing() {
    let upstream = Upstream::start();
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let mut wanted = configuration(&upstream);
    wanted["routes"][0]["plugins"] = json!({ "no-such-plugin": {} });
    wanted["upstreams"][0]["type"] = json!("chash");
    let errors = validate(&node, &wanted).await.unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (&error["resource_type"], &error["error"])).collect();
    assert_eq!(
        told,
        [
            (&json!("upstreams"), &json!("missing key")),
            (&json!("routes"), &json!("unknown plugin [no-such-plugin]")),
        ]
    );
    for kind in KINDS {
        assert!(list(&node, kind).await.is_empty(), "{kind}");
    }
}

fn configuration(upstream: &Upstream) -> Value {
    let pair = Ca::new("test").server(&["test.com"]);
    json!({
        "secrets": [{ "id": "vault/1", "uri": "http://127.0.0.1:8200", "prefix": "kv/apisix", "token": "t" }],
        "protos": [{ "id": "greet", "content": "syntax = \"proto3\"; message Hello { string name = 1; }" }],
        "plugin_metadata": [{ "id": "cors", "allow_origins": { "one": "http://a.com" } }],
        "ssls": [{ "id": "test", "snis": ["test.com"], "cert": pair.cert, "key": pair.key }],
        "upstreams": [{ "id": "u", "type": "roundrobin", "nodes": { upstream.node(): 1 } }],
        "plugin_configs": [{ "id": "p", "plugins": { "response-rewrite": { "headers": { "x-p": "1" } } } }],
        "consumer_groups": [{ "id": "g", "plugins": { "response-rewrite": { "headers": { "x-g": "1" } } } }],
        "consumers": [
            { "username": "jack", "group_id": "g", "plugins": { "key-auth": { "key": "key-of-jack" } } },
            { "id": "jack/credentials/c", "plugins": { "key-auth": { "key": "another-key" } } },
        ],
        "global_rules": [{ "id": "r", "plugins": { "request-id": {} } }],
        "services": [{ "id": "s", "name": "service", "upstream_id": "u", "labels": { "team": "a" } }],
        "routes": [{
            "id": "a", "name": "a", "uris": ["/anything/a", "/a"], "methods": ["GET"], "service_id": "s",
            "plugin_config_id": "p", "plugins": { "key-auth": {} }, "vars": [["arg_x", "~=", "1"]],
        }],
    })
}

/// How much a run had to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    put: usize,
    deleted: usize,
}

async fn sync(node: &Gateway, wanted: &Value) -> Done {
    validate(node, wanted).await.unwrap();
    let mut done = Done::default();
    let mut stale = Vec::new();
    for kind in KINDS {
        let mut there = list(node, kind).await;
        for resource in wanted[kind].as_array().into_iter().flatten() {
            let path = path(kind, resource);
            if there.remove(&path).is_none_or(|found| found != comparable(resource)) {
                node.put(&path, &body(resource)).await;
                done.put += 1;
            }
        }
        stale.push(there);
    }
    for path in stale.iter().rev().flat_map(|there| there.keys().rev()) {
        node.delete(path).await;
        done.deleted += 1;
    }
    done
}

async fn validate(node: &Gateway, wanted: &Value) -> Result<(), Vec<Value>> {
    let answer = node.admin(Method::POST, "configs/validate", wanted).await;
    match answer.status {
        200 => Ok(()),
        400 => Err(answer.json()["errors"].as_array().unwrap().clone()),
        _ => panic!("{} {}", answer.status, answer.text()),
    }
}

/// Everything of a kind by its path, as far as it can be compared; with consumers come their credentials.
async fn list(node: &Gateway, kind: &str) -> Map<String, Value> {
    let mut there = Map::new();
    let answer = node.admin(Method::GET, kind, &Value::Null).await.json();
    assert_eq!(answer["total"], json!(answer["list"].as_array().unwrap().len()));
    for entry in answer["list"].as_array().unwrap() {
        let path = entry["key"].as_str().unwrap().trim_start_matches("/apisix/").to_owned();
        if kind == "consumers" {
            let credentials = node.admin(Method::GET, &format!("{path}/credentials"), &Value::Null).await;
            for credential in credentials.json()["list"].as_array().into_iter().flatten() {
                let path = credential["key"].as_str().unwrap().trim_start_matches("/apisix/");
                there.insert(path.to_owned(), comparable(&credential["value"]));
            }
        }
        there.insert(path, comparable(&entry["value"]));
    }
    there
}

fn path(kind: &str, resource: &Value) -> String {
    let id = resource.get("id").unwrap_or(&resource["username"]).as_str().unwrap();
    format!("{kind}/{id}")
}

/// What goes into a PUT: the id is in the path.
fn body(resource: &Value) -> Value {
    let mut body = resource.clone();
    body.as_object_mut().unwrap().remove("id");
    body
}

/// Without what only one side has: times are the server's, private keys are never shown, ids are in the path.
fn comparable(resource: &Value) -> Value {
    let mut plain = body(resource);
    let fields = plain.as_object_mut().unwrap();
    fields.retain(|name, _| !["create_time", "update_time", "key"].contains(&name.as_str()));
    plain
}
