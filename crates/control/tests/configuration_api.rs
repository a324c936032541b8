//! The configuration API as its clients see it: our own etcd client, stock etcdctl, APISIX's JSON.

#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};

use control::etcd::{Access, Config, instances::Instances, mirror::Mirror, router};
use model::{InstanceEnvelope, Key, Kind};
use serde_json::{Value, json};
use store::{Commit, Etcd, Store, memory::Memory, suite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_the_default_and_what_is_nowhere_is_404() {
    let store = Arc::new(Memory::new());
    store.commit(Commit::put(route("1"), "{}")).await.unwrap();
    let address = serve(store, Access::ReadOnly).await;
    let mut asked = range(b"/apisix/routes/1", b"", 0, 0);
    for field in ["range_end", "limit", "revision", "serializable", "sort_order"] {
        asked[field] = Value::Null;
    }
    assert_eq!(post(address, "/v3/kv/range", &asked).await["count"], "1");
    for (path, kind, status, grpc) in [
        ("/v3/nothing", "application/json", 404, ""),
        ("/", "", 404, ""),
        ("/etcdserverpb.KV/Nothing", "application/grpc", 200, "12"),
    ] {
        let (url, headers) = (format!("http://{address}{path}"), [("content-type", kind)]);
        let answer = testkit::http::request(http::Method::POST, &url, &headers, "").await.unwrap();
        assert_eq!((answer.status, answer.header("grpc-status")), (status, grpc), "{path}");
    }
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
    let mut watch = JsonWatch::start(address, 3).await;
    watch.read(r#""created":true"#).await;
    store.commit(Commit::put(route("1"), "{\"uri\":\"/\"}")).await.unwrap();
    // base64 of `/apisix/routes/1`
    watch.read("L2FwaXNpeC9yb3V0ZXMvMQ==").await;
    store.commit(Commit::delete(route("1"))).await.unwrap();
    watch.read(r#""type":"DELETE""#).await;
}

/// A watch as lua-resty-etcd makes it.
struct JsonWatch {
    stream: tokio::net::TcpStream,
    seen: String,
}

impl JsonWatch {
    async fn start(address: SocketAddr, revision: u64) -> Self {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // Key `/apisix/`, end `/apisix0`.
        let body = json!({"create_request":
            {"key": "L2FwaXNpeC8=", "range_end": "L2FwaXNpeDA=", "start_revision": revision}})
        .to_string();
        let head = format!("POST /v3/watch HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        Self { stream, seen: String::new() }
    }

    async fn read(&mut self, until: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(until) {
            let wait = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut buffer));
            let seen = &mut self.seen;
            let count = wait.await.unwrap_or_else(|_| panic!("`{until}` did not come: {seen}")).unwrap();
            assert_ne!(count, 0, "the watch ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    /// The first line of JSON with this in it.
    fn line(&self, with: &str) -> Value {
        let line = self.seen.lines().find(|line| line.contains(with));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no {with} in {}", self.seen))).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_from_where_a_watch_goes_on() {
    let store = Arc::new(Memory::new());
    for value in ["{}", "{\"a\":1}"] {
        store.commit(Commit::put(route("0"), value)).await.unwrap();
    }
    let address = serve(store.clone(), Access::ReadOnly).await;
    let mut late = JsonWatch::start(address, 2).await;
    late.read("compact_revision").await;
    let told = late.line("compact_revision");
    assert_eq!(told["result"]["canceled"], true, "{told}");
    // APISIX watches from there on without looking back: told the same again, it would never end.
    let revision = told["result"]["compact_revision"].as_str().unwrap().parse().unwrap();
    let mut watch = JsonWatch::start(address, revision).await;
    watch.read(r#""created":true"#).await;
    store.commit(Commit::put(route("1"), "{}")).await.unwrap();
    watch.read("L2FwaXNpeC9yb3V0ZXMvMQ==").await;
    assert!(!watch.seen.contains("canceled"), "{}", watch.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_bounded_sorted_and_counted_as_etcd_does() {
    let store = Arc::new(Memory::new());
    for id in ["c", "a", "b"] {
        store.commit(Commit::put(route(id), format!("{{\"id\":\"{id}\"}}"))).await.unwrap();
    }
    let address = serve(store.clone(), Access::ReadOnly).await;
    let ask = async |with: Value| {
        let mut body = range(b"/apisix/routes/a", b"/apisix/routes/z", 0, 0);
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let answer = post(address, "/v3/kv/range", &body).await;
        let keys: Vec<String> = answer["kvs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|kv| kv["mod_revision"].as_str().unwrap().to_owned())
            .collect();
        (keys.join(" "), answer["count"].as_str().unwrap().to_owned(), answer["more"] == true)
    };
    let all = |keys: &str, more| (keys.to_owned(), "3".to_owned(), more);
    // Written at 2, 3 and 4.
    assert_eq!(ask(json!({})).await, all("3 4 2", false));
    assert_eq!(ask(json!({"limit": 3})).await, all("3 4 2", false));
    assert_eq!(ask(json!({"limit": 2})).await, all("3 4", true));
    assert_eq!(ask(json!({"sort_target": "MOD"})).await, all("2 3 4", false));
    assert_eq!(ask(json!({"sort_order": "DESCEND", "limit": 1})).await, all("2", true));
    let by_value = json!({"sort_target": "VALUE", "sort_order": "DESCEND", "keys_only": true});
    assert_eq!(ask(by_value).await, all("2 4 3", false));
    // What bounds leave out is counted, but there is no more of it to come.
    assert_eq!(ask(json!({"min_mod_revision": 3, "limit": 2})).await, all("3 4", false));
    assert_eq!(ask(json!({"count_only": true, "limit": 1})).await, all("", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_of_data_planes_are_answered_as_etcd_does() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let address = serve(Arc::new(Memory::new()), Access::ReadOnly).await;
    let put = async |key: &str, with: Value| {
        let mut body = json!({"key": STANDARD.encode(key)});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        post(address, "/v3/kv/put", &body).await
    };
    let own = "/apisix/data_plane/a";
    assert_eq!(put(own, json!({"ignore_value": true})).await["error"], "etcdserver: key not found");
    assert!(put(own, json!({"value": STANDARD.encode("1")})).await["header"].is_object());
    let kept = put(own, json!({"ignore_value": true, "prev_kv": true})).await;
    assert_eq!(kept["prev_kv"]["value"], STANDARD.encode("1"), "{kept}");
    let read = post(address, "/v3/kv/range", &json!({"key": STANDARD.encode(own)})).await;
    assert_eq!(read["kvs"][0]["value"], STANDARD.encode("1"), "{read}");
    let both = put(own, json!({"ignore_value": true, "value": STANDARD.encode("2")})).await;
    assert_eq!(both["error"], "etcdserver: value is provided");
    // What `apisix init_etcd` writes is there already; everything else is the Admin API's.
    assert!(
        put("/apisix/routes/", json!({"value": STANDARD.encode("init_dir")})).await["header"].is_object()
    );
    let refused = put("/apisix/routes/1", json!({"value": STANDARD.encode("{}")})).await;
    assert!(refused["error"].as_str().unwrap().starts_with("etcdserver: permission denied"), "{refused}");
    // A key that is not there equals no value, and differs from none.
    for result in ["EQUAL", "NOT_EQUAL"] {
        let compare =
            json!({"key": STANDARD.encode("/apisix/routes/9"), "target": "VALUE", "result": result});
        let answer = post(address, "/v3/kv/txn", &json!({ "compare": [compare] })).await;
        assert_eq!(answer["succeeded"], Value::Null, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_on_one_stream_have_ids_as_in_etcd() {
    use store::etcd::proto::{
        WatchCreateRequest, WatchRequest, watch_client::WatchClient, watch_request::RequestUnion,
    };
    let store = Arc::new(Memory::new());
    let address = serve(store.clone(), Access::ReadOnly).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = WatchClient::new(channel.connect().await.unwrap());
    let create = |watch_id| WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: "/apisix/".into(),
            range_end: "/apisix0".into(),
            watch_id,
            ..Default::default()
        })),
    };
    // The stream of questions ends with the last of them: the answers go on.
    let requests = tokio_stream::iter([create(0), create(0), create(7), create(7)]);
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    let mut created = Vec::new();
    for _ in 0..4 {
        let answer = answers.message().await.unwrap().unwrap();
        assert!(answer.created);
        created.push((answer.watch_id, answer.canceled));
    }
    created.sort_unstable();
    assert_eq!(created, [(-1, true), (0, false), (1, false), (7, false)]);
    store.commit(Commit::put(route("1"), "{}")).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(answers.message().await.unwrap().unwrap().watch_id);
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1, 7]);
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
