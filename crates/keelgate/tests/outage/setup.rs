//! A control plane that writes backups, data planes that may fall back to them, and what runs through.

use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::load::{Load, Plan};
use testkit::servers::{Moto, S3};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

pub const KEELGATE: &str = env!("CARGO_BIN_EXE_keelgate");
pub const CONFIG: &str = "gateway-config";
pub const RESOURCE: &str = "gateway-resource";
pub const MANIFEST: &str = "keelgate/default/manifest.json";

/// An S3 server with both buckets.
pub async fn storage() -> Moto {
    Moto::start(&[CONFIG, RESOURCE]).await
}

/// The `aws_s3` block of a client.
pub fn aws_s3(client: &S3) -> Value {
    json!({
        "access_key": client.access_key, "secret_key": client.secret_key, "region": client.region,
        "config_bucket": CONFIG, "resource_bucket": RESOURCE,
        "endpoint": client.endpoint, "use_path_style": true,
    })
}

/// A control plane that backs up soon after each change.
pub fn control_plane(moto: &Moto) -> Gateway {
    let s3 = aws_s3(&moto.client("root"));
    let fallback = json!({ "aws_s3": s3, "cron_spec": "@every 1m", "on_change": true, "debounce": "50ms" });
    Gateway::control_plane(KEELGATE).with(json!({ "fallback_cp": fallback }))
}

/// A data plane in automatic mode, with less patience than by default.
pub fn data_plane(cp: &Gateway, moto: &Moto) -> Gateway {
    falling_back(Gateway::data_plane(KEELGATE).follow(cp), moto)
}

/// Gives a data plane a backup to fall back to.
pub fn falling_back(dp: Gateway, moto: &Moto) -> Gateway {
    let fallback = json!({
        "mode": "read", "aws_s3": aws_s3(&moto.client("root")),
        "startup_grace": "1s", "fallback_after": "1s", "poll_interval": "200ms",
    });
    dp.with(json!({ "deployment": { "fallback_cp": fallback } }))
}

/// The service and the route of API7's guide.
pub async fn publish(cp: &Gateway, upstream: &Upstream) {
    let service = json!({ "upstream": { "type": "roundrobin", "nodes": { upstream.node(): 1 } } });
    cp.put("services/httpbin", &service).await;
    route(cp, "ip", "/ip").await;
}

/// A route to that service.
pub async fn route(cp: &Gateway, id: &str, uri: &str) {
    cp.put(&format!("routes/{id}"), &json!({ "uri": uri, "service_id": "httpbin" })).await;
}

/// Waits until the backup is proved to hold so many resources, and gives its manifest.
pub async fn backed_up(cp: &Gateway, moto: &Moto, resources: u64) -> Value {
    cp.config_when("a verified backup", |view| {
        let backup = &view["backup"];
        backup["pending"] == false && backup["backends"][0]["verified"] == true
    })
    .await;
    eventually(SOON, format!("a backup of {resources} resources"), async || {
        let manifest = manifest(moto).await;
        expect(counted(&manifest) == resources, &manifest)?;
        Ok::<_, String>(manifest)
    })
    .await
}

/// What `manifest.json` says.
pub async fn manifest(moto: &Moto) -> Value {
    let bytes = moto.root().get(CONFIG, MANIFEST).await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn counted(manifest: &Value) -> u64 {
    let counts = manifest["resource"]["counts"].as_object();
    counts.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

/// Waits until what a data plane serves is on its disk too: that takes up to a second, beside the work.
pub async fn kept_on_disk(dp: &Gateway) {
    let header = dp.data_dir().join("last_good/current.json");
    eventually(SOON, "what is served, on disk", async || {
        let view = dp.config_view().await.map_err(|error| format!("{error:#}"))?;
        let (kept, digest) = (std::fs::read_to_string(&header).unwrap_or_default(), view["digest"].as_str());
        expect(digest.is_some_and(|digest| !digest.is_empty() && kept.contains(digest)), kept.clone())
    })
    .await;
}

/// Load on `/ip`: kept connections and new ones.
pub fn load(dp: &Gateway) -> Load {
    Plan::new(dp.url("/ip")).kept(6).start()
}

/// Waits until a metric has a value.
pub async fn metric(node: &Gateway, name: &str, value: f64) {
    eventually(SOON, format!("{name} {value}"), async || {
        let found = node.metric(name).await.map_err(|error| format!("{error:#}"))?;
        expect(found == Some(value), format!("{found:?}"))
    })
    .await;
}

/// Runs a command on a node, which must succeed, and gives what it prints.
#[track_caller]
pub fn keelgate(node: &Gateway, args: &[&str]) -> String {
    let output = node.command(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
