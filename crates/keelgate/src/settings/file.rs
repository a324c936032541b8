//! `config.yaml` as it is written: the keys we act on, with APISIX's names and defaults. Unknown keys are told by
//! the reader, not here.

mod deployment;
mod nginx;

use std::{net::IpAddr, path::PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

pub use deployment::*;
pub use nginx::*;

use super::values::{Listen, Listens, Ports, StreamListen, Time};

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
    pub node_listen: Option<Listens>,
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
