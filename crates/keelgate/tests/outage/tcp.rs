//! TCP sessions through everything: the control plane dies and returns, the data plane reloads, the route goes.

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

#[tokio::test]
async fn tcp_sessions_outlive_everything_around_them() {
    let (one, two, port, other) = (Echo::tcp(), Echo::tcp(), ports::address(), ports::address());
    let streams = |ports: &[SocketAddr]| {
        let tcp: Value = ports.iter().map(|port| json!(port.to_string())).collect();
        json!({ "apisix": { "proxy_mode": "http&stream", "stream_proxy": { "tcp": tcp } } })
    };
    let to = |node: &Echo| json!({ "upstream": { "type": "roundrobin", "nodes": { node.node(): 1 } } });
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
