//! What points at what.

use super::*;

fn none() -> Value {
    Value::Null
}

fn in_use(what: &str) -> Value {
    error(&format!("can not delete this {what} is still using it now"))
}

#[tokio::test]
async fn nothing_points_at_what_is_not_there() {
    let gone = |what: &str| error(&format!("failed to fetch {what}, response code: 404"));
    api()
        .script(&[
            ("PUT /routes/1", json!({ "uri": "/", "service_id": "99" }), 400, gone("service info by service id [99]")),
            ("PUT /routes/1", json!({ "uri": "/", "upstream_id": 99 }), 400, gone("upstream info by upstream id [99]")),
            ("PUT /routes/1", json!({ "uri": "/", "plugins": {}, "plugin_config_id": "x" }), 400, gone("plugin config info by plugin config id [x]")),
            ("PUT /services/1", json!({ "upstream_id": "9" }), 400, gone("upstream info by upstream id [9]")),
            ("PUT /stream_routes/1", json!({ "service_id": "9" }), 400, gone("service info by service id [9]")),
            ("PUT /consumers", json!({ "username": "a", "group_id": "g" }), 400, gone("consumer group info by consumer group id [g]")),
            ("PUT /upstreams/1", json!({ "nodes": {}, "type": "roundrobin", "tls": { "client_cert_id": "9" } }), 400, gone("ssl info by ssl id [9]")),
            ("PUT /routes/1", json!({ "uri": "/", "service_id": "invalid_id$" }), 400, error(
                "invalid configuration: property \"service_id\" validation failed: object matches none of the required"
            )),
            ("PUT /services/1", json!({}), 201, none()),
            ("PUT /routes/1", json!({ "uri": "/", "service_id": 1 }), 201, none()),
            ("PATCH /routes/1", json!({ "service_id": 2 }), 400, gone("service info by service id [2]")),
        ])
        .await;
}

#[tokio::test]
async fn what_is_used_stays() {
    let split = json!({ "traffic-split": { "rules": [{ "weighted_upstreams": [{ "upstream_id": 1, "weight": 2 }] }] } });
    let delete = "DELETE /upstreams/1";
    let used = |what: &str| in_use(&format!("upstream, {what}"));
    api()
        .script(&[
            ("PUT /upstreams/1", upstream(), 201, none()),
            ("PUT /routes/1", json!({ "uri": "/", "upstream_id": 1 }), 201, none()),
            (delete, none(), 400, used("route [1]")),
            ("DELETE /upstreams/1?force=anyvalue", none(), 400, used("route [1]")),
            ("PUT /routes/1", json!({ "uri": "/", "plugins": split }), 200, none()),
            (delete, none(), 400, used("plugin in route [1]")),
            ("DELETE /routes/1", none(), 200, none()),
            ("PUT /services/1", json!({ "upstream_id": "1" }), 201, none()),
            (delete, none(), 400, used("service [1]")),
            ("PUT /services/1", json!({ "plugins": split }), 200, none()),
            (delete, none(), 400, used("plugin in service [1]")),
            ("DELETE /services/1", none(), 200, none()),
            ("PUT /global_rules/1", json!({ "plugins": split }), 201, none()),
            (delete, none(), 400, used("plugin in global_rules [1]")),
            ("DELETE /global_rules/1", none(), 200, none()),
            ("PUT /plugin_configs/1", json!({ "plugins": split }), 201, none()),
            (delete, none(), 400, used("plugin in plugin_config [1]")),
            ("DELETE /plugin_configs/1", none(), 200, none()),
            ("PUT /consumers", json!({ "username": "test", "plugins": split }), 201, none()),
            (delete, none(), 400, used("plugin in consumer [test]")),
            ("DELETE /consumers/test", none(), 200, none()),
            ("PUT /consumer_groups/1", json!({ "plugins": split }), 201, none()),
            (delete, none(), 400, used("plugin in consumer_group [1]")),
            ("DELETE /upstreams/1?force=true", none(), 200, json!({ "deleted": "1" })),
        ])
        .await;
}

#[tokio::test]
async fn services_groups_configs_and_protos_stay_while_used() {
    let proto = json!({ "plugins": { "grpc-transcode": { "proto_id": 2, "service": "a", "method": "b" } }, "uri": "/" });
    let plugins = json!({ "plugins": {} });
    api()
        .script(&[
            ("PUT /services/1", json!({}), 201, none()),
            ("PUT /stream_routes/5", json!({ "service_id": 1, "upstream": upstream() }), 201, none()),
            ("DELETE /services/1", none(), 400, in_use("service directly, stream_route [5]")),
            ("PUT /routes/1", json!({ "uri": "/", "service_id": 1 }), 201, none()),
            ("DELETE /services/1", none(), 400, in_use("service directly, route [1]")),
            ("PUT /plugin_configs/p", plugins.clone(), 201, none()),
            ("PUT /routes/1", json!({ "uri": "/", "plugins": {}, "plugin_config_id": "p" }), 200, none()),
            ("DELETE /plugin_configs/p", none(), 400, in_use("plugin config, route [1]")),
            ("PUT /consumer_groups/g", plugins, 201, none()),
            ("PUT /consumers", json!({ "username": "jack", "group_id": "g" }), 201, none()),
            ("DELETE /consumer_groups/g", none(), 400, in_use("consumer group, consumer [jack]")),
            ("PUT /protos/2", json!({ "content": "syntax = \"proto3\";" }), 201, none()),
            ("PUT /routes/2", proto, 201, none()),
            ("DELETE /protos/2", none(), 400, in_use("proto, route [2]")),
            ("DELETE /protos/2?force=true", none(), 200, none()),
        ])
        .await;
}

#[tokio::test]
async fn stream_routes_take_what_streams_can_do() {
    let with = |field: &str, value: Value| json!({ "upstream": upstream(), field: value });
    let plugin = |name: &str| with("plugins", json!({ name: {} }));
    api()
        .script(&[
            ("PUT /stream_routes/1", plugin("ip-restriction"), 201, none()),
            ("PUT /stream_routes/1", plugin("limit-count"), 400, error("unknown plugin [limit-count]")),
            (
                "PUT /stream_routes/1",
                plugin("picky"),
                400,
                error("failed to check the configuration of stream plugin [picky]: it is never content"),
            ),
            (
                "PUT /stream_routes/1",
                with("protocol", json!({ "name": "redis" })),
                400,
                error("unknown protocol [redis]"),
            ),
            (
                "PUT /stream_routes/1",
                with("remote_addr", json!(":/8")),
                400,
                error("invalid remote_addr: :/8"),
            ),
        ])
        .await;
}

#[tokio::test]
async fn global_rules_share_no_plugin() {
    let rule = |names: &[&str]| {
        let plugins: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), json!({ "count": 2, "time_window": 60 }))).collect();
        json!({ "plugins": plugins })
    };
    let taken =
        |name: &str, id: u8| error(&format!("plugin '{name}' already exists in global rule with id '{id}'"));
    api()
        .script(&[
            ("PUT /global_rules/1", rule(&["limit-count"]), 201, none()),
            ("PUT /global_rules/2", rule(&["limit-count"]), 400, taken("limit-count", 1)),
            ("PUT /global_rules/2", rule(&["proxy-rewrite"]), 201, none()),
            (
                "PUT /global_rules/3",
                rule(&["traffic-split", "proxy-rewrite"]),
                400,
                taken("proxy-rewrite", 2),
            ),
            ("PATCH /global_rules/2", rule(&["limit-count"]), 400, taken("limit-count", 1)),
            ("PUT /global_rules/1", rule(&["limit-count"]), 200, none()),
        ])
        .await;
}

/// Whoever wins, no route is left pointing at nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleting_and_referring_at_once_leaves_nothing_dangling() {
    let api = Arc::new(api());
    for round in 0..50 {
        assert!(api.call("PUT /services/s", &json!({})).await.status < 300);
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let api = api.clone();
                let what = format!("PUT /routes/{round}-{n}");
                tokio::spawn(async move {
                    api.call(&what, &json!({ "uri": "/", "service_id": "s" })).await.status
                })
            })
            .collect();
        let deleted = api.call("DELETE /services/s", &Value::Null).await.status;
        let mut written = 0;
        for writer in writers {
            written += u32::from(writer.await.unwrap() == 201);
        }
        let there = api.call("GET /services/s", &Value::Null).await.status == 200;
        assert_eq!(there, deleted == 400);
        assert!(there || written == 0, "round {round}: {written} routes point at a deleted service");
        for n in 0..4 {
            api.call(&format!("DELETE /routes/{round}-{n}"), &Value::Null).await;
        }
    }
}

/// Counting up by PATCH from many tasks loses no step.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn patches_at_once_all_count() {
    let api = Arc::new(api());
    api.call("PUT /upstreams/1", &upstream()).await;
    let patches: Vec<_> = (1..=8)
        .map(|n| {
            let api = api.clone();
            tokio::spawn(async move {
                let body = json!({ "nodes": { format!("127.0.0.1:{n}"): 1 } });
                api.call("PATCH /upstreams/1", &body).await.status
            })
        })
        .collect();
    for patch in patches {
        assert_eq!(patch.await.unwrap(), 200);
    }
    let nodes = api.stored("upstreams/1").await["nodes"].as_object().unwrap().len();
    assert_eq!(nodes, 9);
}
