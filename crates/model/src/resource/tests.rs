use serde_json::json;

use super::*;

fn read<T: de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_str(&value.to_string()).unwrap()
}

#[test]
fn a_route_reads_with_defaults_and_passes_over_what_it_does_not_know() {
    let route: Route = read(&json!({
        "id": 7, "uris": ["/a", "/b/*"], "host": "*.test.com", "service_id": "s", "upstream_id": 3.0,
        "create_time": 1, "from_the_future": {"a": [1]}, "plugins": {"z": {}, "a": {}},
    }));
    assert_eq!(route.id.as_deref(), Some("7"));
    assert_eq!(route.upstream_id.as_deref(), Some("3"));
    assert_eq!(route.uris().collect::<Vec<_>>(), ["/a", "/b/*"]);
    assert_eq!(route.hosts().collect::<Vec<_>>(), ["*.test.com"]);
    assert_eq!(route.plugins.keys().collect::<Vec<_>>(), ["z", "a"]);
    assert!(route.status.is_on());
    assert!(!read::<Route>(&json!({"uri": "/", "status": 0})).status.is_on());
}

#[test]
fn an_upstream_reads_with_defaults() {
    let upstream: Upstream = read(&json!({"nodes": {"a": 1}, "keepalive_pool": {"size": 5}, "timeout":
        {"connect": 1, "send": 0.5, "read": 60}}));
    assert_eq!(upstream.kind, Balance::RoundRobin);
    assert_eq!(upstream.scheme, Scheme::Http);
    assert_eq!(upstream.pass_host, PassHost::Pass);
    assert_eq!(upstream.hash_on, HashOn::Vars);
    assert_eq!(upstream.keepalive_pool, Some(KeepalivePool { size: 5, idle_timeout: 60.0, requests: 1000 }));
    assert_eq!(upstream.timeout, Some(Timeout { connect: 1.0, send: 0.5, read: 60.0 }));
    assert_eq!(upstream.nodes[0].port(upstream.scheme), Some(80));
    assert!(!upstream.is_discovered());
}

#[test]
fn nodes_read_from_both_forms() {
    let map: Upstream = read(&json!({"nodes": {"b:81": 2, "[::1]:82": 1, "::1": 0, "a.com": 3}}));
    let list: Upstream = read(&json!({"nodes": [
        {"host": "b", "port": 81, "weight": 2}, {"host": "[::1]", "port": 82, "weight": 1},
        {"host": "::1", "weight": 0}, {"host": "a.com", "weight": 3},
    ]}));
    assert_eq!(map.nodes, list.nodes);
    let in_host: Upstream =
        read(&json!({"nodes": [{"host": "b:81", "weight": 2}, {"host": "[::1]:82", "weight": 1}]}));
    assert_eq!(in_host.nodes, map.nodes[..2]);
    assert!(read::<Upstream>(&json!({"service_name": "x", "discovery_type": "dns"})).nodes.is_empty());
    assert!(serde_json::from_str::<Upstream>(r#"{"nodes":{"a:99999":1}}"#).is_err());
}

#[test]
fn whole_numbers_end_where_their_type_ends() {
    let upstream: Upstream = read(&json!({
        "nodes": [{"host": "a", "weight": 1e12, "priority": -1e300}, {"host": "b", "weight": 5_000_000_000_u64}],
        "retries": 1e30, "keepalive_pool": {"size": 1e10},
    }));
    let nodes: Vec<_> = upstream.nodes.iter().map(|node| (node.weight, node.priority)).collect();
    assert_eq!(nodes, [(u32::MAX, i64::MIN), (u32::MAX, 0)]);
    assert_eq!((upstream.retries, upstream.keepalive_pool.unwrap().size), (Some(u32::MAX), u32::MAX));
    assert_eq!(read::<Route>(&json!({"uri": "/", "priority": 1e30})).priority, i64::MAX);
    for (conf, reason) in [
        (json!({"nodes": {"a": 1.5}}), "1.5 is no whole number"),
        (json!({"nodes": {}, "retries": -1}), "-1 is less than 0"),
    ] {
        let error = serde_json::from_value::<Upstream>(conf).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn addresses_split_as_in_apisix() {
    for (address, host, port) in [
        ("a", "a", None),
        ("a:1", "a", Some(1)),
        ("1.2.3.4:80", "1.2.3.4", Some(80)),
        ("::1", "::1", None),
        ("2001:db8::68", "2001:db8::68", None),
        ("[::1]", "[::1]", None),
        ("[::1]:443", "[::1]", Some(443)),
    ] {
        assert_eq!(split_address(address), Ok((host, port)), "{address}");
    }
    assert_eq!(split_address("a:0x"), Err("invalid port 0x".to_owned()));
}

#[test]
fn a_private_key_is_never_printed() {
    let ssl: Ssl = read(
        &json!({"cert": "C", "key": "TOPSECRET", "sni": "a.com", "certs": ["D"], "keys": ["TOPSECRET2"]}),
    );
    assert!(!format!("{ssl:?}").contains("TOPSECRET"));
    assert_eq!(
        ssl.pairs().map(|(c, k)| (c, k.reveal())).collect::<Vec<_>>(),
        [("C", "TOPSECRET"), ("D", "TOPSECRET2")]
    );
    assert_eq!(ssl.kind, SslType::Server);
}

#[test]
fn the_other_kinds_read() {
    let consumer: Consumer =
        read(&json!({"username": "jack", "group_id": 1, "plugins": {"key-auth": {"key": "k"}}}));
    assert_eq!((&*consumer.username, consumer.group_id.as_deref()), ("jack", Some("1")));
    assert_eq!(read::<Credential>(&json!({"id": "c1"})).id.as_deref(), Some("c1"));
    assert_eq!(read::<StreamRoute>(&json!({"server_port": 9100})).server_port, Some(9100));
    assert_eq!(&*read::<Proto>(&json!({"content": "syntax"})).content, "syntax");
    assert_eq!(read::<PluginMetadata>(&json!({"log_format": {}})).0.len(), 1);
    assert_eq!(format!("{:?}", read::<Secret>(&json!({"token": "t"}))), "Secret(…)");
    read::<GlobalRule>(&json!({"id": "1", "plugins": {}}));
    read::<PluginConfig>(&json!({"id": "1", "plugins": {}}));
    read::<ConsumerGroup>(&json!({"id": "1", "plugins": {}}));
    read::<Service>(&json!({"hosts": ["a"], "upstream": {"nodes": []}}));
}

#[test]
fn empty_tables_of_lua_read_as_what_they_stand_for() {
    let route: Route =
        read(&json!({"uri": "/", "hosts": {}, "methods": null, "plugins": [], "labels": null}));
    assert!(route.hosts.is_empty() && route.methods.is_empty() && route.plugins.is_empty());
    assert!(readable(Kind::Routes, &json!({"hosts": {"a": 1}})).is_err());
    assert!(readable(Kind::Routes, &json!({"plugins": [1]})).is_err());
    assert_eq!(readable(Kind::Upstreams, &json!({"nodes": {"a:1": 1}})), Ok(()));
}
