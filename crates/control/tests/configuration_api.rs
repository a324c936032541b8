//! The configuration API as its clients see it: our own etcd client, stock etcdctl, APISIX's JSON.

use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};

use control::etcd::{Access, Config, instances::Instances, mirror::Mirror, router};
use model::{InstanceEnvelope, Key, Kind};
use serde_json::{Value, json};
use store::{Commit, Etcd, Store, memory::Memory, suite};

/// Serves the API over a store in memory, on a free port.
async fn serve(store: Arc<dyn Store>, access: Access) -> SocketAddr {
    let mut instance = InstanceEnvelope::default();
    instance.config.config_version = 7;
    let config =
        Config { prefix: "/apisix".into(), access, group: "default".into(), instance: Arc::new(instance) };
    let mirror = Mirror::start(store.clone());
    let router = router(config, store, mirror, Arc::new(Instances::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn client(address: SocketAddr) -> store::etcd::Config {
    store::etcd::Config { hosts: vec![format!("http://{address}")], ..store::etcd::Config::default() }
}

fn route(id: &str) -> Key {
    Key::new(Kind::Routes, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_it_is_a_store() {
    let address = serve(Arc::new(Memory::new()), Access::ReadWrite).await;
    suite::run(Arc::new(Etcd::open(client(address)).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_only_read() {
    let store = Arc::new(Memory::new());
    store.commit(Commit::put(route("1"), "{}")).await.unwrap();
    let address = serve(store.clone(), Access::ReadOnly).await;
    let reader = Etcd::open(client(address)).await.unwrap();
    assert_eq!(reader.store_id(), store.store_id());
    assert_eq!(&*reader.get(&route("1")).await.unwrap().unwrap().value, "{}");
    let refused = reader.commit(Commit::put(route("1"), "{\"a\":1}")).await.unwrap_err();
    assert!(matches!(refused, store::Error::ReadOnly(_)), "{refused}");
    assert_eq!(&*store.get(&route("1")).await.unwrap().unwrap().value, "{}");
}

/// etcdctl's output, which must not be an error.
fn etcdctl(address: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").stdin(std::process::Stdio::null());
    let output = command.args([&format!("--endpoints=http://{address}")]).args(args).output();
    let output = output.expect("etcdctl: run ./x deps");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_reads_in_the_order_of_keys() {
    let store = Arc::new(Memory::new());
    for key in
        ["upstreams/1", "consumers/jack", "consumers/jack/credentials/a", "consumers/jack2", "routes/1"]
    {
        store.commit(Commit::put(key.parse().unwrap(), "{}")).await.unwrap();
    }
    let address = serve(store.clone(), Access::ReadOnly).await;
    let all =
        tokio::task::spawn_blocking(move || etcdctl(address, &["get", "--prefix", "/apisix", "--keys-only"]));
    let all = all.await.unwrap();
    let keys: Vec<&str> = all.lines().filter(|line| !line.is_empty()).collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(keys, sorted);
    for key in ["/apisix/consumers/jack/credentials/a", "/apisix/routes/", "/apisix/keelgate/store_id"] {
        assert!(keys.contains(&key), "{key} is not among {keys:?}");
    }
    let some = tokio::task::spawn_blocking(move || {
        etcdctl(address, &["get", "/apisix/consumers/jack", "/apisix/consumers/jack2", "--keys-only"])
    });
    let some = some.await.unwrap();
    let keys: Vec<&str> = some.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(keys, ["/apisix/consumers/jack", "/apisix/consumers/jack/credentials/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paged_read_stays_at_its_revision() {
    let store = Arc::new(Memory::new());
    for id in 0..10 {
        store.commit(Commit::put(route(&id.to_string()), "{}")).await.unwrap();
    }
    let address = serve(store.clone(), Access::ReadOnly).await;
    let reader = Etcd::open_reader(client(address)).await.unwrap();
    let revision = reader.snapshot().await.unwrap().revision;
    store.commit(Commit::delete(route("9"))).await.unwrap();
    let page =
        post(address, "/v3/kv/range", &range(b"/apisix/routes/5", b"/apisix/routes0", 2, revision)).await;
    assert_eq!((page["count"].as_str(), page["more"].as_bool()), (Some("5"), Some(true)), "{page}");
    assert_eq!(page["kvs"].as_array().unwrap().len(), 2);
}

fn range(key: &[u8], end: &[u8], limit: u32, revision: u64) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    json!({"key": STANDARD.encode(key), "range_end": STANDARD.encode(end), "limit": limit, "revision": revision})
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> Value {
    let url = format!("http://{address}{path}");
    let headers = [("content-type", "application/json")];
    let response =
        testkit::http::request(http::Method::POST, &url, &headers, body.to_string()).await.unwrap();
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{path}: {}", response.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn json_watchers_get_lines_as_from_etcd() {
    let store = Arc::new(Memory::new());
    store.commit(Commit::put(route("0"), "{}")).await.unwrap();
    let address = serve(store.clone(), Access::ReadOnly).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // lua-resty-etcd's request: key `/apisix/`, end `/apisix0`.
    let body = r#"{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":"3"}}"#;
    let request = format!(
        "POST /v3/watch HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
        body.len()
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut read = async |until: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(until) {
            let wait = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer));
            let count = wait.await.unwrap_or_else(|_| panic!("`{until}` did not come: {seen}")).unwrap();
            assert_ne!(count, 0, "the watch ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    read(r#""created":true"#).await;
    store.commit(Commit::put(route("1"), "{\"uri\":\"/\"}")).await.unwrap();
    // base64 of `/apisix/routes/1`
    read("L2FwaXNpeC9yb3V0ZXMvMQ==").await;
    store.commit(Commit::delete(route("1"))).await.unwrap();
    read(r#""type":"DELETE""#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_answered_with_instance_configuration() {
    let address = serve(Arc::new(Memory::new()), Access::ReadOnly).await;
    let beat = json!({"instance_id": "a", "hostname": "h", "control_plane_revision": 3});
    let answer = post(address, "/api/dataplane/heartbeat", &beat).await;
    assert_eq!(answer["config"]["config_version"], 7, "{answer}");
    let foreign = json!({"instance_id": "a", "gateway_group": "other"});
    let refused = post(address, "/api/dataplane/heartbeat", &foreign).await;
    assert!(refused["error_msg"].as_str().unwrap().contains("`other`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_keys_live_by_their_lease() {
    let address = serve(Arc::new(Memory::new()), Access::ReadOnly).await;
    let lease = post(address, "/v3/lease/grant", &json!({"TTL": 60})).await;
    let key = "L2FwaXNpeC9kYXRhX3BsYW5lL3NlcnZlcl9pbmZvLzE="; // /apisix/data_plane/server_info/1
    let put = json!({"key": key, "value": "e30=", "lease": lease["ID"]});
    assert!(post(address, "/v3/kv/put", &put).await["header"].is_object());
    assert_eq!(post(address, "/v3/kv/range", &json!({"key": key})).await["count"], "1");
    post(address, "/v3/lease/revoke", &json!({"ID": lease["ID"]})).await;
    assert_eq!(post(address, "/v3/kv/range", &json!({"key": key})).await["count"], Value::Null);
}
