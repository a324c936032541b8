//! `nginx_config`: nginx's directives by APISIX's keys.

use serde::Deserialize;

use super::{
    super::values::{Buffers, Size, Switch, Time, Workers},
    ipnet_or_ip,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct NginxConfig {
    /// Default: `logs/error.log`.
    pub error_log: Option<String>,
    /// Default: warn.
    pub error_log_level: Option<LogLevel>,
    /// Default: auto, one per core.
    pub worker_processes: Workers,
    /// Files that each worker may have open. Default: APISIX's 20480.
    pub worker_rlimit_nofile: u64,
    /// Default: 240 s.
    pub worker_shutdown_timeout: Option<Time>,
    pub http: NginxHttp,
    pub stream: NginxStream,
}

impl Default for NginxConfig {
    fn default() -> Self {
        Self {
            error_log: None,
            error_log_level: None,
            worker_processes: Workers::default(),
            worker_rlimit_nofile: 20_480,
            worker_shutdown_timeout: None,
            http: NginxHttp::default(),
            stream: NginxStream::default(),
        }
    }
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
