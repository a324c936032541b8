//! A secret manager is dead, refuses, and is asked with a wrong token, while requests go on and nodes are restarted.

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::http::request;
use testkit::load::{Load, Plan};
use testkit::secret_manager::{Kind, SECRET, SecretManager};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::setup::{KEELGATE, kept_on_disk, metric};

const REFERENCE: &str = "$secret://vault/1/ann/key";
const FAILING: &str = "keelgate_secrets_failing{manager=\"vault/1\"}";

fn manager(vault: &SecretManager, token: &str) -> Value {
    json!({ "uri": vault.url(), "prefix": "kv", "token": token })
}

fn as_ann(dp: &Gateway) -> Load {
    Plan::new(dp.url("/ip")).header("apikey", "key-of-ann").kept(2).start()
}

async fn status(dp: &Gateway, key: &str) -> u16 {
    request(Method::GET, &dp.url("/ip"), &[("apikey", key)], "").await.map_or(0, |answer| answer.status)
}

#[tokio::test]
async fn the_last_values_serve_through_an_outage_and_a_restart_in_it() {
    let (vault, upstream) = (SecretManager::start(Kind::Vault), Upstream::start());
    vault.set("kv/ann", &json!({ "key": "key-of-ann" }));
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    dp.merge_config(json!({ "apisix": { "lru": { "secret": { "ttl": 1, "neg_ttl": 1 } } } }));
    dp.start().await;
    cp.put("secrets/vault/1", &manager(&vault, SECRET)).await;
    cp.put("consumers", &json!({ "username": "ann", "plugins": { "key-auth": { "key": REFERENCE } } })).await;
    let upstream = json!({ "type": "roundrobin", "nodes": { upstream.node(): 1 } });
    cp.put("routes/ip", &json!({ "uri": "/ip", "plugins": { "key-auth": {} }, "upstream": upstream })).await;
    eventually(SOON, "ann to be let in", async || {
        let status = status(&dp, "key-of-ann").await;
        expect(status == 200, status)
    })
    .await;
    kept_on_disk(&dp).await;
    let file = dp.data_dir().join("secrets.json");
    eventually(SOON, "the secret on disk", async || expect(file.exists(), "none")).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("key-of-ann"));

    // It refuses, then it is dead: both are told, and no request notices.
    let load = as_ann(&dp);
    metric(&dp, FAILING, 0.0).await;
    vault.refuse(Some(503));
    metric(&dp, FAILING, 1.0).await;
    vault.refuse(None);
    metric(&dp, FAILING, 0.0).await;
    cp.put("secrets/vault/1", &manager(&vault, "wrong")).await;
    let view = dp.config_when("the refusal", |view| told(view, "status 403: permission denied")).await;
    assert_eq!(view["rejected"], json!([]), "the last value stays");
    vault.stop();
    dp.config_when("the outage", |view| told(view, "Connection refused")).await;
    let report = load.stop().await;
    assert_eq!(report.failed, 0, "{:?}", report.failures);

    // Restarted with everything around it dead, it still knows whom to let in, and whom not.
    cp.kill9();
    kept_on_disk(&dp).await;
    dp.kill9();
    dp.start().await;
    let load = as_ann(&dp);
    for (key, expected) in [("key-of-ann", 200), ("another", 401), (REFERENCE, 401)] {
        assert_eq!(status(&dp, key).await, expected, "{key}");
    }
    load.more(100).await;
    let report = load.stop().await;
    assert_eq!(report.failed, 0, "{:?}", report.failures);

    // All of it comes back, with another key.
    vault.set("kv/ann", &json!({ "key": "key-of-ann-renewed" }));
    vault.restart();
    cp.start().await;
    cp.put("secrets/vault/1", &manager(&vault, SECRET)).await;
    eventually(SOON, "the new key to be let in", async || {
        let status = status(&dp, "key-of-ann-renewed").await;
        expect(status == 200, status)
    })
    .await;
    assert_eq!(status(&dp, "key-of-ann").await, 401);

    // A damaged file is as none.
    dp.stop().await;
    std::fs::write(&file, "{\"format\":1,\"sealed\":\"$kg1$AAAA\"}").unwrap();
    dp.start().await;
    assert_eq!(status(&dp, "key-of-ann-renewed").await, 200);
    assert!(dp.process().log().contains("the kept secrets can't be read"));
    assert!(!dp.process().log().contains("key-of-ann"));
}

fn told(view: &Value, text: &str) -> bool {
    view["secrets"]["vault/1"]["last_error"].as_str().is_some_and(|error| error.contains(text))
}
