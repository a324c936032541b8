//! `deployment` and `fallback_cp`: what this process is, where its configuration comes from and is backed up to.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    super::values::{OneOrMany, Share, Time},
    Address, ipnet_or_ip,
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub role: Role,
    pub role_traditional: RoleConfig,
    pub role_control_plane: RoleConfig,
    pub role_data_plane: RoleConfig,
    pub admin: Admin,
    pub etcd: Option<Etcd>,
    /// On a data plane: which backup to fall back to.
    pub fallback_cp: Option<FallbackCp>,
}

/// What this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    Traditional,
    ControlPlane,
    DataPlane,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traditional => "traditional",
            Self::ControlPlane => "control_plane",
            Self::DataPlane => "data_plane",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoleConfig {
    pub config_provider: Option<Provider>,
}

/// Where configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    Etcd,
    Yaml,
    Json,
    Embedded,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Admin {
    pub admin_key_required: bool,
    pub admin_key: Option<Vec<AdminKey>>,
    pub enable_admin_cors: bool,
    pub allow_admin: Option<Vec<ipnet_or_ip::Net>>,
    pub admin_listen: Address,
    /// Default: v3.
    pub admin_api_version: AdminVersion,
    pub https_admin: bool,
    pub admin_api_mtls: AdminMtls,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            admin_key_required: true,
            admin_key: None,
            enable_admin_cors: true,
            allow_admin: None,
            admin_listen: Address::default(),
            admin_api_version: AdminVersion::V3,
            https_admin: false,
            admin_api_mtls: AdminMtls::default(),
        }
    }
}

#[derive(Clone, Deserialize)]
pub struct AdminKey {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub role: AdminRole,
}

impl std::fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminKey({}, {:?})", self.name, self.role)
    }
}

/// The shapes of the Admin API's answers. What APISIX calls `default` is the older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminVersion {
    V3,
    #[serde(alias = "default")]
    V2,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    #[default]
    Admin,
    Viewer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AdminMtls {
    pub admin_ssl_cert: String,
    pub admin_ssl_cert_key: String,
    pub admin_ssl_ca_cert: String,
}

#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Etcd {
    /// Default: `http://127.0.0.1:2379`.
    pub host: OneOrMany<String>,
    /// Default: `/apisix`.
    pub prefix: String,
    /// For one request. Default: 30 s.
    pub timeout: Time,
    pub user: Option<String>,
    pub password: Option<String>,
    pub tls: EtcdTls,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            host: OneOrMany::One("http://127.0.0.1:2379".into()),
            prefix: "/apisix".into(),
            timeout: Time::secs(30),
            user: None,
            password: None,
            tls: EtcdTls::default(),
        }
    }
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Etcd({:?}, {})", self.host, self.prefix)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct EtcdTls {
    /// Ours, in PEM; `cert` and `key` go together.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Default: true.
    pub verify: bool,
    /// Default: the host's name.
    pub sni: Option<String>,
}

impl Default for EtcdTls {
    fn default() -> Self {
        Self { cert: None, key: None, verify: true, sni: None }
    }
}

/// `fallback_cp`: on a control plane what is written, on a data plane what is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FallbackCp {
    /// Default: what the role does, `read` on a data plane and `write` where the store is.
    pub mode: Option<FallbackMode>,
    pub aws_s3: Option<store::bucket::S3>,
    pub azure_blob: Option<store::bucket::Azure>,
    pub gcs: Option<store::bucket::Gcs>,
    pub local: Option<store::bucket::Local>,
    // Written by a control plane.
    /// Default: `@every 1m`.
    pub cron_spec: Option<String>,
    /// Default: true.
    pub on_change: Option<bool>,
    /// Default: 1 s.
    pub debounce: Option<Time>,
    pub history: History,
    pub guard: GuardFile,
    pub signing: Option<Signing>,
    // Read by a data plane.
    /// Default: 3 s.
    pub startup_grace: Option<Time>,
    /// Default: 30 s.
    pub fallback_after: Option<Time>,
    /// Default: 10 s.
    pub poll_interval: Option<Time>,
    /// Default: a day; 0 is for ever.
    pub max_age: Option<Time>,
    /// Default: warn.
    pub on_stale: Option<store::source::OnStale>,
    pub trust: Trust,
}

/// What a node does with the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackMode {
    Read,
    Write,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct History {
    /// Backups. Default: 100.
    pub keep: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: 100 }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GuardFile {
    /// Default: 50%.
    pub max_shrink: Option<Share>,
    /// Default: false.
    pub allow_empty: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Signing {
    pub private_key_file: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Trust {
    pub public_keys: Vec<String>,
    pub require_signature: bool,
}
