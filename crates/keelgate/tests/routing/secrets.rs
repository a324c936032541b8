//! Secrets that the configuration refers to: in Vault, at AWS (moto), with Google, in the environment.

use http::Method;
use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::gateway::{Gateway, SOON};
use testkit::http::{Options, request, request_with};
use testkit::secret_manager::{Kind, SECRET, SecretManager};
use testkit::servers::Moto;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::{Node, to};

/// Asks again soon.
fn often() -> Value {
    json!({ "apisix": { "lru": { "secret": { "ttl": 1, "neg_ttl": 1 } } } })
}

fn consumer(name: &str, key: &str) -> (String, Value) {
    (format!("consumers/{name}"), json!({ "username": name, "plugins": { "key-auth": { "key": key } } }))
}

/// Whom the gateway takes the bearer of a key for: the status of its answer.
async fn status(node: &Gateway, key: &str) -> u16 {
    let headers = [("apikey", key)];
    request(Method::GET, &node.url("/ip"), &headers, "").await.map_or(0, |answer| answer.status)
}

async fn lets_in(node: &Gateway, key: &str) {
    eventually(SOON, "the key to be let in", async || {
        let status = status(node, key).await;
        expect(status == 200, status)
    })
    .await;
}

#[tokio::test]
async fn consumers_by_every_manager_and_by_the_environment() {
    let (vault, gcp) = (SecretManager::start(Kind::Vault), SecretManager::start(Kind::Gcp));
    let (moto, upstream) = (Moto::start(&[]).await, Upstream::start());
    vault.set("kv/teams/jack", &json!({ "auth-key": "key-of-jack-at-vault" }));
    gcp.set("rose", &json!("{\"auth-key\": \"key-of-rose-with-google\"}"));
    moto.put_secret("teams/tom", "{\"auth-key\": \"key-of-tom-at-aws\"}").await;
    moto.put_secret("teams/tim/whole", "key-of-tim-at-aws").await;
    let aws = moto.client("root");
    let mut gateway = Gateway::traditional(env!("CARGO_BIN_EXE_keelgate"))
        .with(often())
        .env("KEY_OF_ANN", "key-of-ann-here")
        .env("KEYS", r#"{"eve": "key-of-eve-here"}"#)
        .env("VAULT_TOKEN", SECRET);
    gateway.start().await;
    let node = Node::of(gateway);
    let managers = [
        ("secrets/vault/1", json!({ "uri": vault.url(), "prefix": "kv", "token": "$ENV://VAULT_TOKEN" })),
        ("secrets/gcp/1", json!({ "auth_config": gcp.account() })),
        (
            "secrets/aws/1",
            json!({
                "access_key_id": aws.access_key, "secret_access_key": aws.secret_key, "endpoint_url": aws.endpoint,
            }),
        ),
    ];
    node.has(&managers).await;
    let references = [
        ("jack", "$secret://vault/1/teams/jack/auth-key", "key-of-jack-at-vault"),
        ("rose", "$secret://gcp/1/rose/auth-key", "key-of-rose-with-google"),
        ("tom", "$secret://aws/1/teams/tom/auth-key", "key-of-tom-at-aws"),
        ("tim", "$secret://aws/1/teams/tim/whole", "key-of-tim-at-aws"),
        ("ann", "$env://KEY_OF_ANN", "key-of-ann-here"),
        ("eve", "$ENV://KEYS/eve", "key-of-eve-here"),
    ];
    for (name, reference, _) in references {
        let (_, body) = consumer(name, reference);
        node.gateway.put("consumers", &body).await;
    }
    let route = json!({ "uri": "/ip", "plugins": { "key-auth": {} }, "upstream": to(&[&upstream]) });
    node.has(&[("routes/1", route)]).await;
    for (_, reference, key) in references {
        lets_in(&node.gateway, key).await;
        assert_eq!(status(&node.gateway, reference).await, 401, "{reference}");
    }

    // After a start the first request is as good as any.
    let mut gateway = node.gateway;
    gateway.kill9();
    std::fs::remove_file(gateway.data_dir().join("secrets.json")).unwrap();
    gateway.start().await;
    for (_, _, key) in references {
        assert_eq!(status(&gateway, key).await, 200, "{key}");
    }

    // A secret that changes where it is kept takes effect by itself.
    vault.set("kv/teams/jack", &json!({ "auth-key": "key-of-jack-renewed" }));
    lets_in(&gateway, "key-of-jack-renewed").await;
    assert_eq!(status(&gateway, "key-of-jack-at-vault").await, 401);

    // Nobody is told any of it.
    let mut told = gateway.process().log();
    for path in ["/v1/config", "/v1/schema", "/v1/routes", "/v1/consumers", "/v1/plugin_metadatas"] {
        told += &testkit::http::get(&gateway.control_url(path)).await.unwrap().text();
    }
    let metrics = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", gateway.ports().prometheus);
    told += &testkit::http::get(&metrics).await.unwrap().text();
    told += &std::fs::read_to_string(gateway.data_dir().join("secrets.json")).unwrap();
    assert!(told.contains("keelgate_secrets_followed{manager=\"aws/1\"} 2"), "{told}");
    for secret in ["key-of-", SECRET, &aws.secret_key] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[tokio::test]
async fn a_secret_that_can_not_be_had_is_told_and_comes_into_force_by_itself() {
    let (vault, upstream) = (SecretManager::start(Kind::Vault), Upstream::start());
    let node = Node::with(often()).await;
    let rewritten = |header: &str| json!({ "headers": { "set": { "X-Token": header } } });
    let reference = "$secret://vault/1/upstream/token";
    node.has(&[
        ("secrets/vault/1", json!({ "uri": vault.url(), "prefix": "kv", "token": "wrong" })),
        ("routes/1", json!({
            "uri": "/headers", "plugins": { "proxy-rewrite": rewritten(reference) }, "upstream": to(&[&upstream]),
        })),
        ("routes/2", json!({ "uri": "/ip", "upstream": to(&[&upstream]) })),
    ])
    .await;
    assert_eq!(node.get("/headers").await.unwrap().status, 503);
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    let says = |view: &Value, text: &str| {
        view["rejected"][0]["reason"].as_str().is_some_and(|why| why.contains(text))
    };
    let view =
        node.config_when("the reason", |view| says(view, "can't be had from vault/1: status 403")).await;
    assert!(
        says(&view, "proxy-rewrite err: headers.set.X-Token: $secret://vault/1/upstream/token"),
        "{view}"
    );
    assert_eq!(view["secrets"]["vault/1"]["unresolved"], 1, "{view}");
    node.has(&[("secrets/vault/1", json!({ "uri": vault.url(), "prefix": "kv", "token": SECRET }))]).await;
    node.config_when("the next reason", |view| says(view, "there is no such secret")).await;
    vault.set("kv/upstream", &json!({ "token": "t0ken" }));
    let answer = node.serves("/headers").await;
    assert!(answer.text().contains("t0ken"), "{}", answer.text());
    node.config_when("nothing refused", |view| view["rejected"] == json!([])).await;
}

#[tokio::test]
async fn certificates_are_kept_in_vault_and_renewed_there() {
    let (vault, upstream, ca) = (SecretManager::start(Kind::Vault), Upstream::start(), Ca::new("keel"));
    let node = Node::with(often()).await;
    let keep = |name: &str| {
        let pair = ca.server(&["shop.test", name]);
        vault.set("kv/tls/shop", &json!({ "cert": pair.cert, "key": pair.key }));
    };
    keep("one.test");
    let kept = |what: &str| format!("$secret://vault/1/tls/shop/{what}");
    node.has(&[
        ("secrets/vault/1", json!({ "uri": vault.url(), "prefix": "kv", "token": SECRET })),
        ("ssls/1", json!({ "cert": kept("cert"), "key": kept("key"), "snis": ["shop.test", "one.test", "two.test"] })),
        ("routes/1", json!({ "uri": "/ip", "upstream": to(&[&upstream]) })),
    ])
    .await;
    let shown = async |name: &str| {
        let port = node.ports().https;
        let options =
            Options { to: Some(([127, 0, 0, 1], port).into()), ca: Some(ca.pem()), ..Options::default() };
        let answer = request_with(&options, Method::GET, &format!("https://{name}/ip"), &[], "").await;
        answer.is_ok_and(|answer| answer.status == 200)
    };
    eventually(SOON, "the certificate", async || expect(shown("one.test").await, "none")).await;
    assert!(!shown("two.test").await);
    keep("two.test");
    eventually(SOON, "the certificate of today", async || expect(shown("two.test").await, "another")).await;
    assert!(shown("shop.test").await);
}
