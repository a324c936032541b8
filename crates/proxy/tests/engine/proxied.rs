//! Behind load balancers: who the client is, and whose word is taken for it.

use std::time::Duration;

use proxy::engine::{Listener, RealIp, SaidBy};
use testkit::{certs::Ca, http::Options, upstream::Upstream};

use crate::{Gateway, Wire, route, strict::Strict};

/// Believes what 127.0.0.1 says in this way.
fn real_ip(said_by: SaidBy, recursive: bool) -> Option<RealIp> {
    Some(RealIp { from: vec!["127.0.0.1/32".parse().unwrap()], said_by, recursive })
}

#[test]
fn the_client_is_whom_a_proxy_of_ours_names() {
    let upstream = Strict::start();
    let field = |name: &'static str| SaidBy::Field(name.parse().unwrap());
    for (said_by, recursive, fields, address, chain) in [
        (field("x-real-ip"), false, "X-Real-IP: 1.2.3.4", "1.2.3.4", "1.2.3.4"),
        (field("x-real-ip"), false, "X-Forwarded-For: 1.2.3.4", "127.0.0.1", "1.2.3.4, 127.0.0.1"),
        (
            field("x-forwarded-for"),
            false,
            "X-Forwarded-For: 5.6.7.8, 1.2.3.4",
            "1.2.3.4",
            "5.6.7.8, 1.2.3.4, 1.2.3.4",
        ),
        (
            field("x-forwarded-for"),
            true,
            "X-Forwarded-For: 5.6.7.8\r\nX-Forwarded-For: 127.0.0.1",
            "5.6.7.8",
            "5.6.7.8, 127.0.0.1, 5.6.7.8",
        ),
        (field("cf-connecting-ip"), false, "CF-Connecting-IP: 2001:db8::1", "2001:db8::1", "2001:db8::1"),
    ] {
        let gateway =
            Gateway::with(&[route(&upstream.node)], |config| config.real_ip = real_ip(said_by, recursive));
        let mut wire = gateway.wire();
        wire.say(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert!(wire.until("ok").starts_with("HTTP/1.1 200"));
        let head = upstream.last().head;
        assert!(head.contains(&format!("x-real-ip: {address}\r\n")), "{fields}: {head}");
        assert!(head.contains(&format!("x-forwarded-for: {chain}\r\n")), "{fields}: {head}");
    }
}

#[tokio::test]
async fn a_load_balancer_may_announce_its_client() {
    let upstream = Upstream::start();
    let pair = Ca::new("test");
    let server = pair.server(&["a.test"]);
    let ssl = serde_json::json!({ "cert": server.cert, "key": server.key, "snis": ["a.test"] });
    let address = (std::net::Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    let gateway = Gateway::with(&[route(&upstream.node()), ("ssls/1", ssl)], |config| {
        config.listeners[0].proxy_protocol = true;
        config.listeners.push(Listener {
            tls: true,
            http2: true,
            proxy_protocol: true,
            ..Listener::at(address)
        });
        config.real_ip = real_ip(SaidBy::ProxyProtocol, false);
    });
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x7f\0\0\x01\x10\0\0\x50";
    for (header, client) in [
        (&b"PROXY TCP4 1.2.3.4 127.0.0.1 4096 80\r\n"[..], "1.2.3.4"),
        (b"PROXY TCP6 2001:db8::1 ::1 4096 80\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (v2, "1.2.3.4"),
    ] {
        let mut wire = gateway.wire();
        wire.bytes(header);
        for _ in 0..2 {
            wire.say("GET /get HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = wire.until("\r\n\r\n");
            wire.body(&head);
            assert_eq!(upstream.last().header("x-real-ip"), client);
        }
        let options = Options {
            to: Some(address),
            sni: Some("a.test".to_owned()),
            ca: Some(pair.pem()),
            before: header.to_vec(),
            ..Options::default()
        };
        let mut client_tls = testkit::http::Client::connect_with("https://a.test/", &options).await.unwrap();
        assert_eq!(client_tls.get("/get").await.unwrap().status, 200);
        assert_eq!(upstream.last().header("x-real-ip"), client);
    }
}

#[test]
fn who_does_not_announce_its_client_is_not_served() {
    let upstream = Strict::start();
    let gateway = Gateway::with(&[route(&upstream.node)], |config| {
        config.listeners[0].proxy_protocol = true;
        config.timeouts.client_header = Duration::from_millis(300);
    });
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for beginning in [
        "",
        "PROXY TCP4 1.2.3.4",
        "\r\n\r\n\0\r\nQUIT\n\u{21}",
        request,
        "PROXY TCP4 nobody 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PROXY TCP4 1.2.3.4 127.0.0.1 1 2\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut wire: Wire = gateway.wire();
        wire.say(beginning);
        assert_eq!(wire.rest(), "", "{beginning:?}");
    }
    assert!(upstream.seen().is_empty());
}
