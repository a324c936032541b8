use serde_json::json;

use super::*;
use crate::testing::{Lab, plugin, refused, told};

type Headers<'a> = &'a [(&'a str, &'a str)];

fn basic(count: u64) -> Value {
    json!({"count": count, "time_window": 60})
}

fn request(headers: Headers<'_>) -> Ctx {
    Ctx::example("GET", "/hello?who=jack", headers)
}

/// The status of each of these requests; 200 where they go on.
fn statuses<'a>(plugin: &LimitCount, requests: impl IntoIterator<Item = Headers<'a>>) -> Vec<u16> {
    let status = |headers| {
        let mut ctx = request(headers);
        told(plugin.access(&mut ctx)).map_or(200, |(status, _)| status)
    };
    requests.into_iter().map(status).collect()
}

fn preset(ctx: &Ctx) -> Vec<String> {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    ctx.preset.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
}

#[test]
fn the_client_is_told_what_is_left() {
    let plugin: LimitCount = plugin(basic(2));
    let mut ctx = request(&[]);
    assert!(told(plugin.access(&mut ctx)).is_none());
    assert_eq!(preset(&ctx), ["x-ratelimit-limit: 2", "x-ratelimit-remaining: 1", "x-ratelimit-reset: 60"]);
    let info = ctx.var("rate_limiting_info").unwrap().into_owned();
    let (start, end) = info.split_once(":127.0.0.1").unwrap();
    let version = start.strip_prefix("{\"rate_limiting_key\":\"/apisix/routes/1:").unwrap();
    assert!(version.parse::<u32>().is_ok(), "{info}");
    assert_eq!(end, "\",\"rate_limiting_limit\":2,\"rate_limiting_remaining\":1,\"rate_limiting_reset\":60}");
    assert_eq!(statuses(&plugin, [&[][..]; 3]), [200, 503, 503]);
}

#[test]
fn who_is_rejected_is_told_until_when() {
    let conf = json!({"count": 1, "time_window": 60, "rejected_code": 429, "rejected_msg": "Requests are too frequent"});
    let plugin: LimitCount = plugin(conf);
    assert_eq!(statuses(&plugin, [&[][..]]), [200]);
    let mut ctx = request(&[]);
    let answer = told(plugin.access(&mut ctx)).unwrap();
    assert_eq!(answer, (429, "{\"error_msg\":\"Requests are too frequent\"}\n".to_owned()));
    let told = preset(&ctx);
    assert_eq!(told[..2], ["x-ratelimit-limit: 1", "x-ratelimit-remaining: 0"]);
    let reset: f64 = told[2].strip_prefix("x-ratelimit-reset: ").unwrap().parse().unwrap();
    assert!(reset > 50.0 && reset <= 60.0, "{reset}");
}

#[test]
fn nothing_is_told_where_that_is_switched_off() {
    let plugin: LimitCount = plugin(json!({"count": 1, "time_window": 60, "show_limit_quota_header": false}));
    let mut ctx = request(&[]);
    assert!(told(plugin.access(&mut ctx)).is_none());
    assert_eq!(told(plugin.access(&mut ctx)), Some((503, String::new())));
    assert!(ctx.preset.is_empty());
}

#[test]
fn keys_tell_requests_apart() {
    let (a, b): (Headers<'_>, Headers<'_>) = (&[("X-Key", "a"), ("X-More", "1")], &[("X-Key", "b")]);
    let none: Headers<'_> = &[];
    for (key, kind, requests, out) in [
        ("remote_addr", "var", [a, b], [200, 503]),
        ("http_x_key", "var", [a, b], [200, 200]),
        ("http_x_key", "var", [none, none], [200, 503]),
        // Who has no key shares one with whom the address is the key.
        ("", "var", [a, none], [200, 503]),
        ("$http_x_key-$http_x_more", "var_combination", [a, b], [200, 200]),
        ("$http_x_more", "var_combination", [b, none], [200, 503]),
        ("no variables", "var_combination", [a, b], [200, 503]),
        ("http_x_key", "constant", [a, b], [200, 503]),
    ] {
        let plugin: LimitCount = plugin(json!({"count": 1, "time_window": 60, "key": key, "key_type": kind}));
        assert_eq!(statuses(&plugin, requests), out, "{key} {kind}");
    }
}

#[test]
fn a_counter_survives_all_but_a_change_of_its_own() {
    let lab = Lab::default();
    let spent = |resource: &str, conf: Value| {
        statuses(&lab.build_for::<LimitCount>(resource, conf).unwrap(), [&[][..]]) == [503]
    };
    let keep: LimitCount = lab.build(basic(1)).unwrap();
    assert!(!spent("routes/1", basic(1)));
    assert!(spent("routes/1", basic(1)));
    // The same in other words.
    assert!(spent("routes/1", json!({"time_window": 60.0, "count": 1, "policy": "local", "_meta": {}})));
    assert!(!spent("routes/2", basic(1)));
    assert!(!spent("routes/1", basic(2)));
    drop(keep);
    let group = |count: u64| json!({"count": count, "time_window": 60, "group": "g", "key": "k", "key_type": "constant"});
    let first: LimitCount = lab.build_for("services/1", group(1)).unwrap();
    assert!(!spent("services/1", group(1)));
    assert!(spent("routes/3", group(1)));
    assert!(!spent("routes/3", group(2)));
    let mut ctx = request(&[]);
    let _ = first.access(&mut ctx);
    assert!(ctx.var("rate_limiting_info").unwrap().starts_with("{\"rate_limiting_key\":\"g:k\","));
}

#[test]
fn limits_may_come_with_the_request() {
    let plugin: LimitCount =
        plugin(json!({"count": "${http_count ?? 2}", "time_window": "${http_time_window ?? 5}"}));
    assert_eq!(statuses(&plugin, [&[][..]; 3]), [200, 200, 503]);
    assert_eq!(statuses(&plugin, [&[("count", "5")][..], &[("count", "0x5")]]), [200, 200]);
    let mut ctx = request(&[("count", "10")]);
    assert!(told(plugin.access(&mut ctx)).is_none());
    assert_eq!(preset(&ctx)[..2], ["x-ratelimit-limit: 10", "x-ratelimit-remaining: 4"]);
    for bad in ["0", "-1", "1.5", "9999999999999999", "many", "", "nan"] {
        for name in ["count", "time-window", "time_window"] {
            assert_eq!(statuses(&plugin, [&[(name, bad)][..]]), [500], "{name} {bad}");
        }
    }
    let lenient: LimitCount =
        crate::testing::plugin(json!({"count": "$http_count", "time_window": 5, "allow_degradation": true}));
    assert_eq!(statuses(&lenient, [&[("count", "0")][..]; 2]), [200, 200]);
}

#[test]
fn each_rule_that_applies_counts() {
    let conf = json!({"rules": [
        {"key": "${http_user}", "count": "${http_jack_count ?? 2}", "time_window": 60, "header_prefix": "jack"},
        {"key": "${http_project ?? none}-x", "count": 3, "time_window": "60"},
    ]});
    let plugin: LimitCount = plugin(conf);
    let jack: Headers<'_> = &[("user", "jack"), ("project", "apisix")];
    let mut ctx = request(jack);
    assert!(told(plugin.access(&mut ctx)).is_none());
    assert_eq!(
        preset(&ctx),
        [
            "x-jack-ratelimit-limit: 2",
            "x-jack-ratelimit-remaining: 1",
            "x-jack-ratelimit-reset: 60",
            "x-2-ratelimit-limit: 3",
            "x-2-ratelimit-remaining: 2",
            "x-2-ratelimit-reset: 60"
        ]
    );
    assert_eq!(statuses(&plugin, [jack, jack]), [200, 503]);
    // The request that the first rule rejected is none of the second's.
    let project: Headers<'_> = &[("project", "apisix")];
    assert_eq!(statuses(&plugin, [project, project]), [200, 503]);
    assert_eq!(statuses(&plugin, [&[("user", "rose"), ("jack-count", "0")][..]]), [500]);
}

#[test]
fn rules_with_equal_keys_count_apart() {
    let rule = |key: &str, count: u64| json!({"key": key, "count": count, "time_window": 60});
    let plugin: LimitCount = plugin(json!({"rules": [rule("${http_user}", 2), rule("${http_project}", 2)]}));
    let both: Headers<'_> = &[("user", "same"), ("project", "same")];
    assert_eq!(statuses(&plugin, [both, both, both]), [200, 200, 503]);
}

#[test]
fn where_no_rule_applies_the_limit_is_not_known() {
    let rules = json!([{"key": "${http_user}", "count": 1, "time_window": 60}]);
    let strict: LimitCount = plugin(json!({ "rules": rules }));
    let lenient: LimitCount = plugin(json!({"rules": rules, "allow_degradation": true}));
    assert_eq!(statuses(&strict, [&[][..]]), [500]);
    assert_eq!(statuses(&lenient, [&[][..]]), [200]);
}

#[test]
fn windows_slide() {
    let plugin: LimitCount = plugin(json!({"count": 2, "time_window": 3600, "window_type": "sliding"}));
    assert_eq!(statuses(&plugin, [&[][..]; 3]), [200, 200, 503]);
}

#[test]
fn headers_are_called_what_metadata_says() {
    let metadata = json!({"limit_header": "X-Custom-RateLimit-Limit", "remaining_header": "Left"});
    let lab = Lab { metadata, ..Lab::default() };
    let plugin: LimitCount = lab.build(basic(10)).unwrap();
    let mut ctx = request(&[]);
    assert!(told(plugin.access(&mut ctx)).is_none());
    assert_eq!(preset(&ctx), ["x-custom-ratelimit-limit: 10", "left: 9", "x-ratelimit-reset: 60"]);
    let bad = Lab { metadata: json!({"limit_header": "a b"}), ..Lab::default() };
    assert!(bad.build::<LimitCount>(basic(1)).is_err());
}

#[test]
fn seconds_are_written_as_lua_writes_them() {
    for (hundredths, text) in [(6000, "60"), (5990, "59.9"), (5999, "59.99"), (5, "0.05"), (0, "0")] {
        assert_eq!(seconds(hundredths), text);
    }
}

#[test]
fn what_is_refused() {
    let rule = |key: &str| json!({"key": key, "count": 1, "time_window": 60});
    let both = "count/time_window and rules cannot be specified at the same time";
    let neither = "value should match only one schema, but matches none";
    let redis = |more: Value| {
        let mut conf = json!({"count": 1, "time_window": 60, "policy": "redis", "redis_host": "127.0.0.1"});
        conf.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        conf
    };
    for (conf, reason) in [
        (json!({"time_window": 60}), neither),
        (json!({"count": 1, "time_window": 60, "rules": [rule("a")]}), both),
        (json!({"count": 1, "rules": [rule("a")]}), both),
        (json!({"rules": [rule("a")], "group": "g"}), "group and rules cannot be specified at the same time"),
        (json!({"rules": [rule("a"), rule("a")]}), "duplicate key 'a' in rules"),
        (
            json!({"count": 0, "time_window": 60}),
            "property \"count\" validation failed: value should match only one schema, but matches none",
        ),
        (
            json!({"count": 1, "time_window": 0}),
            "property \"time_window\" validation failed: value should match only one schema, but matches none",
        ),
        (
            json!({"count": 1, "time_window": 60, "rejected_msg": ""}),
            "property \"rejected_msg\" validation failed: string too short, expected at least 1, got 0",
        ),
        (redis(json!({"sync_interval": 0.01})), "sync_interval should not be smaller than 0.1"),
        (redis(json!({"sync_interval": 60})), "sync_interval should be smaller than time_window"),
    ] {
        assert_eq!(refused::<LimitCount>(conf.clone()), reason, "{conf}");
    }
    for policy in ["redis", "redis-cluster", "redis-sentinel"] {
        let conf = json!({"count": 1, "time_window": 60, "policy": policy});
        assert!(refused::<LimitCount>(conf).ends_with("clause did not match"), "{policy}");
    }
    let later = refused::<LimitCount>(redis(json!({})));
    assert!(later.starts_with("policy \"redis\" is not supported yet"), "{later}");
}
