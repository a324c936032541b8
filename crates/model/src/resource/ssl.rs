//! Certificates: ours towards clients, chosen by server name, and ours towards upstreams.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Hidden, Id, Status, lenient};

/// Certificates with their keys, and the names they are for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Ssl {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default, rename = "type")]
    pub kind: SslType,
    /// PEM.
    pub cert: Box<str>,
    /// PEM, once decrypted.
    pub key: Hidden,
    /// Either this or `snis`: see [`Ssl::snis`].
    #[serde(default)]
    pub sni: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub snis: Vec<Box<str>>,
    /// Further certificates for the same names, such as one of another algorithm; as many as `keys`.
    #[serde(default, deserialize_with = "lenient::list")]
    pub certs: Vec<Box<str>>,
    #[serde(default, deserialize_with = "lenient::list")]
    pub keys: Vec<Hidden>,
    #[serde(default)]
    pub client: Option<ClientVerification>,
    #[serde(default)]
    pub ocsp_stapling: Option<OcspStapling>,
    #[serde(default)]
    pub status: Status,
    /// Empty: the process's.
    #[serde(default, deserialize_with = "lenient::list")]
    pub ssl_protocols: Vec<Box<str>>,
}

impl Ssl {
    pub fn snis(&self) -> impl Iterator<Item = &str> {
        self.sni.iter().chain(&self.snis).map(|sni| &**sni)
    }

    /// Every certificate chain with its key, the first one first.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &Hidden)> {
        let further = self.certs.iter().zip(&self.keys);
        std::iter::once((&self.cert, &self.key)).chain(further).map(|(cert, key)| (&**cert, key))
    }
}

/// Whom a certificate is shown to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SslType {
    /// Clients that connect to us.
    #[default]
    Server,
    /// Upstreams we connect to.
    Client,
}

/// What a client must prove.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ClientVerification {
    /// PEM.
    pub ca: Box<str>,
    /// How long a chain may be.
    #[serde(default = "one")]
    pub depth: u32,
    /// Requests to these URIs need no certificate.
    #[serde(default, deserialize_with = "lenient::list")]
    pub skip_mtls_uri_regex: Vec<Box<str>>,
}

/// Whether clients are shown what the issuer says of the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OcspStapling {
    #[serde(default)]
    pub enabled: bool,
    /// Whether it is shown whatever it says.
    #[serde(default)]
    pub skip_verify: bool,
    /// How long an answer will do, in seconds.
    #[serde(default = "hour")]
    pub cache_ttl: u64,
}

fn hour() -> u64 {
    3600
}

fn one() -> u32 {
    1
}
