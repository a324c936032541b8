mod secrets;
mod streams;

use std::net::Ipv4Addr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{router::Kind as RouterKind, testing::Lab};

fn to(port: u16) -> Value {
    json!({"nodes": {format!("127.0.0.1:{port}"): 1}})
}

/// Which route a request is bound to, and the port of its first node.
fn served(lab: &Lab, target: &str) -> Option<(String, Option<u16>)> {
    let ctx = lab.request(target, &[]);
    let port = ctx
        .upstream
        .as_ref()
        .and_then(|upstream| upstream.nodes.current().pick(&ctx).map(|chosen| chosen.node.port));
    ctx.route_id().map(|id| (id.to_owned(), port))
}

fn port(lab: &Lab, target: &str) -> Option<u16> {
    served(lab, target)?.1
}

#[test]
fn a_route_takes_what_it_does_not_say_from_its_service() {
    let lab = Lab::with(&[
        ("upstreams/u", to(1)),
        ("upstreams/v", to(2)),
        (
            "services/s",
            json!({"name": "S", "upstream_id": "u", "enable_websocket": true, "hosts": ["a.com"],
                   "plugins": {"mark-low": {"label": "service"}, "mark-high": {"label": "service"}}}),
        ),
        ("plugin_configs/p", json!({"plugins": {"mark-high": {"label": "shared"}}})),
        ("routes/bare", json!({"uri": "/bare", "service_id": "s"})),
        (
            "routes/id",
            json!({"uri": "/id", "service_id": "s", "host": "*", "upstream_id": "v", "upstream": to(3)}),
        ),
        (
            "routes/inline",
            json!({"uri": "/inline", "service_id": "s", "host": "b.com", "upstream": to(3),
            "enable_websocket": false, "timeout": {"connect": 1, "send": 2, "read": 3}}),
        ),
        (
            "routes/own",
            json!({"uri": "/own", "service_id": "s", "plugin_config_id": "p", "host": "*",
            "plugins": {"mark-low": {"label": "own"}}}),
        ),
    ]);
    assert_eq!(lab.refused(), [""; 0]);
    let request = |path, host| {
        let ctx = lab.request(path, &[("Host", host)]);
        ctx.route.is_some().then_some(ctx)
    };
    assert!(request("/bare", "b.com").is_none());
    let ctx = request("/bare", "A.com:80").unwrap();
    assert_eq!((ctx.service_id(), ctx.service_name(), ctx.route_name()), (Some("s"), Some("S"), None));
    assert_eq!((ctx.matched_uri(), ctx.matched_host()), (Some("/bare"), Some("a.com")));
    assert!(ctx.route.as_ref().unwrap().websocket);
    assert_eq!(ctx.upstream.as_ref().unwrap().nodes.current().pick(&ctx).unwrap().node.port, 1);
    let ctx = request("/id", "x").unwrap();
    assert_eq!(ctx.upstream.as_ref().unwrap().nodes.current().pick(&ctx).unwrap().node.port, 2);
    let ctx = request("/inline", "b.com").unwrap();
    assert_eq!(ctx.upstream.as_ref().unwrap().nodes.current().pick(&ctx).unwrap().node.port, 3);
    assert!(!ctx.route.as_ref().unwrap().websocket);
    assert_eq!(ctx.timeouts().read.as_secs(), 3);
    let labels = |path| {
        let mut ctx = request(path, "a.com").unwrap();
        crate::chain::header_filter(&mut ctx);
        ctx.response
            .headers
            .get_all("marked")
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(labels("/bare"), ["service", "service"]);
    assert_eq!(labels("/own"), ["shared", "own"]);
}

#[test]
fn a_bad_resource_costs_no_other_and_keeps_its_last_good_form() {
    let mut lab = Lab::with(&[
        ("routes/1", json!({"uri": "/1", "upstream": to(1)})),
        ("routes/2", json!({"uri": "/2", "upstream": to(2), "plugins": {"unheard-of": {}}})),
        ("routes/3", json!({"uri": "/3", "upstream": to(3)})),
    ]);
    assert_eq!(lab.refused(), ["routes/2: unknown plugin [unheard-of]"]);
    assert!(!lab.report.rejected[0].serving_stale);
    assert_eq!((port(&lab, "/1"), port(&lab, "/2"), port(&lab, "/3")), (Some(1), None, Some(3)));

    lab.change(&[("routes/1", json!({"uri": "/new", "plugins": {"mark-low": {"fail": true}}}))]);
    let [first, _] = &*lab.report.rejected else { panic!("{:?}", lab.report) };
    let since = first.since;
    assert!(first.serving_stale && first.reason.ends_with("told to fail"), "{first:?}");
    assert_eq!((port(&lab, "/1"), port(&lab, "/new")), (Some(1), None));

    // Refused again for the same reason, it has been refused since the first time.
    lab.compile(true);
    assert_eq!(lab.report.rejected[0].since, since);
    assert_eq!(port(&lab, "/1"), Some(1));

    lab.change(&[("routes/1", Value::Null), ("routes/2", json!({"uri": "/2", "upstream": to(22)}))]);
    assert_eq!(lab.refused(), [""; 0]);
    assert_eq!((port(&lab, "/1"), port(&lab, "/2")), (None, Some(22)));
}

#[test]
fn what_was_never_whole_keeps_its_requests_from_others() {
    let lacks = |lab: &Lab, path: &str| {
        let ctx = lab.request(path, &[("Host", "example.com")]);
        let route = ctx.route.as_ref().unwrap();
        assert!(ctx.upstream.is_none(), "{path} is served without what it lacks");
        (route.id.to_string(), route.lacks.map(|status| status.as_u16()), !ctx.chain.plugins().is_empty())
    };
    let mark = json!({"mark-low": {"label": "own"}});
    let mut lab = Lab::with(&[
        ("routes/all", json!({"uri": "/*", "upstream": to(9)})),
        ("routes/1", json!({"uri": "/1", "upstream_id": "u", "plugins": mark})),
        ("routes/2", json!({"uri": "/2", "plugin_config_id": "p", "upstream": to(2), "plugins": mark})),
        ("routes/3", json!({"uri": "/3", "service_id": "s"})),
        ("routes/4", json!({"uri": "/4", "service_id": "gone", "upstream": to(4)})),
        ("routes/5", json!({"uri": "/5", "upstream": to(5), "plugins": {"mark-low": {}, "unheard-of": {}}})),
        (
            "routes/6",
            json!({"uri": "/6", "upstream": to(6), "timeout": {"connect": 1, "send": 0, "read": 1}}),
        ),
        (
            "routes/7",
            json!({"uri": "/7", "host": "example.com", "upstream": {"nodes": {"a:1": 1}, "scheme": "tcp"}}),
        ),
        ("routes/8", json!({"uri": "/8", "service_id": "bad", "upstream": to(8)})),
        ("routes/9", json!({"uri": "/9", "vars": [["arg_x"]], "upstream": to(9)})),
        ("routes/10", json!({"uri": "/10", "status": 0, "priority": "x"})),
        ("services/s", json!({"upstream_id": "u"})),
        (
            "services/bad",
            json!({"hosts": ["Example.com"], "upstream": {"nodes": {"a:1": 1}, "retries": "many"}}),
        ),
    ]);
    assert_eq!(lab.report.rejected.len(), 12, "{:?}", lab.refused());
    assert!(lab.report.rejected.iter().all(|rejected| !rejected.serving_stale));
    assert_eq!(lacks(&lab, "/1"), ("1".to_owned(), Some(502), true));
    assert_eq!(lacks(&lab, "/2"), ("2".to_owned(), Some(503), false));
    assert_eq!(lacks(&lab, "/3"), ("3".to_owned(), Some(502), false));
    assert_eq!(lacks(&lab, "/5"), ("5".to_owned(), Some(503), false));
    assert_eq!(lacks(&lab, "/4"), ("4".to_owned(), Some(404), false));
    assert_eq!(lacks(&lab, "/6"), ("6".to_owned(), Some(404), false));
    assert_eq!(lacks(&lab, "/7"), ("7".to_owned(), Some(404), false));
    assert_eq!(lacks(&lab, "/8"), ("8".to_owned(), Some(404), false));
    // Which requests these are for is not known, or none.
    assert_eq!(served(&lab, "/9"), Some(("all".to_owned(), Some(9))));
    assert_eq!(served(&lab, "/10"), Some(("all".to_owned(), Some(9))));
    let elsewhere = lab.request("/7", &[("Host", "other.com")]);
    assert_eq!(elsewhere.route_id(), Some("all"));
    let elsewhere = lab.request("/8", &[("Host", "other.com")]);
    assert_eq!(elsewhere.route_id(), Some("all"));
    lab.change(&[
        ("upstreams/u", to(1)),
        ("plugin_configs/p", json!({"plugins": {}})),
        ("routes/5", json!({"uri": "/5", "upstream": to(5), "plugins": {"mark-low": {}}})),
    ]);
    assert_eq!(lab.report.rejected.len(), 7, "{:?}", lab.refused());
    assert!(lab.refused().contains(&"routes/4: service gone is missing or was refused".to_owned()));
    assert_eq!(port(&lab, "/5"), Some(5));
    assert_eq!((port(&lab, "/1"), port(&lab, "/2"), port(&lab, "/3")), (Some(1), Some(2), Some(1)));
    // What was whole once stays as it was.
    lab.change(&[("upstreams/u", Value::Null), ("plugin_configs/p", Value::Null)]);
    assert_eq!((port(&lab, "/1"), port(&lab, "/2"), port(&lab, "/3")), (Some(1), Some(2), Some(1)));
}

#[test]
fn what_refers_to_something_follows_it() {
    let mut lab = Lab::with(&[
        ("routes/1", json!({"uri": "/1", "service_id": "s"})),
        ("services/s", json!({"upstream_id": "u"})),
    ]);
    assert_eq!(
        lab.refused(),
        [
            "services/s: upstream u is missing or was refused",
            "routes/1: its service's upstream is missing or was refused"
        ]
    );
    lab.change(&[("upstreams/u", to(1))]);
    assert_eq!(lab.refused(), [""; 0]);
    assert_eq!((lab.report.compiled, port(&lab, "/1")), (3, Some(1)));

    lab.change(&[("upstreams/u", to(2)), ("routes/2", json!({"uri": "/2"}))]);
    assert_eq!((lab.report.compiled, port(&lab, "/1")), (4, Some(2)));

    // A bad upstream keeps its form: nobody else notices.
    lab.change(&[("upstreams/u", json!({"nodes": {"a:1": 1}, "type": "chash"}))]);
    assert_eq!((lab.report.compiled, port(&lab, "/1")), (1, Some(2)));

    // One that is gone takes its form along, and those who refer to it keep theirs.
    lab.change(&[("upstreams/u", Value::Null)]);
    assert_eq!(lab.refused(), ["services/s: upstream u is missing or was refused"]);
    assert_eq!(port(&lab, "/1"), Some(2));

    // Who no longer refers to it is not built again.
    lab.change(&[("services/s", json!({"upstream": to(3)}))]);
    assert_eq!(port(&lab, "/1"), Some(3));
    lab.change(&[("upstreams/u", to(4))]);
    lab.change(&[("upstreams/u", to(5))]);
    assert_eq!((lab.report.compiled, port(&lab, "/1")), (1, Some(3)));
}

#[test]
fn what_does_not_change_keeps_its_arc() {
    let mut lab = Lab::with(&[
        ("routes/1", json!({"uri": "/1", "upstream_id": "u"})),
        ("routes/2", json!({"uri": "/2", "upstream": to(2)})),
        ("upstreams/u", to(1)),
    ]);
    let before = lab.plan.clone();
    lab.change(&[("upstreams/u", to(3))]);
    assert!(Arc::ptr_eq(before.route("2").unwrap(), lab.plan.route("2").unwrap()));
    assert!(!Arc::ptr_eq(before.route("1").unwrap(), lab.plan.route("1").unwrap()));
    assert!(Arc::ptr_eq(&before.route("1").unwrap().chain, &lab.plan.route("2").unwrap().chain));
    assert_eq!(before.upstream("u").unwrap().nodes.current().nodes[0].port, 1);
}

#[test]
fn routes_are_switched_off_and_on() {
    let on = |status: u8| ("routes/1", json!({"uri": "/1", "upstream": to(1), "status": status}));
    let mut lab = Lab::with(&[on(0)]);
    assert_eq!(served(&lab, "/1"), None);
    lab.change(&[on(1)]);
    assert_eq!(port(&lab, "/1"), Some(1));
    lab.change(&[on(0)]);
    assert_eq!((served(&lab, "/1"), lab.refused().len()), (None, 0));
}

#[test]
fn another_router_sees_all_routes_again() {
    let mut lab = Lab::with(&[("routes/1", json!({"uri": "/user/:id", "upstream": to(1)}))]);
    assert_eq!(port(&lab, "/user/7"), None);
    lab.routing.kind = RouterKind::UriWithParameter;
    lab.change(&[]);
    let ctx = lab.request("/user/7", &[]);
    assert_eq!(ctx.var("uri_param_id").as_deref(), Some("7"));
}

#[test]
fn consumers_are_found_by_what_is_theirs() {
    let mut lab = Lab::with(&[
        (
            "consumers/jack",
            json!({"username": "jack", "labels": {"custom_id": "7"},
            "plugins": {"auth": {"key": "one"}, "mark-low": {}}}),
        ),
        ("consumers/jack/credentials/c", json!({"plugins": {"auth": {"key": "two"}}})),
        ("consumers/rose", json!({"username": "rose", "plugins": {"auth": {"key": "one"}}})),
        ("consumers/bad", json!({"username": "bad", "plugins": {"auth": {"key": 7}}})),
        ("consumers/none/credentials/c", json!({"plugins": {"auth": {"key": "three"}}})),
    ]);
    assert_eq!(lab.report.rejected.len(), 2, "{:?}", lab.refused());
    let name = |lab: &Lab, key: &str| lab.plan.consumers.by_key("auth", key).map(|c| c.name.to_string());
    let second = lab.plan.consumers.by_key("auth", "two").unwrap();
    assert_eq!((&*second.name, second.credential_id.as_deref()), ("jack", Some("c")));
    assert_eq!((second.custom_id(), second.auth_conf["key"].as_str()), (Some("7"), Some("two")));
    assert!(!second.plugins.is_empty());
    assert_eq!(name(&lab, "one").as_deref(), Some("rose"));
    lab.change(&[("consumers/rose", Value::Null)]);
    assert_eq!(name(&lab, "one").as_deref(), Some("jack"));
    lab.change(&[("consumers/jack", json!({"username": "jack", "plugins": {}}))]);
    assert_eq!((name(&lab, "one"), name(&lab, "two").as_deref()), (None, Some("jack")));
    assert!(lab.plan.consumers.by_name("jack").unwrap().plugins.is_empty());
    lab.change(&[("consumers/jack/credentials/c", Value::Null), ("consumers/jack", Value::Null)]);
    assert!(name(&lab, "two").is_none() && lab.plan.consumers.by_name("jack").is_none());
}

#[test]
fn plugins_are_built_again_when_their_metadata_changes() {
    let mut lab = Lab::with(&[("routes/1", json!({"uri": "/1", "plugins": {"mark-low": {}}}))]);
    let label = |lab: &Lab| {
        let mut ctx = lab.request("/1", &[]);
        crate::chain::header_filter(&mut ctx);
        ctx.response.headers["marked"].to_str().unwrap().to_owned()
    };
    assert_eq!(label(&lab), "default");
    lab.change(&[("plugin_metadata/mark-low", json!({"label": "meta"}))]);
    assert_eq!(label(&lab), "meta");
    lab.change(&[("plugin_metadata/mark-low", Value::Null)]);
    assert_eq!(label(&lab), "default");
}

#[test]
fn a_plugin_in_several_global_rules_runs_for_none_and_is_reported() {
    let rule = |label: &str| json!({"plugins": {"mark-low": {"label": label}}});
    let mut lab = Lab::with(&[
        ("global_rules/1", rule("a")),
        ("global_rules/2", rule("b")),
        ("global_rules/3", json!({"plugins": {"mark-high": {}}})),
    ]);
    assert_eq!(lab.plan.global.names(), ["mark-high"]);
    assert_eq!(
        lab.refused(),
        ["global_rules/2: plugin mark-low stands in several global rules and runs for none of them"]
    );
    lab.change(&[("global_rules/1", Value::Null)]);
    assert_eq!(lab.plan.global.names(), ["mark-high", "mark-low"]);
    assert_eq!(lab.refused(), [""; 0]);
}

#[test]
fn lua_and_what_cannot_be_a_secret_are_refused() {
    let lab = Lab::with(&[
        ("routes/1", json!({"uri": "/", "script": "x"})),
        ("routes/2", json!({"uri": "/", "filter_func": "x"})),
        ("consumers/a", json!({"username": "a", "plugins": {"auth": {"key": "$secret://vault/1/a/b"}}})),
        ("consumers/b", json!({"username": "b", "plugins": {"auth": {"key": "$env://KEELGATE_NOT_SET"}}})),
        ("routes/3", json!({"uri": 7})),
    ]);
    assert_eq!(lab.report.rejected.len(), 5, "{:?}", lab.refused());
    let ctx = lab.request("/", &[]);
    assert!(ctx.client.ip() == Ipv4Addr::LOCALHOST && ctx.upstream.is_none());
    assert_eq!((ctx.route_id(), ctx.route.as_ref().unwrap().lacks.is_some()), (Some("1"), true));
}

#[derive(Clone, Debug)]
enum Edit {
    Upstream(u8, Option<bool>),
    Service(u8, Option<u8>),
    Route(u8, Option<u8>),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..3u8, prop::option::of(any::<bool>())).prop_map(|(id, good)| Edit::Upstream(id, good)),
        (0..3u8, prop::option::of(0..3u8)).prop_map(|(id, to)| Edit::Service(id, to)),
        (0..4u8, prop::option::of(0..3u8)).prop_map(|(id, to)| Edit::Route(id, to)),
    ]
}

proptest! {
    /// Where nothing is refused, many small compiles end where one big one does.
    #[test]
    fn step_by_step_is_as_good_as_at_once(edits in prop::collection::vec(edit(), 1..30)) {
        let mut lab = Lab::default();
        for (step, edit) in (1..).zip(edits) {
            let (key, value) = match edit {
                Edit::Upstream(id, None) => (format!("upstreams/{id}"), Value::Null),
                Edit::Upstream(id, Some(true)) => (format!("upstreams/{id}"), to(step)),
                Edit::Upstream(id, Some(false)) => (format!("upstreams/{id}"), json!({"type": "ewma"})),
                Edit::Service(id, None) => (format!("services/{id}"), Value::Null),
                Edit::Service(id, Some(to)) => (format!("services/{id}"), json!({"upstream_id": to})),
                Edit::Route(id, None) => (format!("routes/{id}"), Value::Null),
                Edit::Route(id, Some(to)) => (format!("routes/{id}"), json!({"uri": format!("/{id}"), "service_id": to})),
            };
            lab.change(&[(&key, value)]);
            let mut fresh = Lab { snapshot: lab.snapshot.clone(), ..Lab::default() };
            fresh.compile(false);
            let (mut ours, mut theirs) = (lab.refused(), fresh.refused());
            ours.retain(|refused| !refused.contains("missing"));
            theirs.retain(|refused| !refused.contains("missing"));
            prop_assert_eq!(ours, theirs);
            for id in 0..4 {
                let target = format!("/{id}");
                let now = served(&fresh, &target);
                if now.is_some() && lab.refused().is_empty() {
                    prop_assert_eq!(served(&lab, &target), now);
                }
            }
        }
    }
}
