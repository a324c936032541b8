//! What can't be served: told where it is written, and no way past a route's plugins.

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::Gateway;
use testkit::upstream::Upstream;

use crate::{KEELGATE, answers, to};

/// The upstream with something in it that no data plane serves.
fn unservable(node: &Upstream) -> Vec<(&'static str, Value)> {
    let with = |more: Value| {
        let mut conf = to(node);
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        conf
    };
    vec![
        ("check", with(json!({ "checks": { "active": { "timeout": 0 } } }))),
        ("time", with(json!({ "timeout": { "connect": 1, "send": 1e300, "read": 1 } }))),
        ("registry", json!({ "type": "roundrobin", "service_name": "x", "discovery_type": "nope" })),
        ("scheme", with(json!({ "scheme": "tcp" }))),
    ]
}

#[tokio::test]
async fn the_admin_api_says_what_no_data_plane_would_serve() {
    let node = Upstream::start();
    let mut gateway = Gateway::traditional(KEELGATE);
    gateway.start().await;
    for (name, upstream) in unservable(&node) {
        let body = json!({ "uri": "/anything/x", "upstream": upstream });
        let answer = gateway.admin(Method::PUT, "routes/1", &body).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert!(answer.text().contains("invalid configuration: "), "{name}: {}", answer.text());
    }
    // One kind of number.
    let body = json!({ "uri": "/anything/x", "priority": 1.0, "upstream": {
        "type": "roundrobin", "nodes": { node.node(): 1.0 }, "retries": 1.0,
        "checks": { "active": { "healthy": { "successes": 2.0 } } },
    }});
    gateway.put("routes/1", &body).await;
    answers(&gateway, "/anything/x", &[], 200).await;
}

#[tokio::test]
async fn a_route_of_a_file_that_can_not_be_served_keeps_its_requests_from_broader_ones() {
    let node = Upstream::start();
    let mut gateway = Gateway::new(KEELGATE, "data_plane", "yaml");
    let mut routes = vec![json!({ "id": "all", "uri": "/*", "upstream": to(&node) })];
    let mut services = vec![];
    for (name, upstream) in unservable(&node) {
        routes.push(json!({ "id": name, "uri": format!("/anything/{name}"), "plugins": { "key-auth": {} }, "upstream": upstream }));
        services.push(json!({ "id": name, "upstream": upstream }));
        routes.push(
            json!({ "id": format!("by-{name}"), "uri": format!("/anything/by-{name}"), "service_id": name }),
        );
    }
    routes.push(json!({ "id": "whole", "uri": "/anything/whole", "priority": 1.0, "status": 1.0, "upstream": {
        "type": "roundrobin", "nodes": [{ "host": "127.0.0.1", "port": f64::from(node.port()), "weight": 1.0 }],
        "keepalive_pool": { "size": 4.0 },
    }}));
    let file = format!("{}\n#END\n", json!({ "routes": routes, "services": services }));
    std::fs::write(gateway.home().join("conf/apisix.yaml"), file).unwrap();
    gateway.start().await;
    answers(&gateway, "/anything/else", &[], 200).await;
    answers(&gateway, "/anything/whole", &[], 200).await;
    for (name, _) in unservable(&node) {
        answers(&gateway, &format!("/anything/{name}"), &[], 404).await;
        answers(&gateway, &format!("/anything/by-{name}"), &[], 404).await;
    }
}
