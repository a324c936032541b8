//! What a client is told when there is no answer to pass on.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::http::{Response, get, request};
use testkit::ports;
use testkit::upstream::{Behaviour, Upstream};
use testkit::wait::eventually;

use crate::{Node, to, to_with};

/// nginx's page, as APISIX shows it.
fn is_page(answer: &Response, status: u16, title: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(
        answer.text().contains(&format!("<center><h1>{status} {title}</h1></center>")),
        "{}",
        answer.text()
    );
    assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.header("content-type"));
}

#[tokio::test]
async fn without_a_route() {
    let node = Node::start().await;
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = request(method, &node.url("/lost"), &[], "").await.unwrap();
        assert_eq!((answer.status, answer.text()), (404, "{\"error_msg\":\"404 Route Not Found\"}\n".into()));
        assert!(answer.header("server").starts_with("APISIX/"), "{}", answer.header("server"));
    }
}

#[tokio::test]
async fn without_an_upstream_that_answers() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let dead = json!({ "type": "roundrobin", "nodes": { format!("127.0.0.1:{}", ports::free()): 1 } });
    let none = json!({ "type": "roundrobin", "nodes": {} });
    let impatient = json!({ "timeout": { "connect": 0.3, "send": 0.3, "read": 1 } });
    node.has(&[
        ("routes/dead", json!({ "uri": "/dead", "upstream": dead })),
        ("routes/none", json!({ "uri": "/none", "upstream": none })),
        ("routes/slow", json!({ "uri": "/delay/*", "upstream": to_with(&[&upstream], impatient) })),
        ("routes/own", json!({
            "uri": "/get", "upstream": to(&[&upstream]), "timeout": { "connect": 6, "send": 6, "read": 0.3 }
        })),
    ])
    .await;
    is_page(&node.get("/dead").await.unwrap(), 502, "Bad Gateway");
    is_page(&node.get("/none").await.unwrap(), 503, "Service Temporarily Unavailable");
    let asked = Instant::now();
    is_page(&node.get("/delay/20").await.unwrap(), 504, "Gateway Time-out");
    let took = asked.elapsed().as_secs_f64();
    assert!((0.9..1.9).contains(&took), "a second of patience took {took} s");
    upstream.behave(Behaviour::Slow(Duration::from_secs(20)));
    is_page(&node.get("/get").await.unwrap(), 504, "Gateway Time-out");
    upstream.behave(Behaviour::Cut(0));
    let cut = request(Method::POST, &node.url("/get"), &[], "x").await.unwrap();
    is_page(&cut, 502, "Bad Gateway");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": to(&[&upstream]) }))]).await;
    upstream.behave(Behaviour::Cut(1000));
    let asked = Instant::now();
    let error = node.get("/ip").await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(3), "the client is told at once: {:?}", asked.elapsed());
    assert!(format!("{error:#}").contains("the body broke off"), "{error:#}");
    upstream.behave(Behaviour::Answer);
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_upstreams_own_errors_are_passed_on() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/status/*", "upstream": to(&[&upstream]) }))]).await;
    for status in [404, 500, 503] {
        let answer = node.get(&format!("/status/{status}")).await.unwrap();
        assert_eq!((answer.status, answer.header("x-upstream")), (status, &*upstream.port().to_string()));
    }
}

#[tokio::test]
async fn a_route_is_refused_where_it_is_written_not_where_it_is_served() {
    let node = Node::start().await;
    for (path, body, words) in [
        ("routes/1", json!({ "uri": "/x", "plugins": { "no-such": {} } }), "unknown plugin [no-such]"),
        (
            "routes/1",
            json!({ "uri": "/x", "upstream_id": "none" }),
            "failed to fetch upstream info by upstream id [none]",
        ),
        (
            "routes/1",
            json!({ "uri": "/x", "service_id": "none" }),
            "failed to fetch service info by service id [none]",
        ),
        ("routes/1", json!({ "methods": ["GET"] }), "invalid configuration"),
        (
            "routes/1",
            json!({ "uri": "/x", "plugins": { "ip-restriction": {} } }),
            "failed to check the configuration of plugin ip-restriction",
        ),
    ] {
        let answer = node.admin(Method::PUT, path, &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let said = answer.json()["error_msg"].to_string();
        assert!(said.contains(words), "{body}: {said}");
    }
    let missing = node.admin(Method::GET, "routes/1", &Value::Null).await;
    assert_eq!((missing.status, missing.json()["message"].as_str()), (404, Some("Key not found")));
}

#[tokio::test]
async fn what_a_file_says_must_fit_the_schema() {
    let upstream = Upstream::start();
    let mut node = Gateway::new(env!("CARGO_BIN_EXE_keelgate"), "data_plane", "yaml");
    let yaml = format!(
        "routes:\n\
         - {{ id: good, uri: /ip, upstream: {{ nodes: {{ \"{to}\": 1 }}, type: roundrobin }} }}\n\
         - {{ id: misspelt, uri: /get, upstraem: {{ nodes: {{ \"{to}\": 1 }} }} }}\n\
         - {{ id: astray, uri: /headers, upstream_id: both }}\n\
         - {{ id: bare, uri: /anything, plugin_config_id: none, upstream: {{ nodes: {{ \"{to}\": 1 }}, type: roundrobin }} }}\n\
         - {{ id: broad, uri: /*, upstream: {{ nodes: {{ \"{to}\": 1 }} }} }}\n\
         upstreams:\n\
         - {{ id: both, service_name: s, discovery_type: dns, nodes: {{ \"{to}\": 1 }} }}\n#END\n",
        to = upstream.node(),
    );
    std::fs::write(node.home().join("conf/apisix.yaml"), yaml).unwrap();
    node.start().await;
    node.serves("/ip").await;
    let view = node
        .config_when("what was refused", |view| view["rejected"].as_array().is_some_and(|all| all.len() == 4))
        .await;
    let reason = |id: &str| {
        let all = view["rejected"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("misspelt"), "invalid configuration: additional properties forbidden, found upstraem");
    assert!(
        reason("both").starts_with("invalid configuration: value should match only one schema"),
        "{view}"
    );
    assert_eq!(reason("astray"), "upstream both is missing or was refused");
    // Its requests are nobody else's.
    assert_eq!(node.get("/headers").await.unwrap().status, 502);
    assert_eq!(node.get("/anything").await.unwrap().status, 503);
    assert_eq!(node.get("/get").await.unwrap().status, 404);
    assert_eq!(node.get("/bytes/1").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_answer_to_a_client_that_has_left_is_given_to_nobody_else() {
    let node = Node::with(json!({ "nginx_config": { "worker_processes": 1 } })).await;
    let upstream = Upstream::start();
    node.has(&[("routes/r", json!({ "uri": "/*", "upstream": to(&[&upstream]) }))]).await;
    // There is a connection to be used again.
    assert_eq!(node.get("/anything/first").await.unwrap().status, 200);
    for number in 0..3 {
        let path = format!("/delay/0.{number}5");
        let url = node.url(&path);
        let leaving = tokio::spawn(async move { get(&url).await });
        let seen = eventually(SOON, format!("{path} at the node"), async || {
            let mut seen = upstream.seen().into_iter();
            seen.find(|seen| seen.uri.path() == path).ok_or("nothing")
        })
        .await;
        leaving.abort();
        for turn in 0..5 {
            let path = format!("/anything/{number}-{turn}");
            let answer = node.get(&path).await.unwrap();
            assert!(answer.status == 200 && answer.text().contains(&path), "{path}: {}", answer.text());
        }
        assert_ne!(upstream.last().connection, seen.connection);
    }
}
