//! Requests that are answered before their body has been read.

use serde_json::json;
use testkit::{ports, upstream::Upstream};

use crate::{Canned, Gateway, Wire};

/// Bodies as they follow a head.
fn bodies() -> Vec<(String, String)> {
    let length = |size: usize| (format!("Content-Length: {size}"), "x".repeat(size));
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    let chunked = ("Transfer-Encoding: chunked".to_owned(), format!("{}0\r\n\r\n", chunk.repeat(4)));
    vec![length(3), length(6_000), length(300_000), length(3_000_000), chunked]
}

fn answer(wire: &mut Wire) -> String {
    let head = wire.until("\r\n\r\n");
    let body = wire.body(&head);
    head + &body
}

#[test]
fn the_next_request_is_found_behind_the_body() {
    let (upstream, nobody) = (Upstream::start(), ports::address().to_string());
    let canned = Canned::start(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
    let to = |uri: &str, node: &str| json!({ "uri": uri, "upstream": { "type": "roundrobin", "nodes": { node: 1 } } });
    let gateway = Gateway::start(&[
        ("routes/1", to("/get", &upstream.node())),
        ("routes/2", to("/dead", &nobody)),
        ("routes/3", to("/early", &canned.node)),
    ]);
    for (path, status) in [("/nowhere", 404), ("/dead", 502), ("/early", 200)] {
        for (framing, body) in bodies() {
            let case = format!("{path} {framing}");
            let mut wire = gateway.wire();
            for round in 0..3 {
                wire.say(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
                // The answer does not wait for the body.
                let first = answer(&mut wire);
                assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "{case}: {first}");
                assert!(!first.contains("connection:"), "{case}: {first}");
                let (begin, end) = body.split_at(body.len() / 2);
                wire.say(begin);
                wire.say(&format!("{end}GET /get?{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
                assert!(answer(&mut wire).starts_with("HTTP/1.1 200"), "{case}");
            }
        }
    }
}

#[test]
fn what_is_said_of_the_connection_is_kept() {
    let gateway = Gateway::start(&[]);
    // Whoever asks before it sends may not send at all.
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let rest = wire.rest();
    assert!(rest.starts_with("HTTP/1.1 404") && rest.contains("connection: close"), "{rest}");
    // Whoever wants no more than one answer need not send the rest.
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
    assert!(wire.rest().starts_with("HTTP/1.1 404"));
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n");
    assert!(wire.rest().starts_with("HTTP/1.1 404"));
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n");
    let head = wire.until("\r\n\r\n");
    assert!(head.contains("Connection: keep-alive"), "{head}");
    wire.body(&head);
    wire.say("abcGET / HTTP/1.0\r\n\r\n");
    assert!(wire.rest().starts_with("HTTP/1.1 404"));
}

/// nginx's `lingering_timeout`.
#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let gateway = Gateway::start(&[]);
    let mut wire = gateway.wire();
    wire.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    assert!(answer(&mut wire).starts_with("HTTP/1.1 404"));
    let began = std::time::Instant::now();
    assert_eq!(wire.rest(), "");
    assert!(began.elapsed() < std::time::Duration::from_secs(9), "{:?}", began.elapsed());
}
