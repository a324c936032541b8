//! Google Cloud's Secret Manager, asked with an access token for a service account.
//!
//! <https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access>,
//! <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>

use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asker, Failure, Secret, below};
use crate::secrets::manager::{Account, Gcp};

/// What we may ask with, and for how long.
pub(super) struct Token {
    account: Account,
    text: String,
    /// A minute before it runs out.
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: u64,
}

impl Asker {
    pub(super) async fn gcp(&self, gcp: &Gcp, name: &str) -> Result<Secret, Failure> {
        let (project, entries, token) = self.access(gcp).await?;
        let url = below(&entries, &["projects", &project, "secrets", name, "versions", "latest:access"])?;
        let answer = Answer::to(self.client.get(url.as_str()).bearer_auth(token)).await?;
        match answer.status {
            200 => {
                let body = answer.json()?;
                let bytes =
                    body["payload"]["data"].as_str().and_then(|data| BASE64_STANDARD.decode(data).ok());
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                text.map(Secret::Text).ok_or_else(|| Failure::Refused("it is binary, not a text".to_owned()))
            }
            404 => Err(Failure::Missing),
            status => {
                if status == 401 {
                    *self.token.lock().await = None;
                }
                Err(answer.failure(|body| Some(body["error"]["message"].as_str()?.to_owned())))
            }
        }
    }

    /// Project, address and token to ask with.
    async fn access(&self, gcp: &Gcp) -> Result<(String, String, String), Failure> {
        let mut token = self.token.lock().await;
        if token.as_ref().is_none_or(|token| Instant::now() >= token.until) {
            *token = None;
            let account = account(gcp).await.map_err(Failure::Refused)?;
            *token = Some(self.granted(account).await?);
        }
        let Some(token) = &*token else { return Err(Failure::Missing) };
        let account = &token.account;
        Ok((account.project_id.clone(), account.entries_uri().to_owned(), token.text.clone()))
    }

    async fn granted(&self, account: Account) -> Result<Token, Failure> {
        let assertion = assertion(&account).map_err(Failure::Refused)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let request = self.client.post(account.token_uri());
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let answer = Answer::to(request).await?;
        if answer.status != 200 {
            let told = |body: &Value| Some(format!("no access token: {}", body["error"].as_str()?));
            return Err(answer.failure(told));
        }
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::Refused("no access token is in the answer".to_owned()))?;
        let until = Instant::now() + Duration::from_secs(granted.expires_in.saturating_sub(60));
        Ok(Token { account, text: granted.access_token, until })
    }
}

async fn account(gcp: &Gcp) -> Result<Account, String> {
    if let Some(account) = &gcp.auth_config {
        return Ok(account.clone());
    }
    let file = gcp.auth_file.as_deref().unwrap_or_default();
    let bytes = tokio::fs::read(file).await.map_err(|error| format!("auth_file {file}: {error}"))?;
    serde_json::from_slice(&bytes)
        .map_err(|_| format!("auth_file {file}: it is no JSON with client_email, private_key and project_id"))
}

/// Who we are, signed with the account's key: RFC 7523.
fn assertion(account: &Account) -> Result<String, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = json!({
        "iss": account.client_email, "aud": account.token_uri(), "scope": account.scope(),
        "iat": now, "exp": now + 60 * 60,
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims));
    let bad = || "private_key: it is no RSA key in PEM".to_owned();
    let key = match pki::private_key(account.private_key.reveal().as_bytes()) {
        Ok(rustls_pki_types::PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
        Ok(rustls_pki_types::PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(bad()),
    };
    let key = key.map_err(|_| bad())?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| bad())?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}
