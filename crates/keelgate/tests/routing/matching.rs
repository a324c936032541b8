//! Host, URI, method, priority and `vars`: which route a request finds.

use http::Method;
use serde_json::{Value, json};
use testkit::http::request;
use testkit::upstream::Upstream;

use crate::{Node, to};

/// A node whose routes each have an upstream of their own name.
struct Named {
    node: Node,
    _upstreams: Vec<Upstream>,
}

impl Named {
    async fn routes(settings: Value, routes: &[(&str, Value)]) -> Self {
        let node = Node::with(settings).await;
        let mut upstreams = Vec::new();
        for (name, route) in routes {
            let upstream = Upstream::named(name);
            let mut route = route.clone();
            route["upstream"] = to(&[&upstream]);
            node.put(&format!("routes/{name}"), &route).await;
            upstreams.push(upstream);
        }
        node.settled().await;
        Self { node, _upstreams: upstreams }
    }

    /// Which route answers; nothing where none does.
    async fn finds(&self, method: Method, host: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut all = vec![("host", host)];
        all.extend(headers);
        let answer = request(method, &self.node.url(path), &all, "").await.unwrap();
        let name = answer.header("x-upstream").to_owned();
        assert!(
            !name.is_empty() || answer.text() == "{\"error_msg\":\"404 Route Not Found\"}\n",
            "{}",
            answer.text()
        );
        name
    }

    async fn get(&self, host: &str, path: &str) -> String {
        self.finds(Method::GET, host, path, &[]).await
    }
}

#[tokio::test]
async fn hosts_exact_and_wildcard() {
    let named = Named::routes(
        json!({}),
        &[
            ("exact", json!({ "uri": "/*", "host": "api.example.com" })),
            ("wildcard", json!({ "uri": "/*", "host": "*.example.com" })),
            ("either", json!({ "uri": "/*", "hosts": ["a.test", "b.test"] })),
            ("any", json!({ "uri": "/anywhere" })),
        ],
    )
    .await;
    for (host, path, expected) in [
        ("api.example.com", "/ip", "exact"),
        ("API.Example.com", "/ip", "exact"),
        ("api.example.com:9080", "/ip", "exact"),
        ("www.example.com", "/ip", "wildcard"),
        ("a.test", "/ip", "either"),
        ("b.test", "/ip", "either"),
        ("other.test", "/ip", ""),
        ("other.test", "/anywhere", "any"),
        ("example.com", "/ip", ""),
    ] {
        assert_eq!(named.get(host, path).await, expected, "{host} {path}");
    }
}

#[tokio::test]
async fn uris_exact_before_prefix_and_the_longer_prefix_first() {
    let named = Named::routes(
        json!({}),
        &[
            ("all", json!({ "uri": "/*" })),
            ("prefix", json!({ "uri": "/api/*" })),
            ("longer", json!({ "uri": "/api/v1/*" })),
            ("exact", json!({ "uri": "/api/v1/users" })),
            ("several", json!({ "uris": ["/one", "/two/*"] })),
        ],
    )
    .await;
    for (path, expected) in [
        ("/", "all"),
        ("/other", "all"),
        ("/api/", "prefix"),
        ("/api/v2", "prefix"),
        ("/api", "all"),
        ("/api/v1/orders", "longer"),
        ("/api/v1/users", "exact"),
        ("/api/v1/users?page=2", "exact"),
        ("/api/v1/users/7", "longer"),
        ("/one", "several"),
        ("/two/three", "several"),
    ] {
        assert_eq!(named.get("any.test", path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn parameters_in_the_uri_where_the_router_is_told_to_look_for_them() {
    let named = Named::routes(
        json!({ "apisix": { "router": { "http": "radixtree_uri_with_parameter" } } }),
        &[
            ("order", json!({ "uri": "/users/:user/orders/:order" })),
            ("user", json!({ "uri": "/users/:user" })),
            ("any", json!({ "uri": "/users/:user/*rest" })),
        ],
    )
    .await;
    for (path, expected) in [
        ("/users/7", "user"),
        ("/users/7/orders/1", "order"),
        ("/users/7/orders", "any"),
        ("/users/7/orders/1/lines", "any"),
        ("/users", ""),
    ] {
        assert_eq!(named.get("any.test", path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn methods_priority_and_vars() {
    let named = Named::routes(
        json!({}),
        &[
            ("read", json!({ "uri": "/x", "methods": ["GET", "HEAD"] })),
            ("write", json!({ "uri": "/x", "methods": ["POST"] })),
            ("low", json!({ "uri": "/y" })),
            ("high", json!({ "uri": "/y", "priority": 5, "vars": [["arg_v", "==", "2"]] })),
            ("header", json!({ "uri": "/y", "priority": 9, "vars": [["http_x_beta", "~~", "^on|yes$"]] })),
            (
                "cookie",
                json!({ "uri": "/y", "priority": 8, "vars": [["cookie_user", "in", ["ann", "bob"]]] }),
            ),
            ("number", json!({ "uri": "/z", "vars": ["OR", ["arg_a", ">", 10], ["arg_b", "!", "==", "x"]] })),
        ],
    )
    .await;
    let (get, none) = (Method::GET, &[][..]);
    for (method, path, headers, expected) in [
        (get.clone(), "/x", none, "read"),
        (Method::POST, "/x", none, "write"),
        (Method::DELETE, "/x", none, ""),
        (get.clone(), "/y", none, "low"),
        (get.clone(), "/y?v=2", none, "high"),
        (get.clone(), "/y?v=3", none, "low"),
        (get.clone(), "/y?v=2", &[("x-beta", "yes")], "header"),
        (get.clone(), "/y?v=2", &[("x-beta", "off")], "high"),
        (get.clone(), "/y", &[("cookie", "user=bob; other=1")], "cookie"),
        (get.clone(), "/z?a=11&b=x", none, "number"),
        (get.clone(), "/z?a=9&b=x", none, ""),
        (get, "/z?a=9&b=y", none, "number"),
    ] {
        let found = named.finds(method.clone(), "any.test", path, headers).await;
        assert_eq!(found, expected, "{method} {path} {headers:?}");
    }
}

#[tokio::test]
async fn what_is_changed_disabled_or_deleted_is_so_at_once() {
    let named = Named::routes(json!({}), &[("one", json!({ "uri": "/x" }))]).await;
    let (node, upstream) = (&named.node, Upstream::named("two"));
    node.has(&[("routes/one", json!({ "uri": "/x", "upstream": to(&[&upstream]) }))]).await;
    assert_eq!(named.get("any.test", "/x").await, "two");
    let off = node.admin(Method::PATCH, "routes/one", &json!({ "status": 0 })).await;
    assert_eq!(off.status, 200, "{}", off.text());
    node.settled().await;
    assert_eq!(named.get("any.test", "/x").await, "");
    node.admin(Method::PATCH, "routes/one/status", &json!(1)).await;
    node.settled().await;
    assert_eq!(named.get("any.test", "/x").await, "two");
    node.delete("routes/one").await;
    node.settled().await;
    assert_eq!(named.get("any.test", "/x").await, "");
}
