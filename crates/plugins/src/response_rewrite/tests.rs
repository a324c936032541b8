use std::io::Write as _;

use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::testing::{plugin, refused};

/// A response of the upstream's.
fn response(headers: &[(&'static str, &'static str)]) -> Ctx {
    let mut ctx = Ctx::example("GET", "/hello", &[]);
    for (name, value) in headers {
        ctx.response.headers.append(*name, http::HeaderValue::from_static(value));
    }
    ctx
}

/// The head that the client gets.
fn head(conf: Value, headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut ctx = response(headers);
    plugin::<ResponseRewrite>(conf).header_filter(&mut ctx);
    ctx.response.headers
}

/// The body that the client gets for one that comes in pieces.
fn body(conf: Value, encoding: Option<&'static str>, pieces: &[&[u8]]) -> Vec<u8> {
    let plugin: ResponseRewrite = plugin(conf);
    let mut ctx = response(&encoding.map(|name| ("content-encoding", name)).into_iter().collect::<Vec<_>>());
    plugin.header_filter(&mut ctx);
    let mut body = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let mut chunk = Bytes::copy_from_slice(piece);
        if ctx.filters_body() {
            plugin.body_filter(&mut ctx, &mut chunk, at + 1 == pieces.len());
        }
        body.extend_from_slice(&chunk);
    }
    body
}

fn filters(filters: &Value) -> Value {
    json!({ "filters": filters })
}

#[test]
fn a_new_body_takes_what_was_said_of_the_old_one_away() {
    let sent = [
        ("x-server-id", "100"),
        ("content-type", "application/xml"),
        ("content-encoding", "zstd"),
        ("content-length", "4"),
        ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("etag", "\"33a64df5\""),
    ];
    let conf = json!({"body": "new body\n"});
    let headers = head(conf.clone(), &sent);
    let left: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(left, ["x-server-id", "content-type"]);
    assert_eq!(body(conf.clone(), None, &[b"old", b"er", b""]), b"new body\n");
    assert_eq!(body(conf, Some("zstd"), &[b""]), b"new body\n");
    assert_eq!(body(json!({"body": ""}), None, &[b"old"]), b"");
    for encoded in ["SGVsbG8K", "SGVsbG8"] {
        let conf = json!({"body": encoded, "body_base64": true});
        assert!(body(conf, None, &[b"old"]).starts_with(b"Hello"));
    }
}

#[test]
fn status_and_headers() {
    let conf = json!({"status_code": 302, "headers": {"Location": "https://www.iresty.com"}});
    let mut ctx = response(&[]);
    plugin::<ResponseRewrite>(conf).header_filter(&mut ctx);
    assert_eq!((ctx.response.status.as_u16(), ctx.filters_body()), (302, false));
    assert_eq!(ctx.response.headers["location"], "https://www.iresty.com");

    let conf = json!({"headers": {"X-Server-id": 3, "Content-Type": "", "X-A": "from $remote_addr"}});
    let headers = head(conf, &[("content-type", "text/plain"), ("content-encoding", "gzip")]);
    assert!(headers["x-server-id"] == "3" && headers["x-a"] == "from 127.0.0.1", "{headers:?}");
    assert!(headers.contains_key("content-encoding") && !headers.contains_key("content-type"));

    let conf = json!({"headers": {
        "add": ["Cache-Control: no-cache", "Cache-Control : max-age=0, must-revalidate", "X-B: b", "X-C: c"],
        "set": {"X-B": "set"},
        "remove": ["X-C", "X-D"],
    }});
    let headers = head(conf, &[("x-d", "d"), ("cache-control", "private")]);
    let caching: Vec<_> = headers.get_all("cache-control").iter().collect();
    assert_eq!(caching, ["private", "no-cache", "max-age=0, must-revalidate"]);
    assert_eq!(headers["x-b"], "set");
    assert!(!headers.contains_key("x-c") && !headers.contains_key("x-d"));

    let conf = json!({"headers": {"add": ["X-A: a", "no name: b"], "remove": ["X-D"]}});
    assert!(head(conf, &[("x-d", "d")]).is_empty());
}

#[test]
fn variables_say_for_which_responses() {
    let conf = |status: u16| json!({"vars": [["status", "==", status]], "body": "new", "status_code": 201});
    assert_eq!(body(conf(200), None, &[b"old"]), b"new");
    assert_eq!(body(conf(404), None, &[b"old"]), b"old");
}

#[test]
fn filters_see_the_whole_body() {
    for (conf, out) in [
        (json!([{"regex": "hello", "replace": "test"}]), "test world hello\n"),
        (json!([{"regex": "hello", "replace": "test", "scope": "global"}]), "test world test\n"),
        (json!([{"regex": "hello", "replace": ""}]), " world hello\n"),
        (json!([{"regex": "HELLO", "replace": "x", "options": "i"}]), "x world hello\n"),
        (
            json!([{"regex": "hello", "replace": "HELLO"}, {"regex": "L", "replace": "T"}]),
            "HETLO world hello\n",
        ),
        (json!([{"regex": "(w)or(l)", "replace": "${2}$1"}]), "hello lwd hello\n"),
        (json!([{"regex": "test", "replace": "TEST"}]), "hello world hello\n"),
        (json!([{"regex": r"\w\S+$", "replace": "*"}]), "hello world *\n"),
    ] {
        assert_eq!(body(filters(&conf), None, &[b"hel", b"lo wor", b"ld hello\n"]), out.as_bytes(), "{conf}");
    }
}

#[test]
fn a_body_is_cut_off_where_it_is_too_long_to_hold() {
    let conf = json!({"max_resp_body_size": 5, "filters": [{"regex": "hello", "replace": "HELLO"}]});
    assert_eq!(body(conf.clone(), None, &[b"hello world\n"]), b"HELLO");
    assert_eq!(body(conf.clone(), None, &[b"hell", b"o wo", b"rld", b""]), b"HELLO");
    assert_eq!(body(conf, None, &[b"hell"]), b"hell");
}

#[test]
fn filters_read_what_is_compressed() {
    let conf = filters(&json!([{"regex": "hello", "replace": "test"}]));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"hello world").unwrap();
    let gzip = gzip.finish().unwrap();
    let (front, back) = gzip.split_at(7);
    assert_eq!(body(conf.clone(), Some("gzip"), &[front, back]), b"test world");
    assert!(!head(conf.clone(), &[("content-encoding", "gzip")]).contains_key("content-encoding"));
    // What it says of itself is not true.
    assert_eq!(body(conf.clone(), Some("gzip"), &[b"hello"]), b"hello");
    // An encoding that we can't read is left alone, and said.
    assert_eq!(body(conf.clone(), Some("zstd"), &[b"hello"]), b"hello");
    assert!(head(conf, &[("content-encoding", "zstd")]).contains_key("content-encoding"));
}

#[test]
fn two_plugins_each_have_their_turn() {
    let first: ResponseRewrite = plugin(filters(&json!([{"regex": "a", "replace": "b"}])));
    let second: ResponseRewrite =
        plugin(filters(&json!([{"regex": "b", "replace": "c", "scope": "global"}])));
    let mut ctx = response(&[]);
    first.header_filter(&mut ctx);
    second.header_filter(&mut ctx);
    let mut out = Vec::new();
    for (piece, last) in [("ab", false), ("a", true)] {
        let mut chunk = Bytes::from(piece);
        first.body_filter(&mut ctx, &mut chunk, last);
        second.body_filter(&mut ctx, &mut chunk, last);
        out.extend_from_slice(&chunk);
    }
    assert_eq!(out, b"cca");
}

#[test]
fn what_is_refused() {
    let schema = "property \"headers\" validation failed: object matches none of the required";
    for (conf, reason) in [
        (
            json!({"status_code": 599}),
            "property \"status_code\" validation failed: expected 599 to be at most 598",
        ),
        (json!({"body": 2}), "property \"body\" validation failed: wrong type: expected string, got number"),
        (json!({"headers": {"": 2}}), "invalid field length in header"),
        (json!({"headers": {"X-Name": {}}}), "invalid type as header value"),
        (json!({"headers": {"set": {"a": true}}}), schema),
        (json!({"headers": {"add": ["headers:"]}}), schema),
        (json!({"body": "1", "body_base64": true}), "invalid base64 content"),
        (json!({"body": "", "body_base64": true}), "invalid base64 content"),
        (json!({"body_base64": true}), "invalid base64 content"),
        (
            json!({"vars": [["status", "===", 200]]}),
            "failed to validate the 'vars' expression: invalid operator '==='",
        ),
        (
            filters(&json!([{"regex": "hello", "replace": "", "options": "h"}])),
            "regex \"hello\" validation failed: unknown flag \"h\" (flags \"h\")",
        ),
    ] {
        assert_eq!(refused::<ResponseRewrite>(conf.clone()), reason, "{conf}");
    }
    let both = json!({"body": "a", "filters": [{"regex": "l", "replace": "m"}]});
    assert!(refused::<ResponseRewrite>(both).ends_with("value wasn't supposed to match schema"));
    plugin::<ResponseRewrite>(json!({"body": "$secret://vault/1/a", "body_base64": true}));
}

#[test]
fn headers_that_frame_the_body_are_passed_over() {
    let short = json!({ "headers": { "Content-Length": "3", "X-One": "1" } });
    let set = json!({ "headers": { "set": { "Transfer-Encoding": "chunked", "content-length": 5, "X-One": "1" } } });
    let add = json!({ "headers": { "add": ["Transfer-Encoding: gzip", "Content-Length: 3", "X-One: 1"] } });
    for conf in [short, set, add] {
        let headers = head(conf.clone(), &[("content-length", "4")]);
        assert!(headers["content-length"] == "4" && headers["x-one"] == "1", "{conf}: {headers:?}");
        assert_eq!(headers.len(), 2, "{conf}: {headers:?}");
    }
}
