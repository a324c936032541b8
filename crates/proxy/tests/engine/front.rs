//! HTTP/1 towards the client: what old and odd clients get, and what is said to those that can't be understood.

use std::{
    io::Read as _,
    net::{Shutdown, TcpListener},
};

use proxy::engine::Listener;
use serde_json::json;
use testkit::upstream::Upstream;

use crate::{Canned, Gateway, SOON, Wire, route, strict::Strict};

/// An error as nginx and APISIX show it.
fn page(answer: &str, status: &str, title: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.contains("server: APISIX/3.13.0\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("date: "), "{answer}");
    assert!(answer.contains(&format!("<head><title>{title}</title></head>")), "{answer}");
    assert!(answer.ends_with("<hr><center>openresty</center>\r\n</body>\r\n</html>\r\n"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
}

#[test]
fn what_can_not_be_read_gets_nginxs_page() {
    let upstream = Strict::start();
    let gateway = Gateway::with(&[route(&upstream.node)], |config| {
        config.server = Some("APISIX/3.13.0".parse().unwrap());
    });
    let long = "x".repeat(9 * 1024);
    let fields = "a: b\r\n".repeat(120);
    let many = format!("a: {}\r\n", "x".repeat(7 * 1024)).repeat(5);
    let bad = ("400", "400 Bad Request");
    let large = ("400", "400 Request Header Or Cookie Too Large");
    for (head, (status, title)) in [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", bad),
        ("GET / HTTP/3.1\r\nHost: a\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\n\r\n", bad),
        ("\u{1}\u{2}\u{3}\r\n\r\n", bad),
        ("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        ("GET a.test:80 HTTP/1.1\r\nHost: a\r\n\r\n", bad),
        ("CONNECT a.test:80 HTTP/1.1\r\nHost: a\r\n\r\n", ("405", "405 Not Allowed")),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", ("405", "405 Not Allowed")),
        (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), ("414", "414 Request-URI Too Large")),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {long}\r\n\r\n"), large),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), large),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), large),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            ("501", "501 Not Implemented"),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", bad),
    ] {
        let mut wire = gateway.wire();
        wire.say(head);
        // What is pipelined behind an error is never looked at.
        wire.try_say("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        page(&wire.rest(), status, title);
        // On a connection that has served before, the answers keep their order.
        let mut wire = gateway.wire();
        wire.say("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(wire.until("\r\n\r\nok").starts_with("HTTP/1.1 200"));
        wire.say(head);
        page(&wire.rest(), status, title);
        let mut wire = gateway.wire();
        wire.say(&format!("GET /first HTTP/1.1\r\nHost: a\r\n\r\n{head}"));
        assert!(wire.until("\r\n\r\nok").starts_with("HTTP/1.1 200"));
        assert!(wire.rest().starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    assert!(upstream.seen().iter().all(|request| !request.head.contains("smuggled")));
}

#[test]
fn old_clients_are_served_as_they_expect() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    wire.say("GET /bytes/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: keep-alive\r\n") && head.contains("Content-Length: 3"), "{head}");
    wire.take(3);
    wire.say("GET /bytes/3 HTTP/1.0\r\n\r\n");
    let rest = wire.rest();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.contains("\r\nConnection: close\r\n"), "{rest}");
    let body = rest.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body.len(), 3, "{rest}");
    // A length that nobody knows beforehand ends with the connection.
    let mut wire = gateway.wire();
    wire.say("GET /stream/2?ms=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let rest = wire.rest();
    assert!(rest.contains("\r\nConnection: close\r\n") && !rest.contains("chunked"), "{rest}");
    // Two at once: the second begins behind the first.
    let mut wire = gateway.wire();
    wire.say(&"GET /bytes/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(2));
    for _ in 0..2 {
        let head = wire.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.") && head.contains(" 200 OK"), "{head}");
        wire.take(3);
    }
}

#[test]
fn an_answer_has_its_makers_date() {
    let dated = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    let undated = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let head = |node: &str, path: &str| {
        let gateway =
            Gateway::start(&[("routes/1", json!({"uri": "/known", "upstream": {"nodes": {node: 1}}}))]);
        let mut wire = gateway.wire();
        wire.say(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        wire.until("\r\n\r\n")
    };
    let (dated, undated) = (Canned::start(dated), Canned::start(undated));
    assert!(head(&dated.node, "/known").contains("\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    assert!(!head(&undated.node, "/known").contains("date: "));
    assert!(head(&undated.node, "/unknown").contains("\r\ndate: "));
}

#[test]
fn answers_come_in_the_order_of_pipelined_requests() {
    let upstream = Upstream::start();
    let gateway = Gateway::to(&upstream.node());
    let mut wire = gateway.wire();
    let mut all = String::new();
    for length in 1..=20 {
        all += &format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        );
    }
    wire.say(&all);
    for length in 1..=20 {
        let head = wire.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(wire.body(&head).len(), length);
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::with(&[route(&upstream.node())], |config| config.limits.body = 10);
    let mut wire = gateway.wire();
    wire.say("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    wire.say("hello");
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(wire.body(&head), "hello");
    assert!(!upstream.last().headers.contains_key("expect"));
    // Whose body is refused need not send it.
    wire.say("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n");
    assert!(wire.until("\r\n").starts_with("HTTP/1.1 413"));
}

#[test]
fn interim_answers_of_the_upstream_stay_with_us() {
    let canned = Canned::start(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && !head.to_lowercase().contains("link"), "{head}");
}

#[test]
fn trailers_pass_both_ways_without_those_that_would_change_the_head() {
    let upstream = Strict::start();
    let gateway = Gateway::to(&upstream.node);
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    wire.say("5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nX-Forwarded-For: b\r\nHost: evil\r\n\r\n");
    assert!(wire.until("ok").starts_with("HTTP/1.1 200"));
    let seen = upstream.last();
    assert_eq!((&*seen.body, &*seen.trailers), ("hello", "x-sum: 1\r\n"));
    let canned = Canned::start(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Content-Length\r\n\r\n\
          2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n",
    );
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
    wire.until("\r\n\r\n");
    assert_eq!(wire.until("\r\n\r\n").to_lowercase(), "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn a_client_that_says_no_more_is_taken_for_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::to(&listener.local_addr().unwrap().to_string());
    for body in ["half", "a whole on"] {
        let mut wire = gateway.wire();
        wire.say(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{body}"));
        let mut upstream = Wire(listener.accept().unwrap().0);
        upstream.0.set_read_timeout(Some(SOON)).unwrap();
        assert!(upstream.until(body).ends_with(body));
        wire.0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(upstream.0.read(&mut [0]).unwrap(), 0, "the request goes with its client");
    }
}

#[test]
fn the_host_that_is_routed_by_is_the_host_that_is_sent() {
    let (first, second) = (Strict::start(), Strict::start());
    let to = |node: &str, host: &str| json!({ "uri": "/*", "host": host, "upstream": { "type": "roundrobin", "nodes": { node: 1 } } });
    let gateway =
        Gateway::start(&[("routes/1", to(&first.node, "a.test")), ("routes/2", to(&second.node, "b.test"))]);
    let mut wire = gateway.wire();
    wire.say("GET http://a.test/x?y HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert!(wire.until("ok").starts_with("HTTP/1.1 200"));
    let head = first.last().head;
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\nhost: a.test\r\n"), "{head}");
    assert!(head.contains("x-forwarded-host: a.test\r\n"), "{head}");
    assert!(second.seen().is_empty());
}

#[test]
fn an_upgrade_that_is_not_allowed_is_a_plain_request() {
    let upstream = Strict::start();
    let gateway = Gateway::to(&upstream.node);
    let mut wire = gateway.wire();
    wire.say(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, X-Forwarded-Proto\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAA\r\n\r\n",
    );
    assert!(wire.until("ok").starts_with("HTTP/1.1 200"));
    let head = upstream.last().head;
    for gone in ["upgrade", "http2-settings", "connection"] {
        assert!(!head.contains(gone), "{head}");
    }
    assert!(head.contains("x-forwarded-proto: http\r\n"), "what we add no client can take away: {head}");
}

#[test]
fn an_empty_path_behind_a_host_is_the_root() {
    let upstream = Strict::start();
    let gateway = Gateway::to(&upstream.node);
    for (target, sent) in
        [("http://a.test?x=1", "/?x=1"), ("http://a.test", "/"), ("http://a.test/?x=1", "/?x=1")]
    {
        let mut wire = gateway.wire();
        wire.say(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(wire.until("ok").starts_with("HTTP/1.1 200"), "{target}");
        assert!(
            upstream.last().head.starts_with(&format!("GET {sent} HTTP/1.1\r\nhost: a.test\r\n")),
            "{target}"
        );
    }
    for target in ["http://a,b/", "http://a..b/", "http://.:80/"] {
        let mut wire = gateway.wire();
        wire.say(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(wire.rest().starts_with("HTTP/1.1 400"), "{target}");
    }
}

#[test]
fn http_without_tls_where_tls_is_spoken_is_told_so() {
    let address = (std::net::Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    let gateway = Gateway::with(&[], |config| {
        config.server = Some("APISIX/3.13.0".parse().unwrap());
        config.listeners.push(Listener { tls: true, http2: true, ..Listener::at(address) });
    });
    let mut wire = Wire(std::net::TcpStream::connect(address).unwrap());
    wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = wire.rest();
    page(&answer, "400", "400 The plain HTTP request was sent to HTTPS port");
    drop(gateway);
}

#[test]
fn an_upgrade_that_is_required_is_named() {
    let canned =
        Canned::start(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::to(&canned.node);
    let mut wire = gateway.wire();
    wire.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = wire.until("\r\n\r\n");
    assert!(
        head.contains("\r\nupgrade: TLS/1.0\r\n") && head.contains("\r\nconnection: upgrade\r\n"),
        "{head}"
    );
}

#[test]
fn names_with_underscores_are_dropped_where_nginx_drops_them() {
    let upstream = Strict::start();
    let mut gateway = Gateway::to(&upstream.node);
    let ask = |gateway: &Gateway| {
        let mut wire = gateway.wire();
        wire.say("GET / HTTP/1.1\r\nHost: a\r\nX_One: 1\r\nX-Two: 2\r\n\r\n");
        assert!(wire.until("ok").starts_with("HTTP/1.1 200"));
        upstream.last().head
    };
    assert!(ask(&gateway).contains("x_one: 1\r\n"));
    let mut config = gateway.config.clone();
    config.underscores = false;
    gateway.reconfigure(config).unwrap();
    let head = ask(&gateway);
    assert!(!head.contains("x_one") && head.contains("x-two: 2"), "{head}");
}
