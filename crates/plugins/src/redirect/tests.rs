use serde_json::json;

use super::*;
use crate::testing::{Lab, plugin, refused, reply};

/// The status and `Location` of the answer.
fn sent(plugin: &Redirect, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
    let mut ctx = Ctx::example(method, target, headers);
    let reply = reply(plugin.rewrite(&mut ctx))?;
    Some((reply.status.as_u16(), reply.headers[LOCATION].to_str().unwrap().to_owned()))
}

fn location(conf: Value, target: &str) -> Option<String> {
    sent(&plugin(conf), "GET", target, &[("Host", "foo.com")]).map(|(_, location)| location)
}

#[test]
fn a_uri_has_variables() {
    for (uri, to) in [
        ("/test/add", "/test/add"),
        ("$uri/test/add", "/hello/test/add"),
        ("$uri/test/a${arg_name}c", "/hello/test/ajsonc"),
        ("/foo$$uri", "/foo$/hello"),
        (r"\$uri/foo$uri\$uri/bar", r"\$uri/foo/hello\$uri/bar"),
        ("$uri/$bad_var/bar", "/hello//bar"),
        ("https://$host.example.com${uri}x", "https://foo.com.example.com/hellox"),
        (r"a\b$", "ab$"),
        ("/${unclosed", "/${unclosed"),
    ] {
        assert_eq!(location(json!({"uri": uri}), "/hello?name=json").as_deref(), Some(to), "{uri}");
    }
    assert_eq!(
        sent(&plugin(json!({"uri": "/a", "ret_code": 301})), "GET", "/", &[]),
        Some((301, "/a".into()))
    );
}

#[test]
fn an_expression_redirects_what_it_matches() {
    let conf = json!({"regex_uri": ["^/test/(.*)", "http://test.com/${1}"]});
    assert_eq!(location(conf.clone(), "/test/1").as_deref(), Some("http://test.com/1"));
    assert_eq!(location(conf, "/hello"), None);
}

#[test]
fn the_query_goes_along_where_that_is_asked_for() {
    let with = |uri: &str| json!({"uri": uri, "append_query_string": true});
    assert_eq!(location(with("$uri"), "/hello?name=json").as_deref(), Some("/hello?name=json"));
    assert_eq!(location(with("$uri?type=s"), "/hello?name=json").as_deref(), Some("/hello?type=s&name=json"));
    assert_eq!(location(with("$uri"), "/hello").as_deref(), Some("/hello"));
}

#[test]
fn paths_are_encoded_where_that_is_asked_for() {
    let conf = json!({"regex_uri": ["^/test/(.*)", "http://test.com/${1}"], "encode_uri": true});
    assert_eq!(location(conf, "/test/with%20space").as_deref(), Some("http://test.com/with%20space"));
    let conf = json!({"uri": "$uri?x=${arg_x}", "encode_uri": true});
    assert_eq!(location(conf, "/a%20b?x=1 2".replace(' ', "+").as_str()).as_deref(), Some("/a%20b?x=1 2"));
    // Nobody ends the line.
    assert_eq!(location(json!({"uri": "$uri"}), "/a%0d%0aX:b").as_deref(), Some("/a%0D%0AX:b"));
}

#[test]
fn http_becomes_https() {
    let lab = |port: Value| Lab { attr: json!({"https_port": port}), ..Lab::default() };
    let to = |port: Value, method: &str, proto: &str| {
        let plugin = lab(port).build::<Redirect>(json!({"http_to_https": true, "ret_code": 302})).unwrap();
        sent(&plugin, method, "/hello?a=1", &[("Host", "foo.com"), ("X-Forwarded-Proto", proto)])
    };
    assert_eq!(to(json!(8443), "GET", "http"), Some((301, "https://foo.com:8443/hello?a=1".into())));
    for port in [json!(443), json!(0), json!(65536), json!(null)] {
        assert_eq!(to(port, "HEAD", "http"), Some((301, "https://foo.com/hello?a=1".into())));
    }
    assert_eq!(to(json!(443), "POST", "http"), Some((308, "https://foo.com/hello?a=1".into())));
    assert_eq!(to(json!(443), "POST", "https"), None);
}

#[test]
fn what_is_refused() {
    let both = json!({"http_to_https": true, "append_query_string": true});
    assert_eq!(
        refused::<Redirect>(both),
        "only one of `http_to_https` and `append_query_string` can be configured."
    );
    assert_eq!(
        refused::<Redirect>(json!({"uri": "/a", "http_to_https": true})),
        "value should match only one schema, but matches both schemas 1 and 3"
    );
    let reason = refused::<Redirect>(json!({"regex_uri": ["^/test/(.*", "/$1"]}));
    assert!(reason.starts_with("invalid regex_uri (^/test/(.*, /$1), err:"), "{reason}");
    plugin::<Redirect>(json!({"regex_uri": ["$env://A", "$secret://vault/1/b"]}));
}
