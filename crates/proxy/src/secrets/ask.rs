//! Asks one manager.

mod aws;
mod gcp;
mod vault;

use std::{sync::Arc, time::Duration};

use reqwest::RequestBuilder;
use rustls::RootCertStore;
use serde_json::{Map, Value};

use super::{
    manager::{Access, Manager},
    reference,
};
use crate::upstream::discovery::client::{self, Client};

/// How long a manager may take for one answer: APISIX's limit for Vault.
const LIMIT: Duration = Duration::from_secs(5);
/// No secret is longer.
const MOST: usize = 4 << 20;

/// A secret as its manager keeps it.
pub enum Secret {
    Text(String),
    Members(Map<String, Value>),
}

/// Why there is none. No text has a secret in it.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The manager knows no such secret.
    Missing,
    /// The manager does not give it.
    Refused(String),
    /// The manager can't be heard: there is no use in asking it for the next.
    Unheard(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such secret"),
            Self::Refused(why) | Self::Unheard(why) => f.write_str(why),
        }
    }
}

impl Secret {
    /// One key of it, or all of it. The error does not tell what is in it.
    pub fn member(&self, key: Option<&str>) -> Result<Value, String> {
        match (self, key) {
            (Self::Text(text), key) => reference::member(text, key),
            (Self::Members(members), None) => Ok(Value::Object(members.clone())),
            (Self::Members(members), Some(key)) => match members.get(key) {
                Some(Value::Null) | None => Err(format!("it has no key {key}")),
                Some(value) => Ok(value.clone()),
            },
        }
    }
}

/// Asks one manager, over connections of its own.
pub struct Asker {
    client: Client,
    manager: Arc<Manager>,
    /// What Google gave us to ask with.
    token: tokio::sync::Mutex<Option<gcp::Token>>,
}

impl Asker {
    /// `roots`: whom the manager's certificate must come from.
    pub fn new(manager: Arc<Manager>, roots: &Arc<RootCertStore>) -> Result<Self, String> {
        let verifies = !matches!(&manager.access, Access::Gcp(gcp) if gcp.ssl_verify == Some(false));
        let client = Client::new(LIMIT, verifies.then_some(roots))?;
        Ok(Self { client, manager, token: tokio::sync::Mutex::default() })
    }

    pub async fn read(&self, name: &str) -> Result<Secret, Failure> {
        match &self.manager.access {
            Access::Vault(vault) => self.vault(vault, name).await,
            Access::Aws(aws) => self.aws(aws, name).await,
            Access::Gcp(gcp) => self.gcp(gcp, name).await,
        }
    }
}

/// What a manager answers.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    async fn to(request: RequestBuilder) -> Result<Self, Failure> {
        let unheard = |error: &reqwest::Error| Failure::Unheard(client::chain(error));
        let mut response = request.timeout(LIMIT).send().await.map_err(|error| unheard(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unheard(&error))? {
            if body.len() + chunk.len() > MOST {
                return Err(Failure::Unheard("it says more than 4 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, body })
    }

    /// The body of a 200.
    fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|_| Failure::Refused("it does not answer in JSON".to_owned()))
    }

    /// Why it is no 200. `told` picks the reason from the body.
    fn failure(&self, told: impl FnOnce(&Value) -> Option<String>) -> Failure {
        let told = serde_json::from_slice(&self.body).ok().and_then(|body| told(&body));
        let told =
            told.map_or_else(String::new, |told| format!(": {}", told.chars().take(200).collect::<String>()));
        let text = format!("status {}{told}", self.status);
        match self.status {
            // A server in trouble, not one secret of it.
            429 | 502..=504 => Failure::Unheard(text),
            _ => Failure::Refused(text),
        }
    }
}

/// An address with these segments behind its path.
fn below(base: &str, segments: &[&str]) -> Result<reqwest::Url, Failure> {
    let bad = || Failure::Refused(format!("{base} is no address"));
    let mut url = reqwest::Url::parse(base).map_err(|_| bad())?;
    url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(segments);
    Ok(url)
}
