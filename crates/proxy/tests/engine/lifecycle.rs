//! Changes of configuration under load, and the end.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use ::http::Method;
use proxy::{
    access_log::{DEFAULT_FORMAT, Escape, Format},
    engine::Listener,
};
use serde_json::json;
use testkit::{
    http::{self, Client},
    load,
    upstream::{Behaviour, Upstream},
    wait::eventually,
};

use crate::{Gateway, SOON, route};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_changes() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::to(&upstream.node());
    let running = load::Plan::new(gateway.url("/get")).kept(4).fresh(200).start();
    let enough = |least| {
        let running = &running;
        async move {
            eventually(SOON, "traffic", async || match running.requests() {
                n if n >= least => Ok(()),
                n => Err(n),
            })
            .await;
        }
    };
    enough(200).await;
    let other = (Ipv4Addr::LOCALHOST, testkit::ports::free()).into();
    for workers in [4, 1, 3, 2] {
        let mut config = gateway.config.clone();
        config.workers = workers;
        config.listeners.truncate(1);
        if workers % 2 == 0 {
            config.listeners.push(Listener::at(other));
        }
        gateway.reconfigure(config).unwrap();
        gateway.change(&[("routes/2", json!({ "uri": format!("/{workers}") }))]);
        enough(running.requests() + 300).await;
    }
    running.stop().await.assert_clean(1000);
}

#[tokio::test]
async fn a_configuration_that_can_not_be_had_changes_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::to(&upstream.node());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = gateway.config.clone();
    config.listeners.push(Listener::at(taken.local_addr().unwrap()));
    let error = gateway.reconfigure(config).unwrap_err();
    assert!(error.to_string().contains("can't listen on 127.0.0.1"), "{error}");
    assert_eq!(http::get(&gateway.url("/get")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_drained_engine_ends_what_is_in_flight_and_takes_nothing_new() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::to(&upstream.node());
    let mut idle = Client::connect(&gateway.url("/")).await.unwrap();
    assert_eq!(idle.get("/get").await.unwrap().status, 200);
    upstream.behave(Behaviour::Slow(Duration::from_millis(500)));
    let url = gateway.url("/get");
    let slow = tokio::spawn(async move { http::get(&url).await });
    eventually(SOON, "the request to arrive", async || match upstream.requests() {
        2 => Ok(()),
        n => Err(n),
    })
    .await;
    let end = gateway.drain();
    let answer = slow.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    eventually(SOON, "the idle connection to be closed", async || match idle.is_closed() {
        true => Ok(()),
        false => Err("open"),
    })
    .await;
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
    assert!(http::get(&gateway.url("/get")).await.is_err());
    assert_eq!(gateway.shared.status.totals().active, 0);
}

/// Also of answers that end with their head, and over connections that were there.
#[tokio::test]
async fn the_access_log_knows_how_long_the_upstream_took() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::start();
    let mut gateway = Gateway::with(&[route(&upstream.node())], |config| {
        let format = "$upstream_connect_time $upstream_header_time $upstream_response_time";
        config.access_log = Some(Arc::new(Format::new(format, Escape::Default, 1 << 14)));
        config.access_log_file = Some(path.clone());
    });
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    upstream.behave(Behaviour::Slow(Duration::from_millis(20)));
    for (method, path) in [
        (Method::GET, "/bytes/5"),
        (Method::HEAD, "/bytes/5"),
        (Method::GET, "/bytes/0"),
        (Method::GET, "/status/204"),
        (Method::GET, "/status/304"),
    ] {
        client.send(method, path, &[], "").await.unwrap();
    }
    drop(client);
    let end = gateway.drain();
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log.lines().count(), 5);
    for (at, line) in log.lines().enumerate() {
        let times: Vec<f64> = line.split(' ').map(|time| time.parse().expect(line)).collect();
        assert!(times[1] >= 0.02 && times[2] >= 0.02, "{log}");
        assert!(at == 0 || times[0] == 0.0, "{log}");
    }
}

#[tokio::test]
async fn the_access_log_has_every_request_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::start();
    let format = format!("{DEFAULT_FORMAT} end");
    let mut gateway = Gateway::with(&[route(&upstream.node())], |config| {
        config.access_log = Some(Arc::new(Format::new(&format, Escape::Default, 1 << 14)));
        config.access_log_file = Some(path.clone());
        config.server = Some("APISIX/3.13.0".parse().unwrap());
    });
    let mut client = Client::connect(&gateway.url("/")).await.unwrap();
    let response = client.get("/bytes/7?q=1").await.unwrap();
    assert_eq!(response.header("server"), "APISIX/3.13.0");
    for _ in 0..99 {
        client.get("/status/500").await.unwrap();
    }
    drop(client);
    // What can't be read, and what is refused once it is read.
    for (head, status) in [("nonsense\r\n\r\n", "400"), ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405")] {
        let mut wire = gateway.wire();
        wire.say(head);
        assert!(wire.rest().starts_with(&format!("HTTP/1.1 {status}")));
    }
    let end = gateway.drain();
    tokio::task::spawn_blocking(|| end.join()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 102);
    for status in ["400", "405"] {
        let refused = lines.iter().find(|line| line.contains(&format!("] - \"-\" {status} ")));
        assert!(refused.is_some_and(|line| line.starts_with("127.0.0.1 - - [")), "{log}");
    }
    assert!(lines.iter().all(|line| line.ends_with(" end")), "{log}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(lines[0].contains("\"GET /bytes/7?q=1 HTTP/1.1\" 200 7 "), "{}", lines[0]);
    assert!(lines[0].contains(&format!("{} 200 ", upstream.node())), "{}", lines[0]);
    let totals = gateway.shared.status.totals();
    assert_eq!((totals.accepted, totals.active), (3, 0));
}
