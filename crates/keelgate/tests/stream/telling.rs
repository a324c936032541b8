//! What is refused, told, counted and logged.

use http::Method;
use serde_json::json;
use testkit::echo::{Echo, say, say_from};
use testkit::http::get;

use crate::*;

#[tokio::test]
async fn what_streams_can_not_do_is_refused_with_its_reason() {
    let echo = Echo::tcp();
    let node = Node::start().await;
    let refused = async |more: Value| {
        let mut route = json!({ "upstream": to(&[&echo]) });
        merge(&mut route, more);
        let answer = node.admin(Method::PUT, "stream_routes/1", &route).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()["error_msg"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(refused(json!({ "plugins": { "key-auth": {} } })).await, "unknown plugin [key-auth]");
    assert_eq!(refused(json!({ "plugins": { "prometheus": {} } })).await, "unknown plugin [prometheus]");
    assert_eq!(refused(json!({ "protocol": { "name": "redis" } })).await, "unknown protocol [redis]");
    assert_eq!(refused(json!({ "remote_addr": ":/8" })).await, "invalid remote_addr: :/8");
    let bad = refused(json!({ "plugins": { "ip-restriction": {} } })).await;
    assert!(
        bad.starts_with("failed to check the configuration of stream plugin [ip-restriction]: "),
        "{bad}"
    );

    let mut without = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate"));
    without.start().await;
    let answer = without.admin(Method::PUT, "stream_routes/1", &json!({ "upstream": to(&[&echo]) })).await;
    let message = "stream mode is disabled, can not add stream routes";
    assert_eq!((answer.status, answer.json()["error_msg"].as_str()), (400, Some(message)));
}

#[tokio::test]
async fn sessions_are_let_in_counted_and_logged() {
    let echo = Echo::tcp();
    let node = Node::with(json!({
        "stream_plugins": ["ip-restriction", "prometheus"],
        "nginx_config": { "stream": {
            "enable_access_log": true, "access_log_format_escape": "json",
            "access_log_format": "{\"from\":\"$remote_addr\",\"how\":\"$protocol $status $bytes_received $bytes_sent\",\"route\":\"$route_id\",\"to\":\"$upstream_addr\"}",
        } },
    }))
    .await;
    let plugins = json!({ "ip-restriction": { "blacklist": ["127.0.0.3"] }, "prometheus": {} });
    node.has(&[(
        "stream_routes/1",
        json!({ "server_port": node.tcp.port(), "plugins": plugins, "upstream": to(&[&echo]) }),
    )])
    .await;
    assert_eq!(say(node.tcp, "hello").await.unwrap(), answer(&echo, "hello"));
    assert_eq!(say_from("127.0.0.3", node.tcp, "hello").await.unwrap_or_default(), "");

    let metrics = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", node.ports().prometheus);
    let sent = answer(&echo, "hello").len();
    let lines = [
        "apisix_stream_connection_total{route=\"1\"} 2".to_owned(),
        format!(
            "apisix_stream_status{{code=\"200\",listen_addr=\"{}\",node=\"{}\"}} 1",
            node.tcp,
            echo.node()
        ),
        format!("apisix_stream_status{{code=\"403\",listen_addr=\"{}\",node=\"\"}} 1", node.tcp),
        format!("apisix_stream_active_connections{{listen_addr=\"{}\"}} 0", node.tcp),
        format!(
            "apisix_stream_bandwidth{{listen_addr=\"{}\",type=\"ingress\",side=\"downstream\"}} 5",
            node.tcp
        ),
        format!(
            "apisix_stream_bandwidth{{listen_addr=\"{}\",type=\"egress\",side=\"downstream\"}} {sent}",
            node.tcp
        ),
    ];
    eventually(SOON, "the counters", async || {
        let page = get(&metrics).await.map_err(|error| format!("{error:#}"))?.text();
        let missing: Vec<_> = lines.iter().filter(|line| !page.lines().any(|one| one == **line)).collect();
        expect(missing.is_empty(), format!("{missing:?} in {page}"))
    })
    .await;
    let log = node.home().join("logs/access_stream.log");
    let let_in = format!(
        "{{\"from\":\"127.0.0.1\",\"how\":\"TCP 200 5 {sent}\",\"route\":\"1\",\"to\":\"{}\"}}",
        echo.node()
    );
    let kept_out = "{\"from\":\"127.0.0.3\",\"how\":\"TCP 403 0 0\",\"route\":\"1\",\"to\":\"\"}";
    eventually(SOON, "the log", async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        expect(lines.contains(&let_in) && lines.contains(kept_out), lines)
    })
    .await;

    let routes = get(&node.control_url("/v1/stream_routes")).await.unwrap().json();
    assert!(routes.as_array().unwrap().iter().any(|route| route["value"]["id"] == "1"), "{routes}");
    let schema = get(&node.control_url("/v1/schema")).await.unwrap().json();
    assert!(schema["stream_plugins"]["ip-restriction"]["priority"] == 3000, "{}", schema["stream_plugins"]);
}
