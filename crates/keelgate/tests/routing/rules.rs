//! Rules that look at a request's body, rules in Lua, and what the settings make of a path.

use http::Method;
use serde_json::{Value, json};
use testkit::http::request;
use testkit::upstream::Upstream;

use crate::{Node, to};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn megabyte(name: &str) -> String {
    json!({ "name": name, "more": "x".repeat(1 << 20) }).to_string()
}

#[tokio::test]
async fn a_body_decides_and_still_reaches_the_upstream() {
    let settings = json!({ "apisix": { "max_post_args_readable_size": 1 }, "graphql": { "max_size": 64 } });
    let node = Node::with(settings).await;
    let upstreams = ["form", "json", "list", "query", "rest"].map(Upstream::named);
    let rules = [
        ("form", json!([["post_arg_name", "==", "ann"]])),
        ("json", json!([["post_arg.user.name", "==", "ann"]])),
        ("list", json!([["post_arg.messages[*].type", "has", "image"]])),
        ("query", json!([["graphql_operation", "==", "query"], ["graphql_root_fields", "has", "owner"]])),
        ("rest", json!([])),
    ];
    for ((name, vars), upstream) in rules.iter().zip(&upstreams) {
        let priority = i32::from(*name != "rest");
        let route =
            json!({ "uri": "/anything", "vars": vars, "priority": priority, "upstream": to(&[upstream]) });
        node.put(&format!("routes/{name}"), &route).await;
    }
    node.settled().await;
    let large = megabyte("ann");
    for (kind, body, expected) in [
        (FORM, "name=ann&x=1", "form"),
        (FORM, "name=bob", "rest"),
        ("text/plain", "name=ann", "rest"),
        (JSON, r#"{"user":{"name":"ann"}}"#, "json"),
        (JSON, r#"{"user":"ann"}"#, "rest"),
        (JSON, r#"{"messages":[{"type":"text"},{"type":"image"}]}"#, "list"),
        (JSON, r#"{"query":"{ owner { name } }"}"#, "query"),
        ("application/graphql", "query q { owner { name } repo }", "query"),
        (
            "application/graphql",
            "query q { owner { name } repo } # longer than it may be by a remark",
            "rest",
        ),
        ("application/graphql", "mutation { owner }", "rest"),
        // Longer than a rule may look at: what was read of it is not lost.
        (JSON, &*large, "rest"),
        (JSON, "{", "rest"),
        (JSON, "", "rest"),
    ] {
        let headers = [("content-type", kind)];
        let sent = body.to_owned();
        let answer = request(Method::POST, &node.url("/anything"), &headers, sent).await.unwrap();
        assert_eq!((answer.status, answer.header("x-upstream")), (200, expected), "{kind} {body:.80}");
        let upstream = upstreams.iter().zip(&rules).find(|(_, (name, _))| *name == expected).unwrap().0;
        assert_eq!(upstream.last().body, body, "{kind} {body:.80}");
    }
}

#[tokio::test]
async fn conditions_in_lua() {
    let node = Node::start().await;
    let (yes, no) = (Upstream::named("yes"), Upstream::named("no"));
    let route = |code: &str, upstream: &Upstream| json!({ "uri": "/x", "filter_func": code, "upstream": to(&[upstream]) });
    node.has(&[
        ("routes/1", route("function(vars) return tonumber(vars.arg_user) % 4 > 2 end", &yes)),
        ("routes/2", json!({ "uri": "/x", "priority": -1, "upstream": to(&[&no]) })),
    ])
    .await;
    // The last one is an error in the code, and no error for the client.
    for (path, expected) in [("/x?user=7", "yes"), ("/x?user=4", "no"), ("/x", "no")] {
        assert_eq!(node.get(path).await.unwrap().header("x-upstream"), expected, "{path}");
    }
    node.has(&[("routes/1", route("function() while true do end end", &yes))]).await;
    assert_eq!(node.get("/x?user=7").await.unwrap().header("x-upstream"), "no");
    let refused = node.admin(Method::PUT, "routes/1", &route("function(vars) ", &yes)).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("failed to load 'filter_func' string"), "{}", refused.text());
}

/// What a node with these settings answers: the name of the route, or the status.
async fn answers(settings: Value, routes: &[(&str, &str)], asked: &[(&str, &str)]) {
    let node = Node::with(json!({ "apisix": settings })).await;
    let upstreams: Vec<_> = routes.iter().map(|(name, _)| Upstream::named(name)).collect();
    for ((name, uri), upstream) in routes.iter().zip(&upstreams) {
        node.put(&format!("routes/{name}"), &json!({ "uri": uri, "upstream": to(&[upstream]) })).await;
    }
    node.settled().await;
    for (path, expected) in asked {
        let answer = node.get(path).await.unwrap();
        let found = match answer.header("x-upstream") {
            "" => answer.status.to_string(),
            name => name.to_owned(),
        };
        assert_eq!(found, *expected, "{path} {settings}");
        // The upstream gets what the client wrote.
        if let Some(at) = routes.iter().position(|(name, _)| name == expected) {
            assert_eq!(upstreams[at].last().uri.path(), *path);
        }
    }
}

#[tokio::test]
async fn an_encoded_slash_may_belong_to_a_name() {
    let routes = [("one", "/blog/:name"), ("two", "/blog/:name/:part")];
    let with_names = json!({ "router": { "http": "radixtree_uri_with_parameter" } });
    answers(with_names, &routes, &[("/blog/a", "one"), ("/blog/a%2Fb", "two"), ("/blog/%zz", "400")]).await;
    let kept =
        json!({ "match_uri_encoded_slash": true, "router": { "http": "radixtree_uri_with_parameter" } });
    answers(kept, &routes, &[("/blog/a%2fb", "one"), ("/blog/a/b", "two"), ("/blog/..%2Fblog%2Fa", "one")])
        .await;
}

#[tokio::test]
async fn paths_as_servlets_read_them_and_without_their_last_slash() {
    let routes = [("hello", "/hello")];
    answers(json!({}), &routes, &[("/hello/", "404"), ("/hello;v=1", "404")]).await;
    let servlet = json!({ "normalize_uri_like_servlet": true });
    answers(servlet, &routes, &[("/hello;v=1", "hello"), ("/a/..;/hello", "400"), ("/;/hello", "400")]).await;
    answers(json!({ "delete_uri_tail_slash": true }), &routes, &[("/hello/", "hello")]).await;
}
