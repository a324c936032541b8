use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{plugin, refused, reply};

/// The request as it goes upstream.
fn rewritten(conf: Value, method: &str, target: &str, headers: &[(&str, &str)]) -> Ctx {
    let mut ctx = Ctx::example(method, target, headers);
    assert!(reply(plugin::<ProxyRewrite>(conf).rewrite(&mut ctx)).is_none());
    ctx
}

fn target(conf: Value, from: &str) -> String {
    rewritten(conf, "GET", from, &[("Host", "test.com")]).request.upstream_target.unwrap()
}

fn all(ctx: &Ctx, name: &str) -> Vec<String> {
    ctx.request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn the_uri_is_a_template_and_keeps_the_query() {
    for (uri, from, to) in [
        ("/new", "/hello?q=apisix&a=iresty", "/new?q=apisix&a=iresty"),
        ("/new", "/hello", "/new"),
        ("/new?b=1", "/hello?a=1", "/new?b=1&a=1"),
        ("/$arg_new", "/hello?new=there", "/there?new=there"),
        ("/a b/$host", "/hello", "/a%20b/test.com"),
        ("/${never ?? some}", "/hello", "/some"),
        // The `?` of a variable is none of the URI's.
        (
            "/$uri/remain",
            "/hello%3f0z=700%26a=c%20HTTP/1.1%0D%0AHost:google.com%0d%0a%0d%0a",
            "//hello%253F0z=700&a=c%20HTTP/1.1%0D%0AHost:google.com%0D%0A%0D%0A/remain",
        ),
        ("/new?from=$uri", "/a%0d%0ab%20c", "/new?from=/a%0D%0Ab%20c"),
    ] {
        assert_eq!(target(json!({"uri": uri}), from), to, "{uri} {from}");
    }
}

#[test]
fn without_a_uri_the_path_is_normal_and_encoded_again() {
    for (from, to) in [
        ("/print%5Furi", "/print_uri"),
        ("/a/../b//c?x=/../", "/b/c?x=/../"),
        ("/%E4%BD%A0", "/%E4%BD%A0"),
        (
            "/hello%3f0z=700%26a=c%20HTTP/1.1%0D%0AHost:google.com%0d%0a%0d%0a",
            "/hello%3F0z=700&a=c%20HTTP/1.1%0D%0AHost:google.com%0D%0A%0D%0A",
        ),
    ] {
        assert_eq!(target(json!({"host": "test.xxxx.com"}), from), to, "{from}");
    }
}

#[test]
fn the_first_expression_that_matches_makes_the_uri() {
    let several = json!({"regex_uri": [
        "^/test/(.*)/(.*)/(.*)/hello", "/hello/$1_$2_$3",
        "^/test/(.*)/(.*)/(.*)/world", "/world/$1_$2_${3}?x=1",
    ]});
    for (from, to) in [
        ("/test/plugin/proxy/rewrite/hello", "/hello/plugin_proxy_rewrite"),
        ("/test/plugin/proxy/rewrite/world?a=b", "/world/plugin_proxy_rewrite?x=1&a=b"),
        ("/other?a=b", "/other?a=b"),
        // A `?` of the client's own hides that of the replacement.
        ("/test/a%3f/b/c/world", "/world/a%3F_b_c%3Fx=1"),
    ] {
        assert_eq!(target(several.clone(), from), to, "{from}");
    }
    let both = json!({"uri": "/uri", "regex_uri": ["^/(.*)", "/regex/$1"]});
    assert_eq!(target(both, "/a"), "/uri");
    let reflecting = json!({"regex_uri": ["^(/reflect.*)", "/got?orig=$1"]});
    assert_eq!(target(reflecting, "/reflect%0d%0aX-Injected:pwn"), "/got?orig=/reflect%0D%0AX-Injected:pwn");
}

#[test]
fn the_clients_own_uri_is_passed_on_where_that_is_allowed() {
    let unsafe_uri = |conf: Value, from: &str| {
        let mut conf = conf;
        conf["use_real_request_uri_unsafe"] = true.into();
        target(conf, from)
    };
    for (conf, from, to) in [
        (json!({}), "/print%5Furi/../x?q=1", "/print%5Furi/../x?q=1"),
        (json!({"uri": "/new"}), "/hello?name=a%20b&x=%E4%B8%AD", "/new?name=a%20b&x=%E4%B8%AD"),
        (json!({"uri": "/new"}), "/hello?a=1?b=2", "/new?a=1?b=2"),
        (json!({"uri": "/new"}), "/hello", "/new"),
        (json!({"uri": "/new?x=1"}), "/hello?q=apisix", "/new?x=1&q=apisix"),
        (
            json!({"regex_uri": ["/hello/(.+)", "/hello?unsafe_variable=$1"]}),
            "/hello/%ED%85",
            "/hello?unsafe_variable=%ED%85",
        ),
        (json!({"uri": "/new$uri"}), "/a%0d%0ab%20c", "/new/a%0D%0Ab%20c"),
    ] {
        assert_eq!(unsafe_uri(conf.clone(), from), to, "{conf} {from}");
    }
}

#[test]
fn method_and_host() {
    let conf = json!({"uri": "/a", "method": "MKCOL", "host": "apisix.iresty.com:1080"});
    let ctx = rewritten(conf, "GET", "/hello", &[]);
    assert_eq!(ctx.request.method.as_str(), "MKCOL");
    assert_eq!(ctx.upstream_host.unwrap(), "apisix.iresty.com:1080");
    assert_eq!(ctx.request.path(), "/hello");
}

#[test]
fn a_host_among_the_headers_is_not_the_upstreams() {
    for change in [json!({"set": {"Host": "b"}}), json!({"add": {"host": "b"}}), json!({"remove": ["Host"]})]
    {
        let ctx = rewritten(json!({"headers": change.clone()}), "GET", "/", &[("Host", "a")]);
        assert_eq!(ctx.passed_host(), b"a", "{change}");
        let ctx = rewritten(json!({"host": "c", "headers": change}), "GET", "/", &[("Host", "a")]);
        assert_eq!(ctx.passed_host(), b"c");
    }
    let ctx =
        rewritten(json!({"headers": {"set": {"X-Up": "$upstream_host"}}}), "GET", "/", &[("Host", "a:1")]);
    assert_eq!(all(&ctx, "x-up"), ["a:1"]);
}

#[test]
fn bytes_stay_the_bytes_they_are() {
    for (conf, to) in [
        (json!({"method": "POST"}), "/x/%FF%C3%A9"),
        (json!({"uri": "/new$uri"}), "/new/x/%FF%C3%A9"),
        (json!({"regex_uri": ["^/x/(.)(.*)$", "/$2$1"]}), "/%C3%A9%FF"),
        (json!({"regex_uri": ["^/x/(.*)$", "$1"]}), "/%FF%C3%A9"),
    ] {
        assert_eq!(target(conf.clone(), "/x/%ff%c3%a9"), to, "{conf}");
    }
    let mut ctx = Ctx::example("GET", "/%ff", &[]);
    ctx.request.headers.insert("x-in", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let conf = json!({"headers": {"set": {"X-Out": "$http_x_in$uri"}}});
    assert!(reply(plugin::<ProxyRewrite>(conf).rewrite(&mut ctx)).is_none());
    assert_eq!(ctx.request.headers["x-out"].as_bytes(), b"caf\xe9/\xff");
}

#[test]
fn headers_are_added_set_and_removed() {
    let long = json!({"headers": {
        "remove": ["X-Gone"],
        "add": {"X-Add": ["$arg_a", 2], "X-Both": "added"},
        "set": {"X-Set": "new $http_x_gone", "X-Both": "set", "X-Many": ["1", "$never", "3"], "X-Empty": ""},
    }});
    let sent = [("X-Add", "0"), ("X-Gone", "here"), ("X-Set", "old"), ("X-Set", "older"), ("X-Empty", "no")];
    let ctx = rewritten(long, "GET", "/?a=1", &sent);
    assert_eq!(all(&ctx, "x-add"), ["0", "1", "2"]);
    assert_eq!(all(&ctx, "x-set"), ["new here"]);
    assert_eq!(all(&ctx, "x-both"), ["set"]);
    assert_eq!(all(&ctx, "x-many"), ["1", "3"]);
    assert!(all(&ctx, "x-gone").is_empty() && all(&ctx, "x-empty").is_empty());

    let short = json!({"headers": {"X-Api-Engine": "APISIX", "X-Number": 3, "X-Api-Test": ""}});
    let ctx = rewritten(short, "GET", "/", &[("X-Api-Test", "hello"), ("X-Api-Engine", "other")]);
    assert_eq!((all(&ctx, "x-api-engine"), all(&ctx, "x-number")), (vec!["APISIX".into()], vec!["3".into()]));
    assert!(all(&ctx, "x-api-test").is_empty());
}

#[test]
fn headers_know_what_the_expression_captured() {
    let conf = |value: &str| json!({"regex_uri": ["^/test/(no)?([^/]*)/(.*)", "/echo"], "headers": {"add": {"X-Got": value}}});
    for (value, got) in [
        ("$2/${3}", "plugin/rewrite"),
        ("a/$1/$7/b", "a///b"),
        ("$2.${host}:$3", "plugin.test.com:rewrite"),
        (r"\$2 \$host", r"\$2 \$host"),
        ("$0", "/test/plugin/rewrite"),
    ] {
        let ctx = rewritten(conf(value), "GET", "/test/plugin/rewrite", &[("Host", "test.com")]);
        assert_eq!(all(&ctx, "x-got"), [got], "{value}");
    }
    // What was captured is a text, whatever it looks like; and nobody ends a line in it.
    let ctx = rewritten(conf("$2"), "GET", "/test/$http_secret%0d%0aX:y/z", &[("Secret", "s")]);
    assert_eq!(all(&ctx, "x-got"), ["$http_secret%0D%0AX:y"]);
    let ctx = rewritten(conf("$2"), "GET", "/other", &[]);
    assert_eq!(all(&ctx, "x-got"), [""]);
}

#[test]
fn later_plugins_know_the_captures_too() {
    let first: ProxyRewrite = plugin(json!({"regex_uri": ["^/(.*)", "/x"]}));
    let second: ProxyRewrite = plugin(json!({"headers": {"set": {"X-Got": "$1"}}}));
    let mut ctx = Ctx::example("GET", "/one", &[]);
    assert!(reply(first.rewrite(&mut ctx)).is_none() && reply(second.rewrite(&mut ctx)).is_none());
    assert_eq!(all(&ctx, "x-got"), ["one"]);
}

#[test]
fn what_is_refused() {
    for (conf, reason) in [
        (
            json!({"uri": "home"}),
            "property \"uri\" validation failed: failed to match pattern \"^\\\\/.*\" with \"home\"",
        ),
        (json!({"method": "GET1"}), "property \"method\" validation failed: matches none of the enum values"),
        (json!({"regex_uri": ["a", "b", "c"]}), "The length of regex_uri should be an even number"),
        (json!({"headers": {"X-Api-Version": "v2\r\n"}}), "invalid value character in header"),
        (json!({"headers": {"X-Api Version": "v2"}}), "invalid field character in header"),
        (json!({"headers": {"": "v2"}}), "invalid field length in header"),
    ] {
        assert_eq!(refused::<ProxyRewrite>(conf.clone()), reason, "{conf}");
    }
    for regex_uri in [["[^/test/(.*)", "/$1"], ["^/test/(.*)", "/$`1"]] {
        let reason = refused::<ProxyRewrite>(json!({"regex_uri": regex_uri}));
        assert!(reason.starts_with("invalid regex_uri("), "{reason}");
    }
    plugin::<ProxyRewrite>(json!({"regex_uri": ["$secret://vault/1/a", "$env://B"]}));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is configured and asked for, the upstream gets one word, and each header one line.
    #[test]
    fn nobody_ends_a_line(path in "(%0[ad]|%20|%3f|/|a|é|[$]){0,10}", query in "[a-z=&?%]{0,6}", value in "([$0-9{}\\\\]|arg_a|uri|é){0,8}") {
        let target: String = format!("/{path}?{query}").chars().filter(char::is_ascii).collect();
        for conf in [
            json!({"uri": "/$uri?x=$uri", "headers": {"add": {"X-A": value}}}),
            json!({"regex_uri": ["^/(?s)(.*)", "/b?c=$1"], "headers": {"set": {"X-A": "$1 $uri"}}}),
            json!({"uri": "/$uri", "use_real_request_uri_unsafe": true}),
        ] {
            // Some targets lead out of the root.
            if target.contains("..") {
                continue;
            }
            let ctx = rewritten(conf, "GET", &target, &[]);
            let upstream = ctx.request.upstream_target.unwrap();
            prop_assert!(upstream.starts_with('/') && !upstream.contains(|c: char| c.is_ascii_control() || c == ' '), "{upstream}");
        }
    }
}
