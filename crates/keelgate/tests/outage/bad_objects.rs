//! What lies in the bucket and must not be believed, or not all of it: refused in so many words, while the data
//! plane serves on, and forgotten as soon as a good publication follows.

use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::gateway::Gateway;
use testkit::load::Load;
use testkit::servers::Moto;
use testkit::upstream::Upstream;

use crate::setup::*;

/// A data plane that follows the bucket alone, one step behind a control plane that is alive and publishes.
struct Scene {
    upstream: Upstream,
    moto: Moto,
    cp: Gateway,
    dp: Gateway,
    load: Load,
    /// Resources in the last good publication.
    good: u64,
}

impl Scene {
    async fn begin() -> Self {
        let (upstream, moto) = (Upstream::start(), storage().await);
        let mut cp = control_plane(&moto);
        cp.start().await;
        publish(&cp, &upstream).await;
        backed_up(&cp, &moto, 2).await;
        let mut dp = falling_back(Gateway::new(KEELGATE, "data_plane", "yaml"), &moto);
        dp.start().await;
        dp.serves("/ip").await;
        let load = load(&dp);
        Self { upstream, moto, cp, dp, load, good: 2 }
    }

    /// Puts a publication after the newest one into the bucket, such as `change` makes it of that one's manifest and
    /// `apisix.json`. It gives what to write as the snapshot.
    async fn forge(&self, change: impl FnOnce(&mut Value, Vec<u8>) -> Vec<u8>) {
        let mut forged = manifest(&self.moto).await;
        // The mirror is the control plane's still, whatever was forged before.
        let plain = self.moto.root().get(RESOURCE, "default").await.unwrap();
        forged["sequence"] = (forged["sequence"].as_u64().unwrap() + 1).into();
        forged["resource"]["key"] = "keelgate/default/snapshots/forged.json.zst".into();
        let packed = change(&mut forged, plain.to_vec());
        self.moto.root().put(RESOURCE, "keelgate/default/snapshots/forged.json.zst", packed).await.unwrap();
        self.point(forged.to_string()).await;
    }

    async fn point(&self, manifest: impl Into<bytes::Bytes>) {
        self.moto.root().put(CONFIG, MANIFEST, manifest).await.unwrap();
    }

    /// Waits until the data plane says why it does not take what is there, and makes sure that it serves on.
    async fn refused(&self, why: &str) {
        let told = |view: &Value| view["bucket"]["last_error"].as_str().is_some_and(|it| it.contains(why));
        let view = self.dp.config_when(format!("`{why}` as the last error"), told).await;
        assert_eq!((&view["resources"], &view["rejected"]), (&self.good.into(), &json!([])), "{view}");
        self.load.more(20).await;
        assert_eq!(self.load.failed(), 0, "{}", self.load.report());
    }

    /// The control plane publishes again, and all is well.
    async fn recovers(&mut self) {
        self.good += 1;
        let path = format!("/anything/{}", self.good);
        route(&self.cp, &self.good.to_string(), &path).await;
        self.dp.serves(&path).await;
        let well = |view: &Value| view["bucket"]["last_error"].is_null() && view["rejected"] == json!([]);
        self.dp.config_when("no error any more", well).await;
        self.load.more(20).await;
    }

    async fn end(self) {
        self.load.stop().await.assert_clean(40);
    }
}

/// As the exporter writes a snapshot, with an honest manifest.
fn sealed(manifest: &mut Value, plain: &[u8]) -> Vec<u8> {
    let packed = zstd::encode_all(plain, 1).unwrap();
    manifest["resource"]["plain_size"] = plain.len().into();
    signed_off(manifest, &packed);
    packed
}

fn signed_off(manifest: &mut Value, packed: &[u8]) {
    manifest["resource"]["size"] = packed.len().into();
    manifest["resource"]["sha256"] = hex::encode(Sha256::digest(packed)).into();
}

#[tokio::test]
async fn torn_and_damaged_snapshots_are_refused() {
    let mut scene = Scene::begin().await;
    scene
        .forge(|manifest, plain| {
            let mut packed = sealed(manifest, &plain);
            packed.truncate(packed.len() / 2);
            packed
        })
        .await;
    scene.refused("it is torn").await;
    scene
        .forge(|manifest, plain| {
            let mut packed = sealed(manifest, &plain);
            let middle = packed.len() / 2;
            packed[middle] ^= 1;
            packed
        })
        .await;
    scene.refused("it was damaged or changed").await;
    scene.recovers().await;
    scene.end().await;
}

#[tokio::test]
async fn manifests_of_others_and_of_yesterday_are_refused() {
    let mut scene = Scene::begin().await;
    let good = manifest(&scene.moto).await;
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed.to_string()
    };
    scene.point(with("group", "other".into())).await;
    scene.refused("the backup is of group `other`, wanted is `default`").await;
    scene.point(with("sequence", 0.into())).await;
    scene.refused("refused as a replay").await;
    scene.point(with("format", 99.into())).await;
    scene.refused("upgrade this node").await;
    let text = good.to_string();
    scene.point(text[..text.len() / 2].to_owned()).await;
    scene.refused("the manifest can't be read").await;
    scene.point(good.to_string()).await;
    scene.recovers().await;
    scene.end().await;
}

#[tokio::test]
async fn what_is_too_large_is_not_read_let_alone_unpacked() {
    let mut scene = Scene::begin().await;
    let before = scene.dp.process().resident_bytes();
    let zeros = vec![0; 100 << 20];
    scene.point(zeros.clone()).await;
    scene.refused("the manifest is larger than 1048576 bytes").await;
    scene.recovers().await;
    // A manifest that says so is honest, and still no snapshot.
    scene
        .forge(|manifest, _| {
            manifest["resource"]["plain_size"] = zeros.len().into();
            signed_off(manifest, &zeros);
            zeros
        })
        .await;
    scene.refused("the snapshot can't be read").await;
    for announced in [1 << 20, 1_u64 << 40] {
        scene
            .forge(|manifest, _| {
                let bomb = bomb(2 << 30);
                manifest["resource"]["plain_size"] = announced.into();
                signed_off(manifest, &bomb);
                bomb
            })
            .await;
        scene.refused("the snapshot is larger than").await;
    }
    let grown = scene.dp.process().resident_bytes().saturating_sub(before);
    assert!(grown < 300 << 20, "it takes {} MiB more than before", grown >> 20);
    scene.recovers().await;
    scene.end().await;
}

/// So many zeros, packed to next to nothing.
fn bomb(zeros: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..zeros / piece.len() {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_another_version_added_is_passed_over_and_the_rest_is_served() {
    let mut scene = Scene::begin().await;
    scene
        .forge(|manifest, plain| {
            let mut resources: Value = serde_json::from_slice(&plain).unwrap();
            let routes = resources["routes"].as_array_mut().unwrap();
            routes[0]["from_the_future"] = json!({ "a": 1 });
            routes.push(json!({ "id": "new", "uri": "/get", "service_id": "httpbin", "also": [1] }));
            resources["teleporters"] = json!([{ "id": "1" }]);
            manifest["also"] = json!({ "new": true });
            sealed(manifest, resources.to_string().as_bytes())
        })
        .await;
    scene.dp.serves("/get").await;
    scene.dp.serves("/ip").await;
    let view = scene.dp.config_view().await.unwrap();
    assert_eq!(view["bucket"]["last_error"], Value::Null, "{view}");
    scene.good += 1;
    scene.recovers().await;
    scene.end().await;
}

#[tokio::test]
async fn a_route_that_can_not_be_built_costs_no_other_and_keeps_its_last_good_form() {
    let mut scene = Scene::begin().await;
    scene
        .forge(|manifest, plain| {
            let mut resources: Value = serde_json::from_slice(&plain).unwrap();
            let routes = resources["routes"].as_array_mut().unwrap();
            routes[0]["plugins"] = json!({ "from-the-future": {} });
            routes.push(json!({ "id": "get", "uri": "/get", "service_id": "httpbin" }));
            let unknown = json!({ "from-the-future": {} });
            routes
                .push(json!({ "id": "bad", "uri": "/headers", "service_id": "httpbin", "plugins": unknown }));
            sealed(manifest, resources.to_string().as_bytes())
        })
        .await;
    scene.dp.serves("/get").await;
    let view = scene.dp.config_view().await.unwrap();
    let mut rejected = view["rejected"].as_array().unwrap().clone();
    rejected.sort_by_key(|one| one["id"].to_string());
    let shown = |one: &Value| (one["kind"].clone(), one["id"].clone(), one["serving_stale"].clone());
    let routes = |id: &str, stale: bool| (json!("routes"), json!(id), json!(stale));
    assert_eq!(rejected.iter().map(shown).collect::<Vec<_>>(), [routes("bad", false), routes("ip", true)]);
    let why = rejected[0]["reason"].as_str().unwrap();
    assert!(why.contains("from-the-future"), "{why}");
    assert!(keelgate(&scene.dp, &["status"]).contains("its last good form is served"));
    metric(&scene.dp, "keelgate_config_rejected", 2.0).await;
    assert_eq!(scene.dp.get("/ip").await.unwrap().status, 200, "the last good form");
    // Not 404: a broader route might let its requests past the plugin that is missing.
    assert_eq!(scene.dp.get("/headers").await.unwrap().status, 503, "a route that never was good");
    scene.recovers().await;
    assert_eq!(scene.dp.get("/get").await.unwrap().status, 404, "the store never had it");
    scene.end().await;
}

#[tokio::test]
async fn a_node_that_starts_on_a_damaged_backup_takes_the_newest_whole_one() {
    let mut scene = Scene::begin().await;
    scene.recovers().await;
    let newest = backed_up(&scene.cp, &scene.moto, scene.good).await;
    let key = newest["resource"]["key"].as_str().unwrap();
    scene.moto.root().corrupt(RESOURCE, key, |bytes| bytes.truncate(10)).await.unwrap();
    let mut new = falling_back(Gateway::new(KEELGATE, "data_plane", "yaml"), &scene.moto);
    new.start().await;
    let view = new.config_view().await.unwrap();
    assert!(view["sequence"].as_u64() < newest["sequence"].as_u64(), "{view}");
    let told = view["bucket"]["last_error"].as_str().unwrap_or_default();
    assert!(told.contains("it is torn"), "{view}");
    new.serves("/ip").await;
    // The control plane repairs it without anything having changed.
    keelgate(&scene.cp, &["backup", "now"]);
    new.config_when("the newest", |view| view["sequence"].as_u64() > newest["sequence"].as_u64()).await;
    assert!(scene.upstream.requests() > 0);
    scene.end().await;
}
