//! What must not be read by whoever can read the bucket, and what must not be believed of whoever can write it.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::gateway::Gateway;
use testkit::http::{Options, request, request_with};
use testkit::secret_manager::{Kind, SECRET, SecretManager};
use testkit::upstream::Upstream;

use crate::setup::*;

const KEY_OF_ANN: &str = "the-key-of-ann-in-clear";
const KEY_OF_BOB: &str = "the-key-of-bob-in-vault";

#[tokio::test]
async fn secrets_lie_encrypted_and_are_served_from_the_backup_alone() {
    let (upstream, mut moto, ca) = (Upstream::start(), storage().await, Ca::new("keel"));
    let encryption = json!({ "enable_encrypt_fields": true, "keyring": ["sixteen-letters!"] });
    let mut cp = control_plane(&moto).with(json!({ "apisix": { "data_encryption": encryption } }));
    cp.start().await;
    publish(&cp, &upstream).await;
    let pair = ca.server(&["shop.test"]);
    cp.put("ssls/1", &json!({ "cert": pair.cert, "key": pair.key, "snis": ["shop.test"] })).await;
    let ann = json!({ "username": "ann", "plugins": { "key-auth": { "key": KEY_OF_ANN } } });
    cp.put("consumers", &ann).await;
    let route = json!({ "uri": "/get", "service_id": "httpbin", "plugins": { "key-auth": {} } });
    cp.put("routes/get", &route).await;
    // What a manager is asked with is plain in the store, as in APISIX's, and nowhere else.
    let vault = SecretManager::start(Kind::Vault);
    vault.set("kv/bob", &json!({ "key": KEY_OF_BOB }));
    let manager = json!({ "uri": vault.url(), "prefix": "kv", "token": SECRET });
    cp.put("secrets/vault/1", &manager).await;
    let bob = json!({ "username": "bob", "plugins": { "key-auth": { "key": "$secret://vault/1/bob/key" } } });
    cp.put("consumers", &bob).await;
    backed_up(&cp, &moto, 7).await;
    let root = moto.root();
    for key in root.list(RESOURCE, "").await.unwrap() {
        let bytes = root.get(RESOURCE, &key).await.unwrap();
        let plain = if key.ends_with(".zst") { zstd::decode_all(&*bytes).unwrap() } else { bytes.to_vec() };
        let text = String::from_utf8(plain).unwrap();
        assert!(!text.contains(KEY_OF_ANN) && !text.contains("PRIVATE KEY"), "{key}");
        assert!(!text.contains(SECRET), "{key}");
        assert!(!text.contains("sixteen-letters!"), "the keyring lies with what it locks: {key}");
    }
    cp.kill9();

    // It knows the keyring from the config bucket, and then from its own disk.
    let mut dp = data_plane(&cp, &moto);
    dp.start().await;
    dp.source("bucket").await;
    serves_secrets(&dp, &ca).await;
    moto.kill9();
    dp.restart().await;
    dp.source("disk").await;
    serves_secrets(&dp, &ca).await;
    assert_eq!(dp.config_view().await.unwrap()["rejected"], json!([]));
}

async fn serves_secrets(dp: &Gateway, ca: &Ca) {
    let to = Some(([127, 0, 0, 1], dp.ports().https).into());
    let options = Options { to, ca: Some(ca.pem()), ..Options::default() };
    let answer = request_with(&options, Method::GET, "https://shop.test/ip", &[], "").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (key, status) in [(KEY_OF_ANN, 200), (KEY_OF_BOB, 200), ("another", 401)] {
        let answer = request(Method::GET, &dp.url("/get"), &[("apikey", key)], "").await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[tokio::test]
async fn only_what_a_trusted_key_has_signed_is_believed() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    let (private, public) = key_pair(cp.home(), "cp");
    let (_, other) = key_pair(cp.home(), "other");
    cp.merge_config(json!({ "fallback_cp": { "signing": { "private_key_file": private } } }));
    cp.start().await;
    publish(&cp, &upstream).await;
    let signed = backed_up(&cp, &moto, 2).await;
    assert!(signed["signature"]["sig"].is_string(), "{signed}");
    let trusting = |key: &str| {
        let trust = json!({ "public_keys": [key], "require_signature": true });
        let more = json!({ "deployment": { "fallback_cp": { "trust": trust } } });
        falling_back(Gateway::new(KEELGATE, "data_plane", "yaml"), &moto).with(more)
    };
    let mut dp = trusting(&public);
    dp.start().await;
    dp.serves("/ip").await;
    let mut stranger = trusting(&other);
    stranger.spawn();
    let view = says(&stranger, "which is not in `trust.public_keys`").await;
    assert_eq!(view["source"], "none");

    let mut forged = signed.clone();
    forged["sequence"] = (signed["sequence"].as_u64().unwrap() + 1).into();
    for (signature, why) in [
        (signed["signature"].clone(), "it was changed after it was signed"),
        (Value::Null, "the manifest is not signed"),
    ] {
        forged["signature"] = signature;
        moto.root().put(CONFIG, MANIFEST, forged.to_string()).await.unwrap();
        says(&dp, why).await;
        assert_eq!(dp.get("/ip").await.unwrap().status, 200);
    }
    route(&cp, "get", "/get").await;
    dp.serves("/get").await;
}

async fn says(dp: &Gateway, why: &str) -> Value {
    let told = |view: &Value| view["bucket"]["last_error"].as_str().is_some_and(|it| it.contains(why));
    dp.config_when(format!("`{why}` as the last error"), told).await
}

/// The file of a private key, and the public one.
fn key_pair(folder: &Path, name: &str) -> (std::path::PathBuf, String) {
    let file = folder.join(format!("{name}.key"));
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", file.to_str().unwrap()]);
    let public = openssl(&["pkey", "-in", file.to_str().unwrap(), "-pubout"]);
    (file, public)
}
