//! TCP sessions through everything: the control plane dies and returns, the data plane reloads, the route goes; and
//! stream routes out of the bucket.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::echo::{Echo, Line, say};
use testkit::gateway::{Gateway, SOON};
use testkit::ports;
use testkit::wait::{eventually, expect};

use crate::setup::*;

/// Waits until a new session is answered by this node, or by none.
async fn goes_to(port: SocketAddr, node: Option<&Echo>) {
    let wanted = node.map(|node| format!("{}|hello|end", node.port())).unwrap_or_default();
    eventually(SOON, format!("the answer {wanted:?}"), async || {
        let said = say(port, "hello").await.unwrap_or_default();
        expect(said == wanted, said)
    })
    .await;
}

/// Settings by which streams are proxied, at these ports.
fn streams(ports: &[SocketAddr]) -> Value {
    let tcp: Value = ports.iter().map(|port| json!(port.to_string())).collect();
    json!({ "apisix": { "proxy_mode": "http&stream", "stream_proxy": { "tcp": tcp } } })
}

fn to(node: &Echo) -> Value {
    json!({ "upstream": { "type": "roundrobin", "nodes": { node.node(): 1 } } })
}

#[tokio::test]
async fn tcp_sessions_outlive_everything_around_them() {
    let (one, two, port, other) = (Echo::tcp(), Echo::tcp(), ports::address(), ports::address());
    let mut cp = Gateway::control_plane(KEELGATE).with(json!({ "apisix": { "proxy_mode": "http&stream" } }));
    cp.start().await;
    cp.put("stream_routes/1", &to(&one)).await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp).with(streams(&[port]));
    dp.start().await;
    goes_to(port, Some(&one)).await;
    let mut line = Line::open(port).await.unwrap();
    line.expect(&format!("{}|", one.port())).await.unwrap();

    cp.kill9();
    dp.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    line.hears("it died").await.unwrap();
    for change in [
        json!({ "nginx_config": { "worker_processes": 4 } }),
        json!({ "nginx_config": { "worker_processes": 1, "stream": { "enable_access_log": true } } }),
        streams(&[port, other]),
        streams(&[port]),
    ] {
        dp.merge_config(change.clone());
        keelgate(&dp, &["reload"]);
        line.hears("still there?").await.unwrap_or_else(|error| panic!("after {change}: {error:#}"));
        let fresh = say(port, "hello").await;
        assert_eq!(fresh.unwrap(), format!("{}|hello|end", one.port()), "after {change}");
    }

    cp.start().await;
    dp.config_when("the control plane is back", |view| view["cp"]["connected"] == true).await;
    line.hears("it returned").await.unwrap();
    cp.put("stream_routes/1", &to(&two)).await;
    goes_to(port, Some(&two)).await;
    line.hears("the route changed").await.unwrap();
    cp.delete("stream_routes/1").await;
    goes_to(port, None).await;
    line.hears("the route is gone").await.unwrap();

    // A node that starts while its control plane is away serves streams as it served them last.
    cp.put("stream_routes/1", &to(&two)).await;
    goes_to(port, Some(&two)).await;
    kept_on_disk(&dp).await;
    cp.kill9();
    dp.kill9();
    dp.start().await;
    goes_to(port, Some(&two)).await;
}

#[tokio::test]
async fn stream_routes_come_from_the_bucket() {
    let mut moto = storage().await;
    let (one, two, three) = (Echo::tcp(), Echo::tcp(), Echo::tcp());
    let [port, alone] = [ports::address(), ports::address()];
    let mut cp = control_plane(&moto).with(json!({ "apisix": { "proxy_mode": "http&stream" } }));
    cp.start().await;
    cp.put("stream_routes/1", &to(&one)).await;
    backed_up(&cp, &moto, 1).await;
    cp.kill9();

    // Both start for the first time: the one would follow the control plane, the other knows of the bucket alone.
    let mut dp = data_plane(&cp, &moto).with(streams(&[port]));
    let mut bare = falling_back(Gateway::new(KEELGATE, "data_plane", "json"), &moto).with(streams(&[alone]));
    dp.start().await;
    bare.start().await;
    let mut lines = Vec::new();
    for (node, port) in [(&dp, port), (&bare, alone)] {
        node.source("bucket").await;
        goes_to(port, Some(&one)).await;
        let mut line = Line::open(port).await.unwrap();
        line.expect(&format!("{}|", one.port())).await.unwrap();
        lines.push(line);
    }
    let mut all_hear = async |after: &str| {
        for line in &mut lines {
            line.hears(after).await.unwrap_or_else(|error| panic!("after {after}: {error:#}"));
        }
    };

    cp.start().await;
    dp.source("control_plane").await;
    all_hear("the control plane's return").await;
    cp.put("stream_routes/1", &to(&two)).await;
    goes_to(port, Some(&two)).await;
    goes_to(alone, Some(&two)).await;
    all_hear("a change, and its backup").await;
    moto.kill9();
    cp.put("stream_routes/1", &to(&three)).await;
    goes_to(port, Some(&three)).await;
    goes_to(alone, Some(&two)).await;
    all_hear("the bucket's death").await;
}
