//! Secret managers in small: what HashiCorp Vault and Google Cloud document of their HTTP APIs, as far as a gateway
//! asks for it. (AWS's is moto's: [`crate::servers::Moto`].)
//!
//! ```text
//! let vault = SecretManager::start(Kind::Vault);
//! vault.set("kv/jack", &json!({ "key": "s3cret" }));
//! vault.stop();
//! ```
//!
//! The one rule: whoever does not show [`SECRET`], in the way of the kind, is refused. Made from the documentation:
//! <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1>, `kv-v2`,
//! <https://cloud.google.com/secret-manager/docs/reference/rest>,
//! <https://developers.google.com/identity/protocols/oauth2/service-account>.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::background::Task;
use crate::{fake, ports};

/// Vault's token, and the access token that Google's gives.
pub const SECRET: &str = "manager-secret";

/// Which manager it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Secrets are objects at a path: `kv/jack`, `kv/data/jack` for version 2 of the engine.
    Vault,
    /// Secrets are texts by name, of the project `keel`.
    Gcp,
}

/// A running manager; stops with its handle.
#[derive(Debug)]
pub struct SecretManager {
    address: SocketAddr,
    state: Arc<State>,
    running: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct State {
    kind: Kind,
    address: SocketAddr,
    secrets: Mutex<BTreeMap<String, Value>>,
    /// A status in the place of every answer.
    refuses: Mutex<Option<u16>>,
    requests: Mutex<Vec<String>>,
    account: Option<KeyPair>,
}

impl SecretManager {
    pub fn start(kind: Kind) -> Self {
        let address = ports::address();
        let key = || KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        let state = Arc::new(State {
            kind,
            address,
            secrets: Mutex::default(),
            refuses: Mutex::default(),
            requests: Mutex::default(),
            account: (kind == Kind::Gcp).then(key),
        });
        let manager = Self { address, state, running: Mutex::default() };
        manager.restart();
        manager
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces a secret; null takes it out.
    pub fn set(&self, name: &str, secret: &Value) {
        let mut secrets = self.state.secrets.lock().unwrap();
        match secret {
            Value::Null => secrets.remove(name),
            secret => secrets.insert(name.to_owned(), secret.clone()),
        };
    }

    /// Answers everybody with this status from now on; none: as it should.
    pub fn refuse(&self, status: Option<u16>) {
        *self.state.refuses.lock().unwrap() = status;
    }

    /// The paths of the requests that have come.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The `auth_config` of Google's service account.
    pub fn account(&self) -> Value {
        let key = self.state.account.as_ref().expect("a manager of Google's");
        let der = key.as_der().expect("a key");
        let armoured = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64_STANDARD.encode(der.as_ref())
        );
        json!({
            "client_email": "gateway@keel.iam.gserviceaccount.com", "project_id": "keel", "private_key": armoured,
            "token_uri": format!("{}/token", self.url()), "entries_uri": format!("{}/v1", self.url()),
        })
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop();
        }
    }

    /// Opens the same port again.
    pub fn restart(&self) {
        self.stop();
        let state = self.state.clone();
        let answer = move |request| {
            let state = state.clone();
            async move { state.answer(request).await }
        };
        *self.running.lock().unwrap() = Some(fake::serve(self.address, answer));
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        self.requests.lock().unwrap().push(path.clone());
        if let Some(status) = *self.refuses.lock().unwrap() {
            return answer(status, &json!({}));
        }
        let header =
            |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match self.kind {
            Kind::Vault => match header("x-vault-token") {
                Some(token) if token == SECRET => self.vault(&path),
                _ => answer(403, &json!({ "errors": ["permission denied"] })),
            },
            Kind::Gcp if path == "/token" => {
                let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                self.grant(&body.unwrap_or_default())
            }
            Kind::Gcp => match header(AUTHORIZATION.as_str()) {
                Some(shown) if shown == format!("Bearer {SECRET}") => self.gcp(&path),
                _ => answer(401, &json!({ "error": { "code": 401, "message": "invalid credentials" } })),
            },
        }
    }

    fn find(&self, name: &str) -> Option<Value> {
        self.secrets.lock().unwrap().get(name).cloned()
    }

    fn vault(&self, path: &str) -> Response<Full<Bytes>> {
        let name = path.strip_prefix("/v1/").unwrap_or_default();
        let Some(data) = self.find(name) else { return answer(404, &json!({ "errors": [] })) };
        let is_second = name.split('/').nth(1) == Some("data");
        let data = if is_second { json!({ "data": data, "metadata": { "version": 1 } }) } else { data };
        answer(200, &json!({ "request_id": "1", "lease_duration": 2_764_800, "data": data }))
    }

    fn gcp(&self, path: &str) -> Response<Full<Bytes>> {
        let name = path.strip_prefix("/v1/projects/keel/secrets/");
        let name = name.and_then(|rest| rest.strip_suffix("/versions/latest:access")).unwrap_or_default();
        let missing = json!({ "error": { "code": 404, "message": "not found", "status": "NOT_FOUND" } });
        let Some(Value::String(text)) = self.find(name) else { return answer(404, &missing) };
        let payload = json!({ "data": BASE64_STANDARD.encode(text) });
        answer(200, &json!({ "name": format!("projects/1/secrets/{name}/versions/1"), "payload": payload }))
    }

    /// An access token for whoever signs with the account's key.
    fn grant(&self, form: &[u8]) -> Response<Full<Bytes>> {
        let form: BTreeMap<String, String> = form_urlencoded::parse(form).into_owned().collect();
        let signed = form.get("assertion").and_then(|assertion| assertion.rsplit_once('.'));
        let key = self.account.as_ref().expect("a manager of Google's").public_key();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.as_ref());
        let is_ours = signed.is_some_and(|(signed, signature)| {
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
            key.verify(signed.as_bytes(), &signature).is_ok()
        });
        let claims =
            signed.and_then(|(signed, _)| BASE64_URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok());
        let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
        let asks = form.get("grant_type").map(String::as_str)
            == Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
            && claims["iss"] == "gateway@keel.iam.gserviceaccount.com"
            && claims["aud"] == format!("http://{}/token", self.address)
            && claims["exp"].as_u64() > claims["iat"].as_u64();
        if is_ours && asks {
            return answer(
                200,
                &json!({ "access_token": SECRET, "expires_in": 3599, "token_type": "Bearer" }),
            );
        }
        answer(400, &json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." }))
    }
}

fn answer(status: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from(body.to_string()))).expect("a response")
}
