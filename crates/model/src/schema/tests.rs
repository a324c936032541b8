use serde_json::json;

use super::*;
use crate::plugin_facts::PluginFacts;

fn accept(_: &Value) -> Result<(), String> {
    Ok(())
}

const PLUGINS: [PluginFacts; 2] = [
    PluginFacts {
        name: "key-auth",
        priority: 2500,
        schema: || json!({"type": "object", "properties": {"header": {"type": "string", "default": "apikey"}}}),
        consumer_schema: Some(
            || json!({"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}),
        ),
        metadata_schema: None,
        secrets: &["key"],
        check: accept,
    },
    PluginFacts {
        name: "limit-count",
        priority: 1002,
        schema: || {
            json!({
                "properties": {"count": {"type": "integer", "exclusiveMinimum": 0}, "policy": {"default": "local"}},
                "required": ["count"],
            })
        },
        consumer_schema: None,
        metadata_schema: Some(|| json!({"properties": {"log_format": {"type": "object"}}})),
        secrets: &[],
        check: |conf| match (&conf["count"], &conf["policy"]) {
            (_, Value::Null) => Err("built without its defaults".to_owned()),
            (count, _) if *count == 13 => Err("13 is unlucky".to_owned()),
            _ => Ok(()),
        },
    },
];

fn checker() -> Checker {
    Checker::new(&PLUGINS).unwrap()
}

/// `base` with other members.
fn with(base: &Value, members: &Value) -> Value {
    let mut value = base.clone();
    for (name, member) in members.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

fn route(members: &Value) -> Value {
    with(&json!({"id": "1", "uri": "/", "upstream": {"nodes": {"127.0.0.1:80": 1}}}), members)
}

fn upstream(members: &Value) -> Value {
    with(&json!({"nodes": {"127.0.0.1:80": 1}}), members)
}

#[test]
fn every_schema_compiles_and_takes_an_example() {
    let pem = "x".repeat(128);
    for (kind, conf) in [
        (
            Kind::Secrets,
            json!({"id": "vault/1", "uri": "http://127.0.0.1:8200", "prefix": "kv", "token": "t"}),
        ),
        (Kind::Protos, json!({"id": "1", "content": "syntax = \"proto3\";"})),
        (Kind::PluginMetadata, json!({"id": "limit-count", "log_format": {}})),
        (Kind::PluginMetadata, json!({"id": "key-auth"})),
        (Kind::Ssls, json!({"id": "1", "cert": pem, "key": pem, "snis": ["*.test.com"]})),
        (Kind::Ssls, json!({"cert": "$env://CERT", "key": "$secret://vault/1/key", "sni": "a.com"})),
        (Kind::Ssls, json!({"cert": pem, "key": pem, "type": "client"})),
        (Kind::Upstreams, json!({"service_name": "a", "discovery_type": "dns", "type": "least_conn"})),
        (Kind::Upstreams, upstream(&json!({"type": "chash", "key": "arg_id"}))),
        (Kind::Upstreams, upstream(&json!({"type": "chash", "hash_on": "consumer"}))),
        (Kind::PluginConfigs, json!({"id": 1, "plugins": {"limit-count": {"count": 1}}})),
        (Kind::ConsumerGroups, json!({"id": "a", "plugins": {}, "labels": {"a": "b"}})),
        (
            Kind::Consumers,
            json!({"username": "jack_1", "plugins": {"key-auth": {"key": "k"}, "limit-count": {"count": 1}}}),
        ),
        (Kind::Credentials, json!({"id": "c1", "plugins": {"key-auth": {"key": "k"}}})),
        (Kind::GlobalRules, json!({"id": "1", "plugins": {}})),
        (Kind::Services, json!({"id": "1"})),
        (
            Kind::Routes,
            route(
                &json!({"vars": [["arg_a", "==", "1"]], "methods": ["GET"], "hosts": ["a.com", "*.b.com"]}),
            ),
        ),
        (Kind::Routes, route(&json!({"remote_addrs": ["127.0.0.0/8", "::1", "10.0.0.1"]}))),
        (
            Kind::StreamRoutes,
            json!({"id": "1", "server_port": 9100, "upstream_id": "1", "remote_addr": "10.0.0.0/8"}),
        ),
    ] {
        assert_eq!(checker().check(kind, &conf), Ok(()), "{kind} {conf}");
        assert_eq!(checker().fill(kind, &mut conf.clone()), Ok(()), "{kind} {conf}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn refusals_are_apisixs() {
    let pass = "passive";
    for (kind, conf, error) in [
        (
            Kind::Routes,
            route(&json!({"uri": 1})),
            "invalid configuration: property \"uri\" validation failed: wrong type: expected string, got number",
        ),
        (
            Kind::Routes,
            json!({"id": "1"}),
            "invalid configuration: allOf 1 failed: value should match only one schema, but matches none",
        ),
        (
            Kind::Routes,
            json!({"uri": "/"}),
            "invalid configuration: object matches none of the required: [\"plugins\",\"uri\"] or [\"upstream\",\"uri\"] or [\"upstream_id\",\"uri\"] or [\"service_id\",\"uri\"] or [\"plugins\",\"uris\"] or [\"upstream\",\"uris\"] or [\"upstream_id\",\"uris\"] or [\"service_id\",\"uris\"] or [\"script\",\"uri\"] or [\"script\",\"uris\"]",
        ),
        (
            Kind::Routes,
            route(&json!({"id": 0})),
            "invalid configuration: property \"id\" validation failed: object matches none of the required",
        ),
        (
            Kind::Routes,
            route(&json!({"uris": []})),
            "invalid configuration: property \"uris\" validation failed: expect array to have at least 1 items",
        ),
        (
            Kind::Routes,
            route(&json!({"methods": ["GETX"]})),
            "invalid configuration: property \"methods\" validation failed: failed to validate item 1: matches none of the enum values",
        ),
        (Kind::Routes, route(&json!({"host": "a", "hosts": ["a"]})), "only one of host or hosts is allowed"),
        (
            Kind::Routes,
            route(&json!({"remote_addr": "::1", "remote_addrs": ["::1"]})),
            "only one of remote_addr or remote_addrs is allowed",
        ),
        (
            Kind::Routes,
            route(&json!({"remote_addr": "1.2.3"})),
            "invalid configuration: property \"remote_addr\" validation failed: object matches none of the required",
        ),
        (
            Kind::Routes,
            route(&json!({"vars": [["a", "=", "b"]]})),
            "failed to validate the 'vars' expression: invalid operator '='",
        ),
        (
            Kind::Routes,
            route(&json!({"name": "x".repeat(257)})),
            "invalid configuration: property \"name\" validation failed: string too long, expected at most 256, got 257",
        ),
        (
            Kind::Routes,
            route(&json!({"labels": {"env": []}})),
            "invalid configuration: property \"labels\" validation failed: failed to validate env (matching \".*\"): wrong type: expected string, got table",
        ),
        (
            Kind::Routes,
            route(&json!({"invalid_property": 1})),
            "invalid configuration: additional properties forbidden, found invalid_property",
        ),
        (Kind::Routes, route(&json!({"plugins": {"nope": {}}})), "unknown plugin [nope]"),
        (
            Kind::Routes,
            route(&json!({"plugins": {"key-auth": "x"}})),
            "invalid plugin conf \"x\" for plugin [key-auth]",
        ),
        (
            Kind::Routes,
            route(&json!({"plugins": {"limit-count": {}}})),
            "failed to check the configuration of plugin limit-count err: property \"count\" is required",
        ),
        (
            Kind::Routes,
            route(&json!({"plugins": {"limit-count": {"count": 13}}})),
            "failed to check the configuration of plugin limit-count err: 13 is unlucky",
        ),
        (
            Kind::Routes,
            route(&json!({"plugins": {"limit-count": {"count": 1, "_meta": {"disable": 1}}}})),
            "failed to check the configuration of plugin limit-count err: property \"_meta\" validation failed: property \"disable\" validation failed: wrong type: expected boolean, got number",
        ),
        (
            Kind::Routes,
            route(&json!({"plugins": {"key-auth": {"_meta": {"x": 1}}}})),
            "failed to check the configuration of plugin key-auth err: property \"_meta\" validation failed: additional properties forbidden, found x",
        ),
        (
            Kind::Routes,
            route(&json!({"plugins": {"key-auth": {"_meta": {"filter": ["a"]}}}})),
            "failed to validate the 'vars' expression: rule should be wrapped inside brackets",
        ),
        (
            Kind::Routes,
            route(&json!({"filter_func": "function(vars) "})),
            "failed to load 'filter_func' string: [string \"return function(vars) \"]:1: 'end' expected near '<eof>'",
        ),
        (Kind::Routes, route(&json!({"upstream": {"nodes": {"a:0": 1}}})), "invalid port 0"),
        (
            Kind::Routes,
            route(&json!({"upstream": {"nodes": [{"host": "::1", "port": 1, "weight": 1}]}})),
            "invalid configuration: IPv6 address must be enclosed with '[' and ']'",
        ),
        (
            Kind::Upstreams,
            json!({"nodes": [{"host": "::1", "port": 1, "weight": 1}]}),
            "invalid configuration: IPv6 address must be enclosed with '[' and ']'",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"retries": -1})),
            "invalid configuration: property \"retries\" validation failed: expected -1 to be at least 0",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"nodes": {"a": "1"}})),
            "invalid configuration: property \"nodes\" validation failed: object matches none of the required",
        ),
        (Kind::Upstreams, upstream(&json!({"nodes": {"a:65536": 1}})), "invalid port 65536"),
        (
            Kind::Upstreams,
            json!({"type": "roundrobin"}),
            "invalid configuration: value should match only one schema, but matches none",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"service_name": "a", "discovery_type": "dns"})),
            "invalid configuration: value should match only one schema, but matches both schemas 1 and 2",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"pass_host": "rewrite"})),
            "`upstream_host` can't be empty when `pass_host` is `rewrite`",
        ),
        (
            Kind::Routes,
            route(&json!({"vars": [[["post_arg.messages[.content[*].type", "has", "image_url"]]]})),
            "failed to validate the 'vars' expression: invalid expression post_arg.messages[.content[*].type: at position 10, parser error",
        ),
        (Kind::Upstreams, upstream(&json!({"type": "chash"})), "missing key"),
        (
            Kind::Upstreams,
            upstream(&json!({"type": "chash", "key": "not_support"})),
            "invalid configuration: failed to match pattern \"^((uri|server_name|server_addr|request_uri|remote_port|remote_addr|query_string|host|hostname|mqtt_client_id)|arg_[0-9a-zA-z_-]+)$\" with \"not_support\"",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"type": "chash", "hash_on": "header", "key": "$#^@"})),
            "invalid configuration: failed to match pattern \"^[a-zA-Z0-9-_]+$\" with \"$#^@\"",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"type": "fastest"})),
            "invalid configuration: unknown variant `fastest`, expected one of `roundrobin`, `chash`, `ewma`, `least_conn`, `none`",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"tls": {"client_cert": "x".repeat(128)}})),
            "invalid configuration: property \"tls\" validation failed: failed to validate dependent schema for \"client_cert\": property \"client_key\" is required",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"checks": {pass: {}}})),
            "invalid configuration: property \"checks\" validation failed: object matches none of the required: [\"active\"] or [\"active\",\"passive\"]",
        ),
        (
            Kind::Upstreams,
            upstream(&json!({"checks": {"active": {"healthy": {"successes": 255}}}})),
            "invalid configuration: property \"checks\" validation failed: property \"active\" validation failed: property \"healthy\" validation failed: property \"successes\" validation failed: expected 255 to be at most 254",
        ),
        (Kind::Consumers, json!({"id": "jack"}), "invalid configuration: property \"username\" is required"),
        (
            Kind::Consumers,
            json!({"username": "ja ck"}),
            "invalid configuration: property \"username\" validation failed: failed to match pattern \"^[a-zA-Z0-9_\\\\-]+$\" with \"ja ck\"",
        ),
        (
            Kind::Consumers,
            json!({"username": "jack", "plugins": {"key-auth": {}}}),
            "invalid plugins configuration: failed to check the configuration of plugin key-auth err: property \"key\" is required",
        ),
        (
            Kind::Credentials,
            json!({"id": "c", "plugins": {"limit-count": {"count": 1}}}),
            "only supports auth type plugins in consumer credential",
        ),
        (
            Kind::Credentials,
            json!({"plugins": {"a": {}, "b": {}}}),
            "invalid configuration: property \"plugins\" validation failed: expect object to have at most 1 properties",
        ),
        (Kind::GlobalRules, json!({"id": "1"}), "invalid configuration: property \"plugins\" is required"),
        (Kind::Ssls, json!({"sni": "a.com"}), "invalid configuration: then clause did not match"),
        (Kind::PluginMetadata, json!({"id": "nope"}), "invalid plugin name"),
        (
            Kind::PluginMetadata,
            json!({"id": "limit-count", "log_format": 1}),
            "invalid configuration: property \"log_format\" validation failed: wrong type: expected object, got number",
        ),
        (Kind::Secrets, json!({"id": "nope/1"}), "invalid secret manager: nope"),
        (Kind::Secrets, json!({"id": "1"}), "invalid secret id: 1"),
        (
            Kind::Secrets,
            json!({"id": "gcp/1"}),
            "invalid configuration: value should match only one schema, but matches none",
        ),
        (Kind::StreamRoutes, json!({"remote_addr": ":/8"}), "invalid remote_addr: :/8"),
    ] {
        assert_eq!(checker().check(kind, &conf).unwrap_err(), error, "{kind} {conf}");
        assert_eq!(checker().fill(kind, &mut conf.clone()).unwrap_err(), error, "{kind} {conf}");
    }
}

#[test]
fn a_disabled_plugin_may_be_wrong() {
    let conf = route(&json!({"plugins": {"limit-count": {"_meta": {"disable": true}}}}));
    assert_eq!(checker().check(Kind::Routes, &conf), Ok(()));
}

#[test]
fn defaults_of_resource_and_plugins_are_filled_in() {
    let mut conf = route(&json!({"plugins": {"limit-count": {"count": 1}, "key-auth": {}}}));
    checker().fill(Kind::Routes, &mut conf).unwrap();
    assert_eq!((&conf["priority"], &conf["status"]), (&json!(0), &json!(1)));
    assert_eq!(conf["upstream"]["scheme"], "http");
    assert_eq!(conf["plugins"]["limit-count"], json!({"count": 1, "policy": "local"}));
    assert_eq!(conf["plugins"]["key-auth"], json!({"header": "apikey"}));
    let mut nodes = json!({"nodes": [{"host": "a", "weight": 1}]});
    checker().fill(Kind::Upstreams, &mut nodes).unwrap();
    assert_eq!(nodes["nodes"][0]["priority"], 0);
}

#[test]
fn what_a_plugin_is_built_from_has_its_defaults() {
    let checker = checker();
    let mut conf = json!({"count": 1});
    assert_eq!(checker.fill_plugin("limit-count", Place::Elsewhere, &mut conf), Ok(()));
    assert_eq!(conf["policy"], "local");
    assert_eq!(
        checker.fill_plugin("limit-count", Place::Consumer, &mut json!({})).unwrap_err(),
        "property \"count\" is required"
    );
    assert_eq!(
        checker.fill_plugin("key-auth", Place::Consumer, &mut json!({})).unwrap_err(),
        "property \"key\" is required"
    );
    assert_eq!(checker.fill_plugin("key-auth", Place::Metadata, &mut json!({})), Ok(()));
    assert_eq!(
        checker.fill_plugin("nope", Place::Elsewhere, &mut json!({})).unwrap_err(),
        "unknown plugin [nope]"
    );
}

#[test]
fn the_schema_alone_says_no_prefix() {
    assert_eq!(checker().check_schema(Kind::Routes, &route(&json!({"plugins": {"nope": {}}}))), Ok(()));
    let error = checker().check_schema(Kind::Protos, &json!({})).unwrap_err();
    assert_eq!(error, "property \"content\" is required");
    assert!(plugin_schema(&PLUGINS[1])["properties"]["_meta"].is_object());
}

#[test]
fn a_hundred_thousand_routes_are_checked_quickly() {
    let checker = checker();
    let conf =
        route(&json!({"plugins": {"limit-count": {"count": 2}}, "hosts": ["a.com"], "methods": ["GET"]}));
    let start = std::time::Instant::now();
    for _ in 0..100_000 {
        checker.check(Kind::Routes, &conf).unwrap();
    }
    let took = start.elapsed();
    // Generous: a debug build on a busy machine. What it guards against is a schema compiled for each check.
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}
