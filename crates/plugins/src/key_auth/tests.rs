use serde_json::json;

use super::*;
use crate::testing::Gateway;

/// Consumers, and a route that asks for a key.
fn gateway(conf: &Value) -> Gateway {
    Gateway::new(&[
        ("consumers/jack", json!({"username": "jack", "plugins": {"key-auth": {"key": "auth-one"}}})),
        ("consumers/anonymous", json!({"username": "anonymous"})),
        ("routes/1", json!({"uri": "/*", "plugins": {"key-auth": conf}})),
    ])
}

const INVALID: &str = "{\"message\":\"Invalid API key in request\"}\n";
const MISSING: &str = "{\"message\":\"Missing API key in request\"}\n";

#[test]
fn a_key_is_looked_for_in_header_and_query() {
    let plain = gateway(&json!({}));
    let own = gateway(&json!({"header": "Authorization", "query": "auth"}));
    for (gateway, target, headers, refusal) in [
        (&plain, "/", &[("apikey", "auth-one")][..], None),
        (&plain, "/?apikey=auth-one", &[], None),
        (&plain, "/?apikey=other", &[("apikey", "auth-one")], None),
        (&plain, "/?apikey=auth-one", &[("apikey", "other")], Some(INVALID)),
        (&plain, "/", &[("apikey", "\u{e9}")], Some(INVALID)),
        (&plain, "/?apikey", &[], Some(INVALID)),
        (&plain, "/?apikey=auth-one&apikey=auth-one", &[], Some(INVALID)),
        (&plain, "/", &[], Some(MISSING)),
        (&own, "/", &[("Authorization", "auth-one")], None),
        (&own, "/?auth=auth%2Done", &[], None),
        (&own, "/?apikey=auth-one", &[("apikey", "auth-one")], Some(MISSING)),
    ] {
        let (ctx, reply) = gateway.ask("GET", target, headers);
        match refusal {
            None => {
                assert!(reply.is_none(), "{target} {headers:?}");
                assert_eq!(ctx.request.header("x-consumer-username"), Some("jack"));
            }
            Some(body) => {
                let reply = reply.unwrap_or_else(|| panic!("{target} {headers:?}"));
                assert_eq!((reply.status.as_u16(), &*reply.body), (401, body.as_bytes()), "{target}");
                assert_eq!(reply.headers[WWW_AUTHENTICATE], "apikey realm=\"key\"");
            }
        }
    }
}

#[test]
fn the_key_is_hidden_where_it_was_found() {
    let kept = gateway(&json!({}));
    let (ctx, _) = kept.ask("GET", "/?apikey=auth-one&x=1", &[]);
    assert_eq!(ctx.request.target(), "/?apikey=auth-one&x=1");
    let hiding = gateway(&json!({"hide_credentials": true}));
    let (ctx, _) = hiding.ask("GET", "/?apikey=other&x=1", &[("apikey", "auth-one"), ("x-a", "a")]);
    assert_eq!((ctx.request.header("apikey"), ctx.request.header("x-a")), (None, Some("a")));
    assert_eq!(ctx.request.target(), "/?apikey=other&x=1");
    let (ctx, _) = hiding.ask("GET", "/?y=%20&apikey=auth-one&x=1", &[]);
    assert_eq!(ctx.request.target(), "/?y=%20&x=1");
}

#[test]
fn who_has_no_key_may_be_anonymous() {
    let conf = json!({"anonymous_consumer": "anonymous", "hide_credentials": true, "realm": "my-realm"});
    let (ctx, reply) = gateway(&conf).ask("GET", "/?apikey=wrong&x=1", &[("apikey", "wrong")]);
    assert!(reply.is_none());
    assert_eq!(ctx.request.header("x-consumer-username"), Some("anonymous"));
    assert_eq!((ctx.request.header("apikey"), ctx.request.target()), (None, "/?x=1"));

    let missing = json!({"anonymous_consumer": "not-found", "realm": "my-realm"});
    let reply = gateway(&missing).ask("GET", "/", &[]).1.unwrap();
    assert_eq!(&*reply.body, b"{\"message\":\"Invalid user authorization\"}\n");
    assert_eq!(reply.headers[WWW_AUTHENTICATE], "apikey realm=\"my-realm\"");
}

#[test]
fn a_header_that_can_not_be_is_never_there() {
    let odd = gateway(&json!({"header": "not a name"}));
    assert!(odd.ask("GET", "/?apikey=auth-one", &[]).1.is_none());
    assert_eq!(&*odd.ask("GET", "/", &[]).1.unwrap().body, MISSING.as_bytes());
}
