//! Calls and sockets that stay open while everything around them comes and goes.

use serde_json::json;
use testkit::gateway::Gateway;
use testkit::grpc::{Client, Server};
use testkit::upstream::Upstream;
use testkit::ws;

use crate::setup::*;

#[tokio::test]
async fn a_call_and_a_socket_stay_open_through_it_all() {
    let (upstream, server) = (Upstream::start(), Server::start());
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let plain = json!({ "type": "roundrobin", "nodes": { upstream.node(): 1 } });
    let grpc = json!({ "type": "roundrobin", "scheme": "grpc", "nodes": { server.node(): 1 } });
    cp.put("routes/notes", &json!({ "uri": "/keel.Notes/*", "upstream": grpc })).await;
    cp.put("routes/ws", &json!({ "uri": "/ws", "enable_websocket": true, "upstream": plain })).await;
    cp.put("routes/ip", &json!({ "uri": "/ip", "upstream": plain })).await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    dp.start().await;
    dp.serves("/ip").await;
    let client = Client::connect(&dp.url("")).await.unwrap();
    let mut talk = client.talk("hello").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "hello");
    let mut socket = ws::connect(&dp.url("/ws")).await.unwrap();
    let mut go_on = async |after: &str| {
        assert_eq!(talk.say(after).await.unwrap(), after);
        assert_eq!(socket.say(after).await.unwrap(), after);
    };
    go_on("the beginning").await;

    cp.kill9();
    dp.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    go_on("the control plane's death").await;
    keelgate(&dp, &["reload"]);
    go_on("a reload").await;
    for workers in [4, 1] {
        dp.merge_config(json!({ "nginx_config": { "worker_processes": workers } }));
        keelgate(&dp, &["reload"]);
        go_on("another number of workers").await;
    }
    cp.start().await;
    dp.config_when("the control plane is back", |view| view["cp"]["connected"] == true).await;
    go_on("its return").await;
    for gone in ["routes/notes", "routes/ws"] {
        cp.delete(gone).await;
    }
    cp.put("routes/get", &json!({ "uri": "/get", "upstream": plain })).await;
    dp.serves("/get").await;
    go_on("the end of their routes").await;
    assert_eq!((server.calls(), server.connections()), (1, 1));
}
