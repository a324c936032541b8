use std::{collections::HashSet, time::Duration};

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::testing::{plugin, refused, reply};

fn request(plugin: &RequestId, headers: &[(&str, &str)]) -> Ctx {
    let mut ctx = Ctx::example("GET", "/opentracing", headers);
    assert!(reply(plugin.rewrite(&mut ctx)).is_none());
    ctx
}

fn sent<'a>(ctx: &'a Ctx, name: &str) -> &'a str {
    ctx.request.header(name).unwrap()
}

#[test]
fn client_and_upstream_get_the_same_id() {
    let plugin: RequestId = plugin(json!({}));
    let mut ctx = request(&plugin, &[]);
    let id = sent(&ctx, "x-request-id").to_owned();
    assert_eq!(ctx.request_id.as_deref(), Some(&*id));
    ctx.response.status = StatusCode::OK;
    plugin.header_filter(&mut ctx);
    assert_eq!(ctx.response.headers["x-request-id"], id);
}

#[test]
fn an_id_that_is_there_stays() {
    let plugin: RequestId = plugin(json!({}));
    let mut ctx = request(&plugin, &[("X-Request-Id", "123")]);
    assert_eq!(sent(&ctx, "x-request-id"), "123");
    ctx.response.headers.insert("x-request-id", "of the upstream".parse().unwrap());
    plugin.header_filter(&mut ctx);
    assert_eq!(ctx.response.headers["x-request-id"], "of the upstream");
    let ctx = request(&plugin, &[("X-Request-Id", "")]);
    assert_eq!(sent(&ctx, "x-request-id").len(), 36);
}

#[test]
fn a_global_rule_and_a_route_each_give_theirs() {
    let of_all: RequestId = plugin(json!({"header_name": "Custom-Header-Name"}));
    let of_route: RequestId = plugin(json!({}));
    let hidden: RequestId = plugin(json!({"header_name": "X-Hidden", "include_in_response": false}));
    let mut ctx = request(&of_all, &[]);
    assert!(reply(of_route.rewrite(&mut ctx)).is_none() && reply(hidden.rewrite(&mut ctx)).is_none());
    for plugin in [&of_all, &of_route, &hidden] {
        plugin.header_filter(&mut ctx);
    }
    let headers = &ctx.response.headers;
    assert_eq!(headers.len(), 2);
    assert_ne!(headers["custom-header-name"], headers["x-request-id"]);
}

#[test]
fn ids_are_of_the_kind_that_is_asked_for() {
    let own = |conf: Value| {
        let plugin: RequestId = plugin(conf);
        let ids: HashSet<String> =
            (0..50).map(|_| sent(&request(&plugin, &[]), "x-request-id").to_owned()).collect();
        assert_eq!(ids.len(), 50);
        ids.into_iter().next().unwrap()
    };
    let version = |id: &str| Uuid::parse_str(id).unwrap().get_version_num();
    assert_eq!(version(&own(json!({}))), 4);
    assert_eq!(version(&own(json!({"algorithm": "uuidv7"}))), 7);
    assert_eq!(own(json!({"algorithm": "ksuid"})).len(), 27);
    let nanoid = own(json!({"algorithm": "nanoid"}));
    assert!(nanoid.len() == 21 && nanoid.bytes().all(|byte| NANOID.contains(&byte)), "{nanoid}");
    assert_eq!(own(json!({"algorithm": "range_id"})).len(), 16);
    let ranged = own(json!({"algorithm": "range_id", "range_id": {"length": 20, "char_set": "abcdef"}}));
    assert!(ranged.len() == 20 && ranged.bytes().all(|byte| b"abcdef".contains(&byte)), "{ranged}");
}

#[test]
fn a_ksuid_is_what_others_make_of_the_same_bits() {
    // Both ends of its range, as its documentation gives them.
    let epoch = UNIX_EPOCH + Duration::from_secs(1_400_000_000);
    assert_eq!(ksuid(epoch, [0; 16]), "000000000000000000000000000");
    let last = epoch + Duration::from_secs(u64::from(u32::MAX));
    assert_eq!(ksuid(last, [255; 16]), "aWgEPTl1tmebfsQzFP4bxwgy80V");
}

#[test]
fn what_is_refused() {
    for (conf, reason) in [
        (
            json!({"include_in_response": "bad_type"}),
            "property \"include_in_response\" validation failed: wrong type: expected boolean, got string",
        ),
        (
            json!({"algorithm": "bad_algorithm"}),
            "property \"algorithm\" validation failed: matches none of the enum values",
        ),
        (
            json!({"algorithm": "range_id", "range_id": {"length": 2, "char_set": "abcdefg"}}),
            "property \"range_id\" validation failed: property \"length\" validation failed: expected 2 to be at least 6",
        ),
    ] {
        assert_eq!(refused::<RequestId>(conf.clone()), reason, "{conf}");
    }
}
