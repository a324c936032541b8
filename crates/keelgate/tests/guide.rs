//! API7's guide to the letter: the configuration blocks it shows, in its order, on an S3 server of this machine.
//!
//! The one rule: the texts below are the guide's but for addresses and `endpoint` with `use_path_style`; what a user
//! of API7 has in his files must do here what it does there.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::http::Response;
use testkit::load::Plan;
use testkit::servers::{Moto, S3};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

const KEELGATE: &str = env!("CARGO_BIN_EXE_keelgate");

const LISTENERS: &str = "
apisix:
  node_listen: [{ ip: 127.0.0.1, port: {http} }]
  ssl: { enable: true, listen: [{ ip: 127.0.0.1, port: {https} }] }
  control: { ip: 127.0.0.1, port: {control} }
  status: { ip: 127.0.0.1, port: {status} }
plugin_attr:
  prometheus: { export_addr: { ip: 127.0.0.1, port: {prometheus} } }
";

const CONTROL_PLANE: &str = r#"
keelgate:
  dp_listen: { ip: 127.0.0.1, port: {dp}, tls_port: {dp_tls} }
deployment:
  role: control_plane
  admin:
    admin_listen: { ip: 127.0.0.1, port: {admin} }
    admin_key: [{ name: admin, key: "{key}", role: admin }]
fallback_cp:
  aws_s3:
    access_key: "@ACCESS@"
    secret_key: "@SECRET@"
    region: us-east-1
    config_bucket: gateway-config
    resource_bucket: gateway-resource
    endpoint: "@ENDPOINT@"
    use_path_style: true
  cron_spec: '@every 1s'
"#;

const FOLLOWING: &str = r#"
deployment:
  role: traditional
  role_traditional:
    config_provider: etcd
  admin:
    admin_listen: { ip: 127.0.0.1, port: {admin} }
    admin_key: [{ name: admin, key: "{key}", role: admin }]
  etcd:
    host:
      - "@CP@"
    prefix: "/apisix"
    timeout: 30
"#;

const STANDALONE: &str = r#"
deployment:
  role: data_plane
  role_data_plane:
    config_provider: yaml
  fallback_cp:
    mode: read
    aws_s3:
      access_key: "@ACCESS@"
      secret_key: "@SECRET@"
      region: us-east-1
      config_bucket: gateway-config
      resource_bucket: gateway-resource
      endpoint: "@ENDPOINT@"
      use_path_style: true
"#;

/// A whole file: the listeners, and a block with what it says about the storage filled in.
fn file(block: &str, s3: &S3) -> String {
    let block = block.replace("@ACCESS@", &s3.access_key).replace("@SECRET@", &s3.secret_key);
    format!("{LISTENERS}{}", block.replace("@ENDPOINT@", &s3.endpoint))
}

/// The two nodes of the guide, and what is around them.
struct Guide {
    upstream: Upstream,
    moto: Moto,
    cp: Gateway,
    dp: Gateway,
}

impl Guide {
    /// Up to the point where the guide has the control plane fail. `more` goes below the control plane's `fallback_cp`.
    async fn begin(more: &str) -> Self {
        let upstream = Upstream::start();
        let moto = Moto::start(&["gateway-config", "gateway-resource"]).await;
        let s3 = moto.client("root");
        let text = format!("{}{more}", file(CONTROL_PLANE, &s3));
        let mut cp = Gateway::control_plane(KEELGATE).yaml(&text);
        cp.start().await;
        let dp = Gateway::traditional(KEELGATE);
        let mut guide = Self { upstream, moto, cp, dp };
        guide.follow();
        guide.dp.start().await;
        let service = json!({ "name": "httpbin", "upstream": {
            "type": "roundrobin", "nodes": [{ "host": "127.0.0.1", "port": guide.upstream.port(), "weight": 1 }]
        }});
        guide.cp.put("services/httpbin", &service).await;
        let route = json!({ "name": "ip", "uri": "/ip", "methods": ["GET"], "service_id": "httpbin" });
        guide.cp.put("routes/ip", &route).await;
        guide.dp.serves("/ip").await;
        guide
    }

    fn follow(&mut self) {
        let cp = format!("http://127.0.0.1:{}", self.cp.ports().dp);
        let text = file(FOLLOWING, &self.moto.client("root")).replace("@CP@", &cp);
        self.dp.rewrite_config(&text);
    }

    fn stand_alone(&mut self) {
        let text = file(STANDALONE, &self.moto.client("root"));
        self.dp.rewrite_config(&text);
    }

    #[track_caller]
    fn reload(&self) {
        let output = self.dp.command(&["reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// An object as JSON, once it is there and says what is expected of it.
    async fn object(&self, bucket: &str, key: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let root = self.moto.root();
        eventually(SOON, format!("{key} in {bucket}"), async || {
            let bytes = root.get(bucket, key).await.map_err(|error| format!("{error:#}"))?;
            let value: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
            expect(holds(&value), &value).map(|_| value)
        })
        .await
    }

    /// Waits until the backup is whole: its pointer is written after all else.
    async fn backed_up(&self) -> Value {
        let full = |manifest: &Value| {
            let counts = &manifest["resource"]["counts"];
            counts["routes"] == 1 && counts["services"] == 1
        };
        self.object("gateway-config", "keelgate/default/manifest.json", full).await
    }

    async fn keys(&self, bucket: &str) -> Vec<String> {
        self.moto.root().list(bucket, "").await.unwrap()
    }
}

#[tokio::test]
async fn the_guide_from_beginning_to_end_without_a_failed_request() {
    let mut guide = Guide::begin("").await;
    guide.object("gateway-resource", "default", |it| it["routes"][0]["uri"] == "/ip").await;
    guide.object("gateway-config", "default", |it| it["config"]["config_payload"].is_object()).await;
    guide.backed_up().await;
    let load = Plan::new(guide.dp.url("/ip")).kept(4).start();
    load.more(200).await;

    guide.cp.kill9();
    load.more(200).await;
    guide.stand_alone();
    guide.reload();
    guide.dp.serves("/ip").await;
    guide.dp.source("bucket").await;
    load.more(200).await;

    guide.follow();
    guide.cp.start().await;
    guide.reload();
    guide.dp.source("control_plane").await;
    guide.cp.put("routes/get", &json!({ "uri": "/get", "service_id": "httpbin" })).await;
    guide.dp.serves("/get").await;
    load.more(200).await;
    load.stop().await.assert_clean(800);
}

#[tokio::test]
async fn a_reload_before_the_control_plane_is_back_costs_nothing_either() {
    let mut guide = Guide::begin("").await;
    guide.backed_up().await;
    let load = Plan::new(guide.dp.url("/ip")).kept(4).start();
    guide.cp.kill9();
    guide.stand_alone();
    guide.reload();
    guide.dp.source("bucket").await;
    guide.follow();
    guide.reload();
    guide.dp.config_when("no control plane", |view| view["cp"]["connected"] == false).await;
    load.more(200).await;
    guide.cp.start().await;
    guide.dp.source("control_plane").await;
    guide.cp.put("routes/get", &json!({ "uri": "/get", "service_id": "httpbin" })).await;
    guide.dp.serves("/get").await;
    load.stop().await.assert_clean(200);
}

#[tokio::test]
async fn a_standalone_data_plane_started_during_the_outage_serves_from_the_buckets() {
    let mut guide = Guide::begin("").await;
    guide.backed_up().await;
    guide.cp.kill9();
    let text = file(STANDALONE, &guide.moto.client("root"));
    let mut new = Gateway::data_plane(KEELGATE).yaml(&text);
    new.start().await;
    new.serves("/ip").await;
    new.source("bucket").await;
}

#[tokio::test]
async fn by_the_clock_alone_the_buckets_hold_just_what_is_promised() {
    let guide = Guide::begin("  on_change: false\n").await;
    let pointer = "keelgate/default/manifest.json";
    let manifest = guide.backed_up().await;
    let (sequence, part) = (&manifest["sequence"], |name: &str| manifest[name]["key"].as_str().unwrap());
    let named = |prefix: &str, name: &str, ending: &str| {
        let sha256 = manifest[name]["sha256"].as_str().unwrap();
        format!("keelgate/default/{prefix}/{sequence}-{sha256}{ending}")
    };
    assert_eq!(part("resource"), named("snapshots", "resource", ".json.zst"));
    assert_eq!(part("instance"), named("instance", "instance", ".json"));
    let newest = format!("keelgate/default/history/{sequence}.json");
    let (config, resource) = (guide.keys("gateway-config").await, guide.keys("gateway-resource").await);
    for key in ["default", pointer, &newest, part("instance")] {
        assert!(config.iter().any(|found| found == key), "{key} is missing: {config:?}");
    }
    for key in ["default", part("resource")] {
        assert!(resource.iter().any(|found| found == key), "{key} is missing: {resource:?}");
    }
    let folders = ["keelgate/default/history/", "keelgate/default/instance/", "keelgate/default/snapshots/"];
    let known =
        |key: &String| key == "default" || key == pointer || folders.iter().any(|f| key.starts_with(f));
    assert!(config.iter().chain(&resource).all(known), "{config:?} {resource:?}");

    // A tick that finds nothing new says so, and writes nothing else.
    let renewed = |now: &Value| now["verified_at"].as_str() > manifest["verified_at"].as_str();
    let later = guide.object("gateway-config", pointer, renewed).await;
    assert_eq!((&later["sequence"], &later["created_at"]), (sequence, &manifest["created_at"]));
    assert_eq!(
        (guide.keys("gateway-config").await, guide.keys("gateway-resource").await),
        (config, resource)
    );
}

#[tokio::test]
async fn the_admin_api_of_a_node_that_follows_refuses_writes_in_so_many_words() {
    let guide = Guide::begin("").await;
    // It may serve before its own Admin API has found the control plane.
    let found = async || {
        let answer = guide.dp.admin(Method::GET, "routes/ip", &Value::Null).await;
        expect(answer.status == 200, answer.text())?;
        Ok::<_, String>(answer.json())
    };
    let route = eventually(SOON, "the control plane's routes", found).await;
    assert_eq!(route["value"]["uri"], "/ip");
    let says = |answer: &Response| {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        body["error_msg"].as_str().map(str::to_owned).unwrap_or_default()
    };
    let route = json!({ "uri": "/mine", "service_id": "httpbin" });
    for (method, path) in [(Method::PUT, "routes/2"), (Method::POST, "routes"), (Method::PATCH, "routes/ip")]
    {
        let answer = guide.dp.admin(method.clone(), path, &route).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        assert!(says(&answer).contains("control plane"), "{method} {path}: {}", answer.text());
    }
    let answer = guide.dp.admin(Method::DELETE, "routes/ip", &Value::Null).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    guide.dp.serves("/ip").await;
}

#[tokio::test]
async fn what_api7_itself_wrote_is_read_in_both_its_forms() {
    let upstream = Upstream::start();
    let node = upstream.node();
    let yaml = format!(
        "routes:\n  - id: ip\n    uri: /ip\n    upstream:\n      type: roundrobin\n      nodes:\n        \"{node}\": 1\n#END\n"
    );
    let route =
        json!({ "id": "ip", "uri": "/ip", "upstream": { "type": "roundrobin", "nodes": { &*node: 1 } } });
    let instance = json!({ "config": { "config_version": 3, "config_payload": { "plugin_attr": {} } } });
    for (resources, instance) in [
        (yaml, Some("config_version: 3\nconfig_payload:\n  plugin_attr: {}\n".to_owned())),
        (json!({ "routes": [route] }).to_string(), Some(instance.to_string())),
        (json!({ "routes": [route] }).to_string(), None),
    ] {
        let moto = Moto::start(&["gateway-config", "gateway-resource"]).await;
        moto.root().put("gateway-resource", "default", resources.clone()).await.unwrap();
        if let Some(instance) = &instance {
            moto.root().put("gateway-config", "default", instance.clone()).await.unwrap();
        }
        let mut dp = Gateway::data_plane(KEELGATE).yaml(&file(STANDALONE, &moto.client("root")));
        dp.start().await;
        dp.serves("/ip").await;
        let view = dp.source("bucket").await;
        assert_eq!((&view["sequence"], &view["rejected"]), (&Value::Null, &json!([])), "{resources}");
    }
}
