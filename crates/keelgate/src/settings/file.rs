//! `config.yaml` as it is written: the keys we act on, with APISIX's names and defaults. Unknown keys are told by
//! the reader, not here.

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::values::{Buffers, Listen, OneOrMany, Ports, Share, Size, StreamListen, Switch, Time, Workers};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct File {
    pub apisix: Apisix,
    pub nginx_config: NginxConfig,
    pub graphql: GraphQl,
    pub plugins: Option<Vec<String>>,
    /// Default: `ip-restriction`, `limit-conn`, `mqtt-proxy`, `syslog`, as far as they are built in.
    pub stream_plugins: Option<Vec<String>>,
    pub plugin_attr: Map<String, Value>,
    pub discovery: Map<String, Value>,
    pub deployment: Deployment,
    /// On a control plane: where backups are written. API7's place for it.
    pub fallback_cp: Option<FallbackCp>,
    pub keelgate: Keelgate,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Apisix {
    /// Default: 9080.
    pub node_listen: Option<OneOrMany<Listen>>,
    /// Default: http.
    pub proxy_mode: ProxyMode,
    pub stream_proxy: StreamProxy,
    pub proxy_protocol: ProxyProtocol,
    /// Default: true, as the other switches.
    pub enable_admin: bool,
    pub enable_ipv6: bool,
    pub enable_http2: bool,
    pub enable_server_tokens: bool,
    pub show_upstream_status_in_response_header: bool,
    pub disable_upstream_healthcheck: bool,
    pub enable_control: bool,
    /// Default: 127.0.0.1:9090.
    pub control: Option<Address>,
    /// Default: 127.0.0.1:7085.
    pub status: Option<Address>,
    pub router: Router,
    pub delete_uri_tail_slash: bool,
    pub normalize_uri_like_servlet: bool,
    pub match_uri_encoded_slash: bool,
    /// Megabytes of a body that rules may look at; 0 is any number. Default: 64.
    pub max_post_args_readable_size: u64,
    pub ssl: Ssl,
    /// Default: encrypted with APISIX's own example keys.
    pub data_encryption: Option<model::instance::DataEncryption>,
    pub trusted_addresses: Option<Vec<ipnet_or_ip::Net>>,
    /// DNS servers, in the place of those of `/etc/resolv.conf`.
    pub dns_resolver: Vec<String>,
    /// Seconds that an answer holds, in the place of its TTL.
    pub dns_resolver_valid: Option<Time>,
    /// How long a request waits for a name's first answer. Default: 5 s.
    pub resolver_timeout: Time,
    /// Whether `search` of `/etc/resolv.conf` counts. Default: true.
    pub enable_resolv_search_opt: bool,
    pub lru: Lru,
}

impl Default for Apisix {
    fn default() -> Self {
        Self {
            node_listen: None,
            proxy_mode: ProxyMode::Http,
            stream_proxy: StreamProxy::default(),
            proxy_protocol: ProxyProtocol::default(),
            enable_admin: true,
            enable_ipv6: true,
            enable_http2: true,
            enable_server_tokens: true,
            show_upstream_status_in_response_header: false,
            disable_upstream_healthcheck: false,
            enable_control: true,
            control: None,
            status: None,
            router: Router::default(),
            delete_uri_tail_slash: false,
            normalize_uri_like_servlet: false,
            match_uri_encoded_slash: false,
            max_post_args_readable_size: 64,
            ssl: Ssl::default(),
            data_encryption: None,
            trusted_addresses: None,
            dns_resolver: Vec::new(),
            dns_resolver_valid: None,
            resolver_timeout: Time::secs(5),
            enable_resolv_search_opt: true,
            lru: Lru::default(),
        }
    }
}

/// How long what was looked up elsewhere holds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lru {
    pub secret: SecretLru,
}

/// APISIX's `count` and `neg_count` are not used: what is referred to is kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct SecretLru {
    /// Default: 300 s.
    pub ttl: Time,
    /// Default: 60 s.
    pub neg_ttl: Time,
}

impl Default for SecretLru {
    fn default() -> Self {
        Self { ttl: Time::secs(300), neg_ttl: Time::secs(60) }
    }
}

/// What is proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ProxyMode {
    #[serde(rename = "http")]
    Http,
    #[serde(rename = "stream")]
    Stream,
    #[serde(rename = "http&stream")]
    Both,
}

/// Where TCP and UDP sessions come in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamProxy {
    pub tcp: Vec<StreamListen>,
    pub udp: Vec<Ports>,
}

/// Listeners behind a load balancer that speaks the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    pub listen_http_port: Option<u16>,
    pub listen_https_port: Option<u16>,
    /// Of every port of `stream_proxy.tcp` that does not say so itself, as the next.
    pub enable_tcp_pp: bool,
    pub enable_tcp_pp_to_upstream: bool,
}

/// An address of which either half may be left out.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Address {
    pub ip: Option<IpAddr>,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Router {
    pub http: proxy::router::Kind,
    pub ssl: SslRouter,
}

/// How certificates are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SslRouter {
    #[default]
    #[serde(rename = "radixtree_sni")]
    Sni,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct GraphQl {
    /// Bytes of a document that rules may look at. Default: 1 MiB.
    pub max_size: u64,
}

impl Default for GraphQl {
    fn default() -> Self {
        Self { max_size: 1024 * 1024 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Ssl {
    /// Default: true.
    pub enable: bool,
    /// Default: 9443.
    pub listen: Option<Vec<Listen>>,
    /// A file of CAs in PEM, or `system`, which is the default.
    pub ssl_trusted_certificate: Option<String>,
    /// Default: `TLSv1.2 TLSv1.3`.
    pub ssl_protocols: String,
    /// OpenSSL's names of cipher suites. Default: [`SSL_CIPHERS`].
    pub ssl_ciphers: String,
    pub ssl_session_tickets: bool,
    pub fallback_sni: Option<String>,
}

/// APISIX's default.
pub const SSL_CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
    ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384";

impl Default for Ssl {
    fn default() -> Self {
        Self {
            enable: true,
            listen: None,
            ssl_trusted_certificate: None,
            ssl_protocols: "TLSv1.2 TLSv1.3".into(),
            ssl_ciphers: SSL_CIPHERS.into(),
            ssl_session_tickets: false,
            fallback_sni: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NginxConfig {
    /// Default: `logs/error.log`.
    pub error_log: Option<String>,
    /// Default: warn.
    pub error_log_level: Option<LogLevel>,
    /// Default: auto, one per core.
    pub worker_processes: Workers,
    /// Default: 240 s.
    pub worker_shutdown_timeout: Option<Time>,
    pub http: NginxHttp,
    pub stream: NginxStream,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct NginxStream {
    /// Default: false.
    pub enable_access_log: bool,
    /// Default: `logs/access_stream.log`; `off` writes none.
    pub access_log: String,
    /// Default: APISIX's.
    pub access_log_format: Option<String>,
    pub access_log_format_escape: Escape,
    /// Load balancers whose PROXY header says who the client is. Default: none.
    pub real_ip_from: Vec<ipnet_or_ip::Net>,
}

impl Default for NginxStream {
    fn default() -> Self {
        Self {
            enable_access_log: false,
            access_log: "logs/access_stream.log".into(),
            access_log_format: None,
            access_log_format_escape: Escape::Default,
            real_ip_from: Vec::new(),
        }
    }
}

/// nginx's log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warn,
    Error,
    Crit,
    Alert,
    Emerg,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct NginxHttp {
    /// Default: true.
    pub enable_access_log: bool,
    /// Default: `logs/access.log`; `off` writes none.
    pub access_log: String,
    /// Default: 16384 bytes.
    pub access_log_buffer: Size,
    /// Default: APISIX's.
    pub access_log_format: Option<String>,
    pub access_log_format_escape: Escape,
    /// Between two requests of a connection. Default: 60 s.
    pub keepalive_timeout: Time,
    /// For a whole request head. Default: 60 s.
    pub client_header_timeout: Time,
    /// Between two reads of a body. Default: 60 s.
    pub client_body_timeout: Time,
    /// Bytes; 0, the default, is any number.
    pub client_max_body_size: Size,
    /// Between two writes of a response. Default: 10 s.
    pub send_timeout: Time,
    /// So many lines of a request's head, each of so many bytes. nginx's, and its default: `4 8k`.
    pub large_client_header_buffers: Buffers,
    /// Default: on.
    pub underscores_in_headers: Switch,
    /// Default: `X-Real-IP`.
    pub real_ip_header: String,
    /// Default: off.
    pub real_ip_recursive: Switch,
    /// Addresses and ranges. Default: 127.0.0.1; `unix:` is said of nobody.
    pub real_ip_from: Option<Vec<String>>,
}

impl Default for NginxHttp {
    fn default() -> Self {
        Self {
            enable_access_log: true,
            access_log: "logs/access.log".into(),
            access_log_buffer: Size(16_384),
            access_log_format: None,
            access_log_format_escape: Escape::Default,
            keepalive_timeout: Time::secs(60),
            client_header_timeout: Time::secs(60),
            client_body_timeout: Time::secs(60),
            client_max_body_size: Size(0),
            send_timeout: Time::secs(10),
            large_client_header_buffers: Buffers { number: 4, size: 8192 },
            underscores_in_headers: Switch(true),
            real_ip_header: "X-Real-IP".into(),
            real_ip_recursive: Switch(false),
            real_ip_from: Some(vec!["127.0.0.1".into()]),
        }
    }
}

/// How values are escaped in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Escape {
    Default,
    Json,
    None,
}

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

/// `127.0.0.1`, `10.0.0.0/8`, `::1`.
pub mod ipnet_or_ip {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, de};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Net(pub IpNet);

    impl<'de> Deserialize<'de> for Net {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let text = String::deserialize(from)?;
            parse(&text).map(Net).ok_or_else(|| {
                de::Error::custom(format!("`{text}` is neither an IP address nor a range such as 10.0.0.0/8"))
            })
        }
    }

    pub fn parse(text: &str) -> Option<IpNet> {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
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
    pub mode: FallbackMode,
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

/// What a data plane does with the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackMode {
    #[default]
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

/// Our own keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Keelgate {
    /// Default: `data` in the folder above `conf/`.
    pub data_dir: Option<PathBuf>,
    pub dp_listen: Option<DpListen>,
    /// Default: `$KEELGATE_GATEWAY_GROUP`, else `default`.
    pub gateway_group: Option<String>,
    pub guard: Option<GuardFile>,
    pub trust: Option<Trust>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DpListen {
    /// Default: 0.0.0.0.
    pub ip: Option<IpAddr>,
    /// Default: 7900.
    pub port: Option<u16>,
    /// Default: 7943, with a certificate.
    pub tls_port: Option<u16>,
    /// Server certificate, key, and the CA of client certificates, for the TLS port.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}
