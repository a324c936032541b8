//! Requests and responses that two readers could read in two ways.
//!
//! The rule to know: whatever a client sends, an upstream that reads strictly sees whole requests that are plain, or
//! parts of one that never ends; and never a request that the client hid in another.

use testkit::http;

use crate::{Canned, Gateway, strict::Strict};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What becomes of a request.
enum Fate {
    /// Refused with one of these, without a word to the upstream.
    Refused(&'static [u16]),
    /// Sent on with this body.
    Sent(&'static str),
    /// Begun and never ended, as the upstream sees it.
    Cut,
}
use Fate::{Cut, Refused, Sent};

const BAD: Fate = Refused(&[400]);

/// The head after its first two lines, the body, and what becomes of it.
const CASES: &[(&str, &str, Fate)] = &[
    // Two ends.
    ("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n", Sent("")),
    ("Transfer-Encoding: chunked\r\nContent-Length: 6", "0\r\n\r\n", Sent("")),
    ("Content-Length: 0\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", Sent("hello")),
    ("Content-Length: 5\r\nContent-Length: 6", "hello", BAD),
    ("Content-Length: 5\r\nContent-Length: 5", "hello", Sent("hello")),
    ("Content-Length: 5, 5", "hello", BAD),
    ("Content-Length: +5", "hello", BAD),
    ("Content-Length: -5", "hello", BAD),
    ("Content-Length: 0x5", "hello", BAD),
    ("Content-Length: 5 5", "hello", BAD),
    ("Content-Length:", "hello", BAD),
    ("Content-Length: 99999999999999999999", "hello", BAD),
    ("Content-Length: 18446744073709551615", "hello", BAD),
    ("Content-Length : 5", "hello", BAD),
    ("Content-Length\t: 5", "hello", BAD),
    ("Content-Length: 5\r\nConnection: content-length", "hello", Sent("hello")),
    ("Content_Length: 50\r\nContent-Length: 5", "hello", Sent("hello")),
    // A coding in disguise.
    ("Transfer-Encoding: Chunked", "0\r\n\r\n", Sent("")),
    ("Transfer-Encoding:\tchunked ", "0\r\n\r\n", Sent("")),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked;q=1", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n", BAD),
    ("Transfer-Encoding : chunked", "0\r\n\r\n", BAD),
    ("Transfer-Encoding\r\n : chunked", "0\r\n\r\n", BAD),
    ("Transfer-Encoding:\r\n chunked", "0\r\n\r\n", BAD),
    (" Transfer-Encoding: chunked", "0\r\n\r\n", BAD),
    ("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n", Refused(&[501])),
    ("Transfer-Encoding: identity, chunked", "0\r\n\r\n", Refused(&[501])),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n", Refused(&[501])),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n", BAD),
    ("Transfer-Encoding: gzip", "0\r\n\r\n", BAD),
    ("Transfer-Encoding:", "0\r\n\r\n", BAD),
    ("Transfer_Encoding: chunked\r\nContent-Length: 5", "hello", Sent("hello")),
    ("Transfer-Encoding: chunked\r\nConnection: transfer-encoding", "0\r\n\r\n", Sent("")),
    // Chunks.
    ("Transfer-Encoding: chunked", "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n", Sent("hello")),
    ("Transfer-Encoding: chunked", "00005 \r\nhello\r\n000\r\n\r\n", Sent("hello")),
    ("Transfer-Encoding: chunked", "5\nhello\n0\n\n", Cut),
    ("Transfer-Encoding: chunked", "5\r\nhelloXX0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", " 5\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "+5\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", ";a\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "5;a\nb\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "5;a\rb\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "10000000000000005\r\nhello\r\n0\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nno field\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n", Cut),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\na : b\r\n\r\n", Cut),
    (
        "Transfer-Encoding: chunked",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\nContent-Length: 9\r\n\r\n",
        Sent("hello"),
    ),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\n", Cut),
    // Names, values, lines.
    ("Content-Length: 0\r\n\u{0}X: y", "", BAD),
    ("Content-Length: 0\r\nX\u{0}: y", "", BAD),
    ("Content-Length: 0\r\nX: \u{0}", "", BAD),
    ("Content-Length: 0\r\nX y: z", "", BAD),
    ("Content-Length: 0\r\n: z", "", BAD),
    ("Content-Length: 0\r\nX", "", BAD),
    ("Content-Length: 0\r\nX: y\r\n z", "", BAD),
    ("Content-Length: 0\r\nX: y\r\rz: w", "", BAD),
    ("Content-Length: 0\nX: y", "", Sent("")),
    ("Content-Length: 0\r\nHost: b", "", BAD),
    ("Content-Length: 0\r\nHost: a", "", BAD),
    ("Content-Length: 0\r\nExpect: 100-continue\r\nExpect: x", "", Sent("")),
];

#[test]
fn no_request_hides_in_another() {
    for (fields, body, fate) in CASES {
        let upstream = Strict::start();
        let gateway = Gateway::to(&upstream.node);
        let mut wire = gateway.wire();
        wire.say(&format!("POST /plain HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}"));
        if !matches!(fate, Sent(_)) {
            wire.try_say(HIDDEN);
        }
        let case = format!("{fields:?} {body:?}");
        match fate {
            Refused(statuses) => {
                let answer = wire.rest();
                let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
                assert!(statuses.contains(&status), "{case}: {answer}");
                assert!(upstream.seen().is_empty(), "{case}: {:?}", upstream.seen());
            }
            Sent(body) => {
                let answer = wire.until("\r\n\r\nok");
                let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
                assert!(last.starts_with("200"), "{case}: {answer}");
                let seen = upstream.seen();
                assert!(matches!(&seen[..], [one] if one.body == *body), "{case}: {seen:?}");
                assert!(seen[0].trailers.is_empty(), "{case}: {seen:?}");
            }
            Cut => {
                let answer = wire.rest();
                assert!(answer.starts_with("HTTP/1.1 400"), "{case}: {answer}");
                assert!(upstream.seen().is_empty(), "{case}: {:?}", upstream.seen());
            }
        }
    }
}

/// Who takes a bare line feed for the end of the trailers, and sends another request behind them, gets no answer to the
/// wrong one: the connection ends.
#[test]
fn nothing_follows_trailers() {
    for end in ["X: 1\r\n\r\n", "X: 1\n\n", "X: 1\n\r\n", "X: 1\r\n\n"] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (body, two) = (format!("5\r\nhello\r\n0\r\n{end}"), HIDDEN.repeat(2));
        let upstream = Strict::start();
        let gateway = Gateway::to(&upstream.node);
        let mut wire = gateway.wire();
        wire.say(&format!("{head}{body}{two}"));
        let answer = wire.rest();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
            "{end:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{end:?}: {answer}");
        assert_eq!(upstream.seen().len(), 1, "{end:?}: {:?}", upstream.seen());
        // Nor where the answer came first.
        let gateway = Gateway::start(&[]);
        let mut wire = gateway.wire();
        wire.say(head);
        assert!(wire.until("Not Found\"}\n").starts_with("HTTP/1.1 404"), "{end:?}");
        wire.try_say(&format!("{body}{two}"));
        let rest = wire.rest();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{end:?}: {rest}");
        assert!(rest.matches("HTTP/1.1").count() < 2, "{end:?}: {rest}");
    }
}

#[test]
fn request_lines_are_read_in_one_way() {
    let upstream = Strict::start();
    let gateway = Gateway::to(&upstream.node);
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1\u{0}",
        "GET /\u{0} HTTP/1.1",
        "GET /",
        "GET / HTTP/2.0",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "G@T / HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET ftp//a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET a HTTP/1.1",
    ] {
        let mut wire = gateway.wire();
        wire.try_say(&format!("{line}\r\nHost: a\r\n\r\n{HIDDEN}"));
        let answer = wire.rest();
        assert!(answer.starts_with("HTTP/1.1 400"), "{line:?}: {answer}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

#[tokio::test]
async fn responses_that_are_read_in_two_ways_are_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        "HTTP/1.1 2 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let canned = Canned::start(answer.as_bytes());
        let gateway = Gateway::to(&canned.node);
        let status = http::get(&gateway.url("/")).await.unwrap().status;
        assert_eq!(status, 502, "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_body_ends_the_connection() {
    for body in [
        "xyz\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "5\r\nhelloX",
        "2\nok\n0\n\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let canned = Canned::start(answer.leak().as_bytes());
        let gateway = Gateway::to(&canned.node);
        let answer = http::get(&gateway.url("/")).await;
        assert!(answer.is_err(), "{body:?}: {answer:?}");
    }
}

/// What an upstream sends beyond its answer is nobody's answer.
#[test]
fn an_answer_too_many_reaches_nobody() {
    const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for first in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 49\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 49\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let canned = Canned::start(format!("{first}{FORGED}").leak().as_bytes());
        let gateway = Gateway::to(&canned.node);
        for method in ["GET", "GET", "HEAD", "GET"] {
            let mut wire = gateway.wire();
            wire.say(&format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            let answer = wire.rest();
            assert!(answer.starts_with(&first[..12]) && !answer.contains("forged"), "{first:?}: {answer}");
        }
    }
}
