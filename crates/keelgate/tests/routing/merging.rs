//! What a route has from its service, its plugin config and the global rules.

use serde_json::{Value, json};
use testkit::gateway::SOON;
use testkit::http::Response;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::{Node, to};

/// A plugin configuration that shows in the response as this header.
fn shows_as(header: &str) -> Value {
    json!({ "request-id": { "header_name": header } })
}

fn shown(answer: &Response) -> Vec<&str> {
    let names = ["x-service", "x-config", "x-route", "x-global"];
    names.into_iter().filter(|name| !answer.header(name).is_empty()).collect()
}

#[tokio::test]
async fn the_route_before_its_plugin_config_before_its_service() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let nowhere = json!({ "type": "roundrobin", "nodes": { "127.0.0.1:1": 1 } });
    node.has(&[
        ("services/s", json!({ "upstream": to(&[&upstream]), "plugins": shows_as("X-Service") })),
        ("plugin_configs/p", json!({ "plugins": shows_as("X-Config") })),
        ("routes/s", json!({ "uri": "/anything/s", "service_id": "s" })),
        ("routes/p", json!({ "uri": "/anything/p", "service_id": "s", "plugin_config_id": "p" })),
        ("routes/r", json!({
            "uri": "/anything/r", "service_id": "s", "plugin_config_id": "p", "plugins": shows_as("X-Route")
        })),
        ("routes/cors", json!({ "uri": "/anything/cors", "service_id": "s", "plugins": { "cors": {} } })),
        ("services/nowhere", json!({ "upstream": nowhere })),
        ("upstreams/u", to(&[&upstream])),
        ("routes/u", json!({ "uri": "/anything/u", "service_id": "nowhere", "upstream_id": "u" })),
    ])
    .await;
    for (path, expected) in
        [("/anything/s", "x-service"), ("/anything/p", "x-config"), ("/anything/r", "x-route")]
    {
        let answer = node.get(path).await.unwrap();
        assert_eq!((answer.status, shown(&answer)), (200, vec![expected]), "{path}");
    }
    let both = node.get("/anything/cors").await.unwrap();
    assert_eq!((shown(&both), both.header("access-control-allow-origin")), (vec!["x-service"], "*"));
    assert_eq!(
        node.get("/anything/u").await.unwrap().status,
        200,
        "the route's upstream before the service's"
    );

    // A change of what is shared reaches every route that has it.
    node.has(&[("services/s", json!({ "upstream": to(&[&upstream]), "plugins": shows_as("X-Config") }))])
        .await;
    assert_eq!(shown(&node.get("/anything/s").await.unwrap()), ["x-config"]);
}

#[tokio::test]
async fn a_service_brings_its_hosts() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[
        ("services/s", json!({ "upstream": to(&[&upstream]), "hosts": ["shop.test"] })),
        ("routes/s", json!({ "uri": "/ip", "service_id": "s" })),
    ])
    .await;
    let ask = async |host: &str| {
        let headers = [("host", host)];
        testkit::http::request(http::Method::GET, &node.url("/ip"), &headers, "").await.unwrap().status
    };
    assert_eq!((ask("shop.test").await, ask("other.test").await), (200, 404));
}

#[tokio::test]
async fn global_rules_are_for_every_request_even_one_without_a_route() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[
        ("routes/r", json!({ "uri": "/ip", "upstream": to(&[&upstream]), "plugins": shows_as("X-Route") })),
        ("global_rules/1", json!({ "plugins": shows_as("X-Global") })),
    ])
    .await;
    let (found, lost) = (node.get("/ip").await.unwrap(), node.get("/lost").await.unwrap());
    assert_eq!((found.status, shown(&found)), (200, vec!["x-route", "x-global"]));
    assert_eq!((lost.status, shown(&lost)), (404, vec!["x-global"]));
    let nobody = json!({ "plugins": { "ip-restriction": { "blacklist": ["127.0.0.1"] } } });
    node.put("global_rules/2", &nobody).await;
    eventually(SOON, "everybody turned away", async || {
        let answer = node.get("/ip").await.map_err(|error| format!("{error:#}"))?;
        expect(answer.status == 403, answer.text())
    })
    .await;
    node.delete("global_rules/2").await;
    node.delete("global_rules/1").await;
    node.settled().await;
    assert_eq!(shown(&node.get("/ip").await.unwrap()), ["x-route"]);
}

#[tokio::test]
async fn a_consumer_is_asked_for_its_key() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[
        ("consumers", json!({ "username": "ann", "plugins": { "key-auth": { "key": "ann-key" } } })),
        (
            "routes/r",
            json!({ "uri": "/headers", "upstream": to(&[&upstream]), "plugins": { "key-auth": {} } }),
        ),
    ])
    .await;
    let ask = async |headers: &[(&str, &str)]| {
        testkit::http::request(http::Method::GET, &node.url("/headers"), headers, "").await.unwrap()
    };
    let without = ask(&[]).await;
    assert_eq!((without.status, without.text().trim()), (401, r#"{"message":"Missing API key in request"}"#));
    let wrong = ask(&[("apikey", "bob-key")]).await;
    assert_eq!((wrong.status, wrong.text().trim()), (401, r#"{"message":"Invalid API key in request"}"#));
    let right = ask(&[("apikey", "ann-key")]).await;
    assert_eq!((right.status, upstream.last().header("x-consumer-username")), (200, "ann"));
}

#[tokio::test]
async fn a_consumer_before_its_group_before_the_route() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let by = |who: &str| json!({ "response-rewrite": { "headers": { "set": { "X-By": who } } } });
    let with = |mut plugins: Value, more: Value| {
        testkit::gateway::merge(&mut plugins, more);
        plugins
    };
    let limit = json!({ "limit-count": { "count": 2, "time_window": 600, "rejected_code": 429, "key": "consumer_name" } });
    node.has(&[
        ("consumer_groups/g", json!({ "plugins": with(by("group"), limit) })),
        ("consumers/ann", json!({ "username": "ann", "group_id": "g", "plugins": by("ann") })),
        ("consumers/ann/credentials/one", json!({ "plugins": { "key-auth": { "key": "ann-1" } } })),
        ("consumers/ann/credentials/two", json!({ "plugins": { "key-auth": { "key": "ann-2" } } })),
        (
            "consumers/bob",
            json!({ "username": "bob", "group_id": "g", "plugins": { "key-auth": { "key": "bob" } } }),
        ),
        ("consumers/eve", json!({ "username": "eve", "plugins": { "key-auth": { "key": "eve" } } })),
        ("consumers/anybody", json!({ "username": "anybody", "plugins": by("anybody") })),
        (
            "routes/r",
            json!({
                "uri": "/ip", "upstream": to(&[&upstream]),
                "plugins": with(by("route"), json!({ "key-auth": { "anonymous_consumer": "anybody" } })),
            }),
        ),
    ])
    .await;
    let ask = async |key: &str| {
        let headers = [("apikey", key)];
        let answer = testkit::http::request(http::Method::GET, &node.url("/ip"), &headers, "").await.unwrap();
        (answer.status, answer.header("x-by").to_owned())
    };
    for (key, by) in [("ann-1", "ann"), ("bob", "group"), ("eve", "route"), ("nobody", "anybody")] {
        assert_eq!(ask(key).await, (200, by.to_owned()), "{key}");
    }
    // Whatever key she shows, it is her limit, and hers alone.
    assert_eq!(ask("ann-2").await.0, 200);
    assert_eq!((ask("ann-1").await.0, ask("ann-2").await.0), (429, 429));
    assert_eq!(ask("bob").await.0, 200);
    // What changes in the group reaches its members.
    node.has(&[("consumer_groups/g", json!({ "plugins": by("changed") }))]).await;
    assert_eq!((ask("ann-1").await, ask("bob").await), ((200, "ann".into()), (200, "changed".into())));
}
