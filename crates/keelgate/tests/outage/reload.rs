//! A reload while everything that can be under way is under way: nobody notices.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::gateway::{ADMIN_KEY, Gateway};
use testkit::http::{Client, Options};
use testkit::load::Plan;
use testkit::ports;
use testkit::upstream::Upstream;
use testkit::ws;

use crate::setup::*;

/// Changes of `config.yaml`, one after the other.
fn changes(own: u16, https: u16) -> Vec<Value> {
    let listen = |ports: &[u16]| -> Value {
        ports.iter().map(|port| json!({ "ip": "127.0.0.1", "port": port })).collect()
    };
    let [more, prometheus, control] = ports::several();
    vec![
        json!({}),
        json!({ "nginx_config": { "worker_processes": 4 } }),
        json!({ "nginx_config": { "worker_processes": 1 } }),
        json!({ "apisix": { "node_listen": listen(&[more, own]), "ssl": { "ssl_protocols": "TLSv1.3" } } }),
        json!({ "nginx_config": { "worker_processes": 2, "http": { "access_log_format": "$remote_addr $status" } } }),
        json!({ "apisix": { "node_listen": listen(&[own]), "control": { "ip": "127.0.0.1", "port": control } } }),
        json!({ "plugin_attr": { "prometheus": { "export_addr": { "ip": "127.0.0.1", "port": prometheus } } } }),
        json!({ "apisix": { "ssl": { "listen": listen(&[https]) } }, "nginx_config": null }),
    ]
}

#[tokio::test]
async fn nothing_that_is_under_way_notices() {
    let (upstream, ca) = (Upstream::start(), Ca::new("keel"));
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let pair = ca.server(&["shop.test"]);
    node.put("ssls/1", &json!({ "cert": pair.cert, "key": pair.key, "snis": ["shop.test"] })).await;
    let to = json!({ "type": "roundrobin", "nodes": { upstream.node(): 1 } });
    node.put("routes/1", &json!({ "uri": "/*", "enable_websocket": true, "upstream": to })).await;
    node.serves("/ip").await;
    let https = Options {
        to: Some(([127, 0, 0, 1], node.ports().https).into()),
        ca: Some(ca.pem()),
        ..Options::default()
    };
    let plain = load(&node);
    let tls = Plan::new("https://shop.test/ip").options(https.clone()).kept(2).start();
    let mut socket = ws::connect(&node.url("/ws")).await.unwrap();
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    let endless = Request::get("/stream/1000000?ms=5").body(Bytes::new()).unwrap();
    let mut download = client.send_raw(endless).await.unwrap().into_body();
    let mut h2 = Http2 { options: Options { http2: true, ..https }, client: None };

    for change in changes(node.ports().http, node.ports().https) {
        node.merge_config(change.clone());
        keelgate(&node, &["reload"]);
        plain.more(100).await;
        tls.more(30).await;
        h2.gets("/ip").await;
        assert_eq!(socket.say("still there?").await.unwrap(), "still there?", "after {change}");
        assert!(download.frame().await.unwrap().is_ok(), "the download broke off after {change}");
    }
    plain.stop().await.assert_clean(800);
    tls.stop().await.assert_clean(240);
}

/// A client that opens another connection when, and only when, it was told that the old one takes no more requests.
struct Http2 {
    options: Options,
    client: Option<Client>,
}

impl Http2 {
    async fn gets(&mut self, path: &str) {
        let open = self.client.take().filter(|client| !client.is_closed());
        let mut client = match open {
            Some(client) => client,
            None => Client::connect_with("https://shop.test/", &self.options).await.unwrap(),
        };
        assert_eq!(client.get(path).await.unwrap().status, 200);
        self.client = Some(client);
    }
}

#[tokio::test]
async fn the_admin_api_is_there_throughout() {
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let url = format!("http://127.0.0.1:{}/apisix/admin/routes", cp.ports().admin);
    let load = Plan::new(url).header("X-API-KEY", ADMIN_KEY).kept(2).fresh(100).start();
    for number in 0..8 {
        cp.merge_config(json!({ "plugin_attr": { "example": number } }));
        keelgate(&cp, &["reload"]);
        load.more(50).await;
    }
    load.stop().await.assert_clean(400);
}
