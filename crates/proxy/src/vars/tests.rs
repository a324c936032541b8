use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{ctx::Attempt, upstream::Node};

fn ctx() -> Ctx {
    let mut ctx = Ctx::example(
        "POST",
        "/a//b?x=1&y=a+b%21&flag&x=2",
        &[
            ("Host", "Foo.com:9080"),
            ("X-Many", "1"),
            ("X-Many", "2"),
            ("x_under-score", "3"),
            ("Cookie", "a=1; b=two"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ],
    );
    ctx.params.push(("name".into(), "json".into()));
    ctx
}

#[test]
fn variables_of_the_request() {
    let mut ctx = ctx();
    ctx.body = Some(Bytes::from_static(b"p=1&q=%20"));
    ctx.set_var("made_up", "by a plugin".to_owned());
    for (name, value) in [
        ("uri", Some("/a/b")),
        ("request_uri", Some("/a/b?x=1&y=a+b%21&flag&x=2")),
        ("real_request_uri", Some("/a//b?x=1&y=a+b%21&flag&x=2")),
        ("args", Some("x=1&y=a+b%21&flag&x=2")),
        ("is_args", Some("?")),
        ("arg_x", Some("1")),
        ("arg_y", Some("a b!")),
        ("arg_flag", Some("true")),
        ("arg_z", None),
        ("host", Some("foo.com")),
        ("http_host", Some("Foo.com:9080")),
        ("http_x_many", Some("1, 2")),
        ("http_x_under_score", Some("3")),
        ("http_x_none", None),
        ("cookie_b", Some("two")),
        ("cookie_c", None),
        ("request_method", Some("POST")),
        ("method", Some("POST")),
        ("scheme", Some("http")),
        ("server_protocol", Some("HTTP/1.1")),
        ("remote_addr", Some("127.0.0.1")),
        ("server_port", Some("9080")),
        ("uri_param_name", Some("json")),
        ("uri_param_other", None),
        ("post_arg_q", Some(" ")),
        ("post_arg.p", Some("1")),
        ("route_id", None),
        ("status", Some("200")),
        ("made_up", Some("by a plugin")),
        ("never", None),
    ] {
        assert_eq!(ctx.var(name).as_deref(), value, "{name}");
    }
}

#[test]
fn variables_of_the_upstream_are_one_for_each_attempt() {
    let mut ctx = ctx();
    assert_eq!(ctx.var("upstream_status"), None);
    for (port, status) in [(1980, None), (1981, Some(http::StatusCode::CREATED))] {
        let mut attempt = Attempt::new(Arc::new(Node::new("127.0.0.1", port, 1, 0)));
        attempt.status = status;
        attempt.finished = Some(std::time::Duration::from_micros(1_234_567));
        ctx.attempts.push(attempt);
    }
    for (name, value) in [
        ("upstream_addr", "127.0.0.1:1980, 127.0.0.1:1981"),
        ("upstream_status", "-, 201"),
        ("upstream_response_time", "1.234, 1.234"),
        ("balancer_ip", "127.0.0.1"),
        ("balancer_port", "1981"),
    ] {
        assert_eq!(ctx.var(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn json_bodies_are_reached_by_path() {
    let mut ctx = Ctx::example("POST", "/", &[("Content-Type", "application/json")]);
    ctx.body = Some(Bytes::from_static(br#"{"a":{"b":["x",{"c":1}]}}"#));
    assert_eq!(ctx.var("post_arg.a.b.1").as_deref(), Some("x"));
    assert_eq!(ctx.var("post_arg.a.b.2").as_deref(), Some("{\"c\":1}"));
    assert_eq!(ctx.var("post_arg.a.c"), None);
    assert_eq!(ctx.var("post_arg_a"), None);
}

#[test]
fn templates() {
    let ctx = ctx();
    for (template, text) in [
        ("plain", "plain"),
        ("$host", "foo.com"),
        ("a-${ host }-$arg_x-", "a-foo.com-1-"),
        ("$never|${never ?? some}|", "|some|"),
        (r"\$host $ 5$", r"\$host $ 5$"),
        ("${unclosed", "${unclosed"),
        ("", ""),
    ] {
        assert_eq!(Template::new(template).render(&ctx), text, "{template}");
    }
    assert!(Template::new("a").is_plain());
    assert_eq!(Template::new("$never$host").render_counted(&ctx), ("foo.com".into(), 1));
    let mut out = String::new();
    Template::new("$never $host")
        .render_with(&ctx, &mut out, |out, value| out.push_str(value.unwrap_or("-")));
    assert_eq!(out, "- foo.com");
}

#[test]
fn times_and_addresses_are_written_as_nginx_does() {
    for (millis, text) in [(0, "0.000"), (7, "0.007"), (1050, "1.050"), (60_000, "60.000")] {
        assert_eq!(seconds(std::time::Duration::from_millis(millis)), text);
    }
    for ip in ["127.0.0.1", "10.0.255.254", "::1"] {
        assert_eq!(address(ip.parse().unwrap()), ip);
    }
}
