//! Routes of TCP and UDP.

use super::*;
use crate::testing::{Trace, now};

fn served_session(lab: &Lab, client: &str) -> Option<(String, u16)> {
    let ctx = lab.session(client, "127.0.0.1:9100");
    let node = ctx.upstream.as_ref()?.nodes.current().pick(&ctx)?.node.port;
    Some((ctx.route_id()?.to_owned(), node))
}

#[test]
fn a_stream_route_takes_what_it_does_not_say_from_its_service() {
    let lab = Lab::with(&[
        ("upstreams/u", to(1)),
        (
            "services/s",
            json!({"name": "S", "upstream_id": "u",
                   "plugins": {"mark-low": {"label": "service"}, "mark-high": {"label": "http alone"}}}),
        ),
        ("stream_routes/1", json!({"name": "R", "service_id": "s", "remote_addr": "10.0.0.1"})),
        (
            "stream_routes/2",
            json!({"service_id": "s", "remote_addr": "10.0.0.2", "upstream": to(2),
                   "plugins": {"mark-low": {"label": "own"}}}),
        ),
        ("global_rules/1", json!({"plugins": {"mark-low": {"label": "global"}}})),
    ]);
    assert_eq!(lab.refused(), [""; 0]);
    assert_eq!(served_session(&lab, "10.0.0.1:7"), Some(("1".to_owned(), 1)));
    assert_eq!(served_session(&lab, "10.0.0.2:7"), Some(("2".to_owned(), 2)));
    assert_eq!(served_session(&lab, "10.0.0.3:7"), None);
    let trace = |client| {
        let mut ctx = lab.session(client, "127.0.0.1:9100");
        now(crate::chain::preread(&mut ctx));
        Trace::of(&ctx).join(" ")
    };
    assert_eq!(trace("10.0.0.1:7"), "service.Preread");
    assert_eq!(trace("10.0.0.2:7"), "own.Preread");
    let ctx = lab.session("10.0.0.1:7", "127.0.0.1:9100");
    assert_eq!((ctx.route_name(), ctx.service_id(), ctx.service_name()), (Some("R"), Some("s"), Some("S")));
    let var = |name: &str| ctx.var(name).map(std::borrow::Cow::into_owned);
    assert_eq!(var("remote_addr").as_deref(), Some("10.0.0.1"));
    assert_eq!(
        (var("protocol").as_deref(), var("uri"), var("server_port").as_deref()),
        (Some("TCP"), None, Some("9100"))
    );
}

#[test]
fn what_streams_can_not_do_is_refused() {
    let mut lab = Lab::with(&[
        ("upstreams/tcp", json!({"scheme": "tcp", "nodes": {"127.0.0.1:1": 1}})),
        ("routes/1", json!({"uri": "/", "upstream_id": "tcp"})),
        ("stream_routes/1", json!({"protocol": {"name": "redis"}, "upstream_id": "tcp"})),
        ("stream_routes/2", json!({"upstream_id": "tcp", "plugins": {"mark-high": {}}})),
        ("stream_routes/3", json!({"upstream_id": "tcp", "plugins": {"mark-low": {"label": 1}}})),
        ("stream_routes/4", json!({"upstream_id": "tcp", "server_addr": "somewhere"})),
        ("stream_routes/5", json!({"upstream_id": "tcp"})),
    ]);
    assert_eq!(
        lab.refused(),
        [
            "routes/1: upstreams of scheme tcp are not for HTTP",
            "stream_routes/1: unknown protocol [redis]",
            "stream_routes/2: unknown plugin [mark-high]",
            "stream_routes/3: failed to check the configuration of stream plugin [mark-low]: property \"label\" validation failed: wrong type: expected string, got number",
            "stream_routes/4: invalid server_addr: somewhere",
        ]
    );
    lab.change(&[("stream_routes/5", json!({"upstream_id": "tcp", "server_addr": "?"}))]);
    assert_eq!(served_session(&lab, "10.0.0.1:7"), Some(("5".to_owned(), 1)), "its last good form");
    lab.change(&[("stream_routes/5", Value::Null)]);
    assert_eq!(served_session(&lab, "10.0.0.1:7"), None);
}
