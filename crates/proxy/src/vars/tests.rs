use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

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
fn variables_of_nginx_and_its_configuration() {
    let mut ctx = ctx();
    ctx.request.headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    ctx.connection = (7, 2);
    for (name, value) in [
        ("connection", "7"),
        ("connection_requests", "2"),
        ("proxy_add_x_forwarded_for", "10.0.0.1, 127.0.0.1"),
        ("request_completion", ""),
        ("server_name", "_"),
        ("proxy_host", "apisix_backend"),
        ("pipe", "."),
        ("request_length", "199"),
    ] {
        assert_eq!(ctx.var(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(&*byte_text::write(&ctx.var("binary_remote_addr").unwrap()), [127, 0, 0, 1]);
    let id = ctx.var("request_id").unwrap().into_owned();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(ctx.var("apisix_request_id").as_deref(), Some(&*id));
    ctx.request_id = Some("given".to_owned());
    assert_eq!(
        (ctx.var("apisix_request_id").as_deref(), ctx.var("request_id").as_deref()),
        (Some("given"), Some(&*id))
    );
}

#[test]
fn headers_of_the_upstream_are_not_those_that_are_sent() {
    let mut ctx = ctx();
    ctx.response.headers.insert("x-a", HeaderValue::from_static("sent"));
    assert_eq!(ctx.var("upstream_http_x_a"), None);
    assert!(asks_for_upstream_headers());
    let theirs = [("x-a".parse().unwrap(), HeaderValue::from_static("received"))];
    ctx.response.of_upstream = Some(Box::new(theirs.into_iter().collect()));
    assert_eq!(ctx.var("upstream_http_x_a").as_deref(), Some("received"));
    assert_eq!(ctx.var("sent_http_x_a").as_deref(), Some("sent"));
}

#[test]
fn json_bodies_are_reached_by_path() {
    let mut ctx = Ctx::example("POST", "/", &[("Content-Type", "application/json")]);
    ctx.body = Some(Bytes::from_static(br#"{"a":{"b":["x",{"c":1}]}}"#));
    for (name, value) in [
        ("post_arg.a.b", Some(r#"["x",{"c":1}]"#)),
        ("post_arg.a.b[0]", Some(r#"["x"]"#)),
        ("post_arg.a.b[*].c", Some("[1]")),
        ("post_arg.a..c", Some("[1]")),
        ("post_arg.a.b[*].d", None),
        ("post_arg.a.c", None),
        // A list has no names.
        ("post_arg.a.b.1", None),
        ("post_arg.[", None),
        ("post_arg_a", None),
    ] {
        assert_eq!(ctx.var(name).as_deref(), value, "{name}");
    }
    assert!(Condition::compile(&json!([["post_arg.a.b[*].c", "has", 1]])).unwrap().holds(&ctx));
}

#[test]
fn cookies_are_read_as_apisix_reads_them() {
    let cookies = |lines: &[&[u8]]| {
        let mut ctx = Ctx::example("GET", "/", &[]);
        for line in lines {
            ctx.request.headers.append("cookie", HeaderValue::from_bytes(line).unwrap());
        }
        ctx
    };
    for (lines, name, value) in [
        (&[&b"user=admin; x=\xff"[..]][..], "user", Some("admin")),
        (&[b"user=admin; x=\xff"], "x", Some("\u{10ffff}")),
        (&[b"\xe9; user=admin"], "user", None),
        (&[b"a=1; a=2"], "a", Some("2")),
        (&[b"a=1", b"a=2"], "a", Some("2")),
        (&[b"a=\"1\""], "a", Some("\"1\"")),
        (&[b"a=1 b=2\tc=3;d=4"], "b", Some("2")),
        (&[b"a=1 b=2\tc=3;d=4"], "d", Some("4")),
        (&[b"flag; a=1"], "a", None),
        (&[b"a=b=c"], "a", Some("b=c")),
        (&[b"a="], "a", Some("")),
        (&[b"A=1"], "a", None),
        (&[], "a", None),
    ] {
        let ctx = cookies(lines);
        assert_eq!(ctx.var(&format!("cookie_{name}")).as_deref(), value, "{lines:?} {name}");
    }
}

#[test]
fn no_body_hides_from_a_condition() {
    let form = "application/x-www-form-urlencoded; q=\"\u{e9}\"";
    let deep = format!("{{\"a\":1,\"b\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let graphql = b"{ a(b: \"\xff\") }".as_slice();
    for (kind, body, name, value) in [
        (form, &b"a=1"[..], "post_arg_a", "1"),
        (form, b"a=1", "post_arg.a", "1"),
        ("application/json; q=\"\u{e9}\"", b"{\"a\":1}", "post_arg.a", "1"),
        ("application/json", b"{\"a\":1,\"b\":\"\xff\"}", "post_arg.a", "1"),
        ("application/json", b"{\"a\":1,\"b\":1e999}", "post_arg.a", "1"),
        ("application/json", deep.as_bytes(), "post_arg.a", "1"),
        ("application/graphql", graphql, "graphql_operation", "query"),
    ] {
        let mut ctx = Ctx::example("POST", "/", &[]);
        let kind = HeaderValue::from_bytes(kind.as_bytes()).unwrap();
        ctx.request.headers.insert("content-type", kind);
        ctx.body = Some(Bytes::copy_from_slice(body));
        assert_eq!(ctx.var(name).as_deref(), Some(value), "{name} {}", String::from_utf8_lossy(body));
    }
}

#[test]
fn forms_with_files_are_read_by_field() {
    let kind = "multipart/form-data; boundary=x";
    let mut ctx = Ctx::example("POST", "/", &[("Content-Type", kind)]);
    let parts = [("a", "1"), ("b\"; filename=\"f", "text"), ("a", "2")];
    let body = parts.map(|(name, value)| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    ctx.body = Some(format!("{}--x--\r\n", body.concat()).into());
    for (name, value) in [("post_arg.a", Some("2")), ("post_arg.b", Some("text")), ("post_arg_a", None)] {
        assert_eq!(ctx.var(name).as_deref(), value, "{name}");
    }
}

#[test]
fn graphql_operations() {
    let document = "query getRepo { owner { name } repo { created } }";
    let wrapped = json!({"query": document}).to_string();
    let target = format!("/?query={}", document.replace(' ', "+"));
    for (method, target, kind, body) in [
        ("POST", "/", "application/graphql", document),
        ("POST", "/", "application/json", &*wrapped),
        ("GET", &*target, "", ""),
    ] {
        let mut ctx = Ctx::example(method, target, &[("Content-Type", kind)]);
        ctx.body = Some(Bytes::from(body.to_owned()));
        let rules = json!([
            ["graphql_operation", "==", "query"],
            ["graphql_name", "==", "getRepo"],
            ["graphql_root_fields", "has", "owner"],
            ["graphql_root_fields", "!", "has", "name"],
        ]);
        assert!(Condition::compile(&rules).unwrap().holds(&ctx), "{method} {kind}");
        assert_eq!(ctx.var("graphql_root_fields").as_deref(), Some(r#"["owner","repo"]"#));
        assert_eq!(ctx.var("graphql_other"), None);
    }
}

#[test]
fn a_body_is_wished_for_only_where_it_may_matter() {
    let form = "application/x-www-form-urlencoded";
    for (method, kind, name, wish) in [
        ("POST", form, "post_arg_a", Some(64 << 20)),
        ("POST", "text/plain", "post_arg_a", None),
        ("POST", "application/json", "post_arg_a", None),
        ("POST", "application/json", "post_arg.a", Some(64 << 20)),
        ("POST", "application/json", "graphql_name", Some(1 << 20)),
        ("GET", "application/json", "graphql_name", None),
        ("POST", form, "arg_a", None),
    ] {
        let mut ctx = Ctx::example(method, "/", &[("Content-Type", kind)]);
        assert_eq!(ctx.var(name), None);
        assert_eq!(ctx.inquiry.wanted(), wish, "{method} {kind} {name}");
        ctx.inquiry.tried(wish.unwrap_or_default());
        assert_eq!(ctx.inquiry.wanted(), None);
    }
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
