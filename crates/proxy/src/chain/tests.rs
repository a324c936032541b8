use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{
    ctx::Ctx,
    plugin::{Flow, Reply},
    testing::{Lab, Trace, now},
};

fn mark(label: &str) -> Value {
    json!({ "label": label })
}

fn route(plugins: &Value) -> Value {
    json!({"uri": "/*", "plugins": plugins})
}

fn reply(ctx: &mut Ctx) -> Option<Reply> {
    match now(on_request(ctx)) {
        Flow::Next => None,
        Flow::Reply(reply) => Some(reply),
    }
}

fn body(reply: Option<Reply>) -> String {
    String::from_utf8(reply.unwrap().body.to_vec()).unwrap()
}

#[test]
fn global_rules_come_first_in_every_phase() {
    let lab = Lab::with(&[
        ("global_rules/1", json!({"plugins": {"mark-low": mark("global")}})),
        ("routes/1", route(&json!({"mark-low": mark("low"), "mark-high": mark("high")}))),
    ]);
    let mut ctx = lab.request("/a", &[]);
    assert!(reply(&mut ctx).is_none());
    header_filter(&mut ctx);
    assert_eq!(
        Trace::of(&ctx),
        [
            "global.Rewrite",
            "high.Rewrite",
            "low.Rewrite",
            "global.Access",
            "high.Access",
            "low.Access",
            "global.HeaderFilter",
            "high.HeaderFilter",
            "low.HeaderFilter"
        ]
    );
    assert_eq!(ctx.chain.names(), ["mark-high", "mark-low"]);
    assert!(ctx.chain.is_empty(Phase::Log));
}

#[test]
fn an_answer_ends_the_request_but_not_the_response() {
    let stop = |phase: &str| json!({"label": "high", "stop_in": phase});
    let mut lab =
        Lab::with(&[("routes/1", route(&json!({"mark-high": stop("rewrite"), "mark-low": mark("low")})))]);
    let mut ctx = lab.request("/a", &[]);
    assert_eq!(body(reply(&mut ctx)), "{\"message\":\"high\"}\n");
    header_filter(&mut ctx);
    assert_eq!(Trace::of(&ctx), ["high.Rewrite", "high.HeaderFilter", "low.HeaderFilter"]);

    // Where a global rule answers in rewrite the route's plugins never had a turn.
    lab.change(&[(
        "global_rules/1",
        json!({"plugins": {"mark-low": {"label": "global", "stop_in": "rewrite"}}}),
    )]);
    let mut ctx = lab.request("/a", &[]);
    assert_eq!(body(reply(&mut ctx)), "{\"message\":\"global\"}\n");
    header_filter(&mut ctx);
    assert_eq!(Trace::of(&ctx), ["global.Rewrite", "global.HeaderFilter"]);
}

#[test]
fn global_rules_run_where_no_route_matches() {
    let lab = Lab::with(&[("global_rules/1", json!({"plugins": {"mark-low": mark("global")}}))]);
    let mut ctx = lab.request("/a", &[]);
    assert!(ctx.route.is_none() && reply(&mut ctx).is_none());
    assert_eq!(Trace::of(&ctx), ["global.Rewrite", "global.Access"]);
}

#[test]
fn some_global_plugins_yield_to_the_route() {
    let lab = Lab::with(&[
        ("global_rules/1", json!({"plugins": {"mark-high": mark("global")}})),
        ("routes/1", json!({"uri": "/own", "plugins": {"mark-high": mark("own")}})),
        ("routes/2", json!({"uri": "/off", "plugins": {"mark-high": {"_meta": {"disable": true}}}})),
    ]);
    for (path, trace) in
        [("/own", ["own.Rewrite", "own.Access"]), ("/off", ["global.Rewrite", "global.Access"])]
    {
        let mut ctx = lab.request(path, &[]);
        assert!(reply(&mut ctx).is_none());
        assert_eq!(Trace::of(&ctx), trace);
    }
}

#[test]
fn a_consumer_brings_plugins_after_authentication() {
    let lab = Lab::with(&[
        ("consumer_groups/g", json!({"plugins": {"mark-low": mark("group")}})),
        ("consumers/jack", json!({"username": "jack", "group_id": "g", "plugins": {"auth": {"key": "k"}}})),
        (
            "consumers/rose",
            json!({"username": "rose", "plugins": {"auth": {"key": "r"}, "mark-high": mark("rose")}}),
        ),
        ("consumers/bare", json!({"username": "bare", "plugins": {"auth": {"key": "b"}}})),
        ("routes/1", route(&json!({"auth": {}, "mark-high": mark("route")}))),
    ]);
    for (key, trace) in [
        // New to the route: its rewrite runs when the consumer joins.
        ("k", vec!["auth.Rewrite", "route.Rewrite", "group.Rewrite", "route.Access", "group.Access"]),
        // In the place of the route's, whose rewrite has run.
        ("r", vec!["auth.Rewrite", "route.Rewrite", "rose.Access"]),
        ("b", vec!["auth.Rewrite", "route.Rewrite", "route.Access"]),
    ] {
        for _ in 0..2 {
            let mut ctx = lab.request("/a", &[("key", key), ("x-consumer-username", "made up")]);
            assert!(reply(&mut ctx).is_none());
            assert_eq!(Trace::of(&ctx), trace);
            let name = ctx.consumer.as_ref().unwrap().name.clone();
            assert_eq!(ctx.request.header("x-consumer-username"), Some(&*name));
        }
    }
    let mut ctx = lab.request("/a", &[("key", "nobody")]);
    assert_eq!(reply(&mut ctx).unwrap().status, StatusCode::UNAUTHORIZED);
}

/// APISIX: consumer > consumer group > route > plugin config > service (`terminology/plugin.md`).
#[test]
fn the_nearest_place_counts_even_where_it_only_switches_off() {
    let off = json!({"_meta": {"disable": true}});
    let mut lab = Lab::with(&[
        (
            "services/s",
            json!({"plugins": {"auth": {}, "mark-low": mark("service"), "mark-high": mark("service")}}),
        ),
        ("plugin_configs/p", json!({"plugins": {"mark-low": mark("shared"), "mark-high": mark("shared")}})),
        ("consumer_groups/g", json!({"plugins": {"mark-low": mark("group"), "mark-high": mark("group")}})),
        (
            "consumers/jack",
            json!({"username": "jack", "group_id": "g", "plugins": {"mark-high": mark("jack")}}),
        ),
        ("consumers/jack/credentials/c", json!({"plugins": {"auth": {"key": "k"}}})),
        ("consumers/bare", json!({"username": "bare", "plugins": {"auth": {"key": "b"}}})),
        (
            "routes/1",
            json!({"uri": "/a", "service_id": "s", "plugin_config_id": "p", "plugins": {"mark-low": mark("route")}}),
        ),
    ]);
    let access = |lab: &Lab, key: &str| {
        let mut ctx = lab.request("/a", &[("key", key)]);
        assert!(reply(&mut ctx).is_none());
        let mut all = Trace::of(&ctx);
        all.retain(|step| step.ends_with(".Access"));
        all.join(" ")
    };
    assert_eq!(access(&lab, "b"), "shared.Access route.Access");
    assert_eq!(access(&lab, "k"), "jack.Access group.Access");
    lab.change(&[
        (
            "routes/1",
            json!({"uri": "/a", "service_id": "s", "plugin_config_id": "p", "plugins": {"mark-low": off}}),
        ),
        ("consumers/jack", json!({"username": "jack", "group_id": "g", "plugins": {"mark-high": off}})),
    ]);
    assert_eq!(access(&lab, "b"), "shared.Access");
    assert_eq!(access(&lab, "k"), "group.Access");
    // A group that is gone: who belongs to it stays as he was, and is reported.
    lab.change(&[("consumer_groups/g", Value::Null)]);
    assert_eq!(access(&lab, "k"), "group.Access");
    assert_eq!(lab.refused(), ["consumers/jack: consumer group g is missing or was refused"]);
}

#[test]
fn a_consumer_found_by_a_global_rule_joins_too() {
    let mut lab = Lab::with(&[
        ("global_rules/1", json!({"plugins": {"auth": {}}})),
        (
            "consumers/jack",
            json!({"username": "jack", "plugins": {"auth": {"key": "k"}, "mark-low": mark("jack")}}),
        ),
        ("routes/1", json!({"uri": "/a"})),
    ]);
    let mut ctx = lab.request("/a", &[("key", "k")]);
    assert!(reply(&mut ctx).is_none());
    assert_eq!(Trace::of(&ctx), ["auth.Rewrite", "jack.Rewrite", "jack.Access"]);
    lab.change(&[("global_rules/1", Value::Null)]);
    let mut ctx = lab.request("/a", &[("key", "k")]);
    assert!(reply(&mut ctx).is_none() && Trace::of(&ctx).is_empty());
}

#[test]
fn meta_orders_filters_disables_and_covers() {
    let lab = Lab::with(&[
        (
            "routes/1",
            json!({"uri": "/order", "plugins": {
                "mark-high": mark("high"), "mark-low": {"label": "low", "_meta": {"priority": 5000}}}}),
        ),
        (
            "routes/2",
            json!({"uri": "/filter", "plugins": {
                "mark-high": {"label": "high", "_meta": {"filter": [["arg_on", "==", "1"]]}}}}),
        ),
        (
            "routes/3",
            json!({"uri": "/text", "plugins": {"mark-low": {
                "label": "low", "stop_in": "access", "_meta": {"error_response": "no"}}}}),
        ),
        (
            "routes/4",
            json!({"uri": "/json", "plugins": {"mark-low": {
                "label": "low", "stop_in": "access", "_meta": {"error_response": {"message": "no"}}}}}),
        ),
        (
            "routes/5",
            json!({"uri": "/off", "plugins": {"mark-low": {"fail": true, "_meta": {"disable": true}}}}),
        ),
        (
            "routes/6",
            json!({"uri": "/lua", "plugins": {"mark-low": {"_meta": {"pre_function": "return 1"}}}}),
        ),
    ]);
    assert_eq!(lab.refused().len(), 1);
    assert!(lab.refused()[0].contains("routes/6") && lab.refused()[0].contains("_meta.pre_function is Lua"));
    let traced = |target: &str| {
        let mut ctx = lab.request(target, &[]);
        let reply = reply(&mut ctx);
        (Trace::of(&ctx).iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), reply)
    };
    assert_eq!(traced("/order").0, ["low.Rewrite", "high.Rewrite", "low.Access", "high.Access"]);
    assert_eq!(traced("/filter?on=1").0.len(), 2);
    assert!(traced("/filter?on=2").0.is_empty());
    assert!(traced("/off").0.is_empty());
    assert_eq!(body(traced("/text").1), "no");
    assert_eq!(body(traced("/json").1), "{\"message\":\"no\"}\n");
}
