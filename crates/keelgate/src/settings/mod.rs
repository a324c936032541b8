//! `config.yaml`, read once by the process and turned into plain settings.
//!
//! The rule to know: reading changes nothing. A file that can't be used gives every reason with its line, and a
//! running process keeps the settings it has.

pub mod file;
pub mod values;

mod resolve;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{
    InstanceEnvelope,
    substitute::{self, Unset},
};

pub use file::{AdminRole, AdminVersion, LogLevel, Role};

/// Everything this process was told, with defaults filled in and contradictions refused.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file these settings come from.
    pub file: PathBuf,
    /// The folder above `conf/`.
    pub home: PathBuf,
    /// `keelgate.data_dir`. Default: `data` below `home`. Holds the store, what was last served, and this node's id.
    pub data_dir: PathBuf,
    pub role: Role,
    /// `keelgate.gateway_group`. Default: `$KEELGATE_GATEWAY_GROUP`, else `default`.
    pub group: String,
    /// Where a control plane keeps resources; none on a data plane.
    pub store: Option<StoreSettings>,
    /// The Admin API; none on a data plane, or where it is switched off.
    pub admin: Option<AdminSettings>,
    /// The configuration API; none where no data planes are served.
    pub dp_listen: Option<DpListenSettings>,
    /// The backup this process writes; none writes none.
    pub export: Option<ExportSettings>,
    /// Whom this process's data plane believes; none on a control plane.
    pub source: Option<SourceSettings>,
    /// None on a control plane.
    pub proxy: Option<ProxySettings>,
    /// Files open at the same time: `nginx_config.worker_rlimit_nofile` for each worker.
    pub open_files: u64,
    /// Default: 127.0.0.1:9090; none is switched off.
    pub control_api: Option<Listener>,
    /// Default: 127.0.0.1:7085; none where another listener claims that.
    pub status: Option<Listener>,
    /// Default: 127.0.0.1:9091; none is switched off.
    pub prometheus: Option<PrometheusSettings>,
    /// What is shared with data planes: keyring, discovery, plugin attributes.
    pub instance: Arc<InstanceEnvelope>,
    /// The plugins that may be used; none means all that are built in.
    pub plugins: Option<Vec<String>>,
    /// Those that stream routes may have. Default: APISIX's.
    pub stream_plugins: Vec<String>,
    /// Whether TCP and UDP are proxied, and stream routes taken: `apisix.proxy_mode`.
    pub streams: bool,
    /// Default: warn. `RUST_LOG` overrides it.
    pub log_level: LogLevel,
    /// Where `start` sends the log; `run` writes to stderr.
    pub error_log: PathBuf,
    /// `logs/keelgate.pid` below `home`.
    pub pid_file: PathBuf,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    /// Written in the file: if it can't be had, that is an error. A default that is taken is only told.
    pub explicit: bool,
}

/// Where resources are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    Embedded {
        dir: PathBuf,
    },
    Etcd(EtcdSettings),
    /// `yaml` in a traditional process, APISIX's API-driven mode: only replaced as a whole, through the Admin API.
    Whole {
        dir: PathBuf,
    },
}

#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// With scheme and port: `http://127.0.0.1:2379`, which is the default.
    pub hosts: Vec<String>,
    /// Before every key, without a slash at its end. Default: `/apisix`.
    pub prefix: String,
    /// For one request. Default: 30 s.
    pub timeout: Duration,
    /// Name and password.
    pub user: Option<(String, Arc<str>)>,
    /// Whom the server's certificate must come from; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and key, for mTLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the server's certificate is checked. Default: true.
    pub verify: bool,
    /// The name to ask for and to check; none: the host's.
    pub sni: Option<String>,
}

impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd {:?} below {}", self.hosts, self.prefix)
    }
}

#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Default: 0.0.0.0:9180.
    pub listen: Listener,
    /// `admin_key`; where a key is required and none is given, one is made and kept in the data folder.
    pub keys: Vec<file::AdminKey>,
    /// Default: true.
    pub key_required: bool,
    /// Default: v3.
    pub version: AdminVersion,
    /// `allow_admin`. Default: 127.0.0.0/24; empty lets every address in.
    pub allow: Vec<ipnet::IpNet>,
    /// Default: true.
    pub cors: bool,
    /// None: plain HTTP.
    pub tls: Option<ServerTls>,
}

/// Certificate and key of a listener of our own, and the CA its clients must come from.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// None asks clients for no certificate.
    pub client_ca: Option<PathBuf>,
    /// The keys in the file that name these three.
    pub keys: [&'static str; 3],
}

#[derive(Clone, Debug)]
pub struct DpListenSettings {
    /// Default: 0.0.0.0:7900.
    pub plain: Listener,
    /// Port 7943 by default; none where no certificate is given.
    pub tls: Option<(Listener, ServerTls)>,
}

impl Settings {
    /// How long a start waits for the authority before something else is served: `startup_grace`, or its default.
    pub fn patience(&self) -> Duration {
        let fallback = self.source.as_ref().and_then(|source| source.fallback.as_ref());
        fallback.map_or(Duration::from_secs(3), |fallback| fallback.startup_grace)
    }
}

/// What a control plane writes to buckets.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// Each is written to, each fails alone.
    pub backends: Vec<store::bucket::Config>,
    /// Default: `@every 1m`.
    pub cron_spec: Option<String>,
    /// Also soon after each change. Default: true.
    pub on_change: bool,
    /// How long a change waits for quiet. Default: 1 s.
    pub debounce: Duration,
    /// So many backups are kept. Default: 100.
    pub keep: usize,
    /// Part of the resources that may be gone before a backup is held. Default: 0.5.
    pub max_shrink: f64,
    /// Whether an empty store may replace a backup. Default: false.
    pub allow_empty: bool,
    /// Ed25519 in PEM; none signs nothing.
    pub private_key_file: Option<PathBuf>,
    /// The key all of this stands under: `fallback_cp` or `deployment.fallback_cp`.
    pub key: &'static str,
}

/// Where the data plane gets its snapshots.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    pub from: SourceFrom,
    /// Asked while the control plane can't be heard; none has only what is kept on disk.
    pub fallback: Option<FallbackSettings>,
    /// Part of the resources that may be gone before a return is held. Default: 0.5.
    pub max_shrink: f64,
    /// Whether a control plane may return empty. Default: false.
    pub allow_empty: bool,
}

#[derive(Clone, Debug)]
pub enum SourceFrom {
    /// A control plane or an etcd cluster.
    Etcd(EtcdSettings),
    /// This process's own configuration API.
    Own,
    /// The backup alone.
    Bucket,
    /// `apisix.yaml` or `apisix.json`, watched.
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub struct FallbackSettings {
    /// Asked in this order.
    pub backends: Vec<store::bucket::Config>,
    /// How long a start waits for the control plane. Default: 3 s.
    pub startup_grace: Duration,
    /// How long a running node is cut off before it asks the bucket. Default: 30 s.
    pub fallback_after: Duration,
    /// Between two looks into the bucket, about. Default: 10 s.
    pub poll_interval: Duration,
    /// From when on a configuration counts as stale. Default: a day; none never.
    pub max_age: Option<Duration>,
    /// Default: warn.
    pub on_stale: store::source::OnStale,
    /// Ed25519, of those whose signatures are believed.
    pub public_keys: Vec<String>,
    /// Default: false.
    pub require_signature: bool,
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `apisix.node_listen`. Default: 0.0.0.0:9080.
    pub listen: Vec<Listener>,
    /// `apisix.ssl.listen`. Default: 0.0.0.0:9443, if it can be had.
    pub tls_listen: Vec<Listener>,
    /// `apisix.proxy_protocol.listen_http_port` and `listen_https_port`. Default: none.
    pub proxied_listen: Vec<Listener>,
    pub proxied_tls_listen: Vec<Listener>,
    /// Where `apisix.ssl.listen` has `enable_http3`. Default: nowhere.
    pub quic: Vec<SocketAddr>,
    /// Over TLS by ALPN, without TLS from whoever begins with its preface. Default: true.
    pub http2: bool,
    /// `nginx_config.worker_processes`. Default: one per core.
    pub workers: usize,
    /// `apisix.router.http`, and what goes with it.
    pub routing: proxy::router::Routing,
    /// Whether `Server` tells a version. Default: true.
    pub server_tokens: bool,
    /// Default: TLSv1.2 and TLSv1.3.
    pub ssl_protocols: Vec<String>,
    /// Of TLS 1.2. Default: APISIX's list.
    pub ssl_ciphers: proxy::tls::Ciphers,
    /// Default: false.
    pub ssl_session_tickets: bool,
    /// The name of clients that say none.
    pub fallback_sni: Option<String>,
    /// None: the system's.
    pub trusted_certificate: Option<PathBuf>,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_addresses: Vec<ipnet::IpNet>,
    /// Who the client is behind proxies of ours.
    pub real_ip: Option<proxy::engine::RealIp>,
    /// `X-APISIX-Upstream-Status` on every response.
    pub show_upstream_status: bool,
    /// Not `apisix.disable_upstream_healthcheck`. Default: true.
    pub checks_upstreams: bool,
    /// How long requests in flight may take at the end. Default: 240 s.
    pub shutdown_timeout: Duration,
    pub http: file::NginxHttp,
    /// How upstreams' names are resolved. What `discovery` says is in [`Settings::instance`].
    pub dns: proxy::upstream::discovery::Dns,
    /// How often secret managers are asked: `apisix.lru.secret`.
    pub secrets: proxy::secrets::Times,
    pub stream: StreamSettings,
    /// Where the access log goes; none writes none.
    pub access_log: Option<PathBuf>,
}

/// What the engine is told of streams.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// `apisix.stream_proxy.tcp`.
    pub tcp: Vec<StreamListener>,
    /// `apisix.stream_proxy.udp`.
    pub udp: Vec<SocketAddr>,
    /// Where the access log goes; none writes none.
    pub access_log: Option<PathBuf>,
    pub nginx: file::NginxStream,
}

/// Where TCP sessions come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamListener {
    pub listener: Listener,
    pub tls: bool,
    /// Every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Every connection to a node begins with one.
    pub proxy_protocol_to_upstream: bool,
}

#[derive(Clone, Debug)]
pub struct PrometheusSettings {
    pub listen: Listener,
    /// Default: `/apisix/prometheus/metrics`.
    pub path: String,
}

/// What was read, and what was noticed on the way.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<String>,
}

/// Every reason why a file can't be used, each as `file:line: key: what is wrong`.
#[derive(Debug)]
pub struct Unusable(pub Vec<String>);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Unusable {}

impl Settings {
    /// Where resources are kept, or come from, in words.
    pub fn resources_from(&self) -> String {
        let source = self.source.as_ref().map(|source| &source.from);
        match (&self.store, source) {
            (Some(StoreSettings::Embedded { dir }), _) => format!("embedded store in {}", dir.display()),
            (Some(StoreSettings::Whole { dir }), _) => {
                format!("replaced as a whole, kept in {}", dir.display())
            }
            (Some(StoreSettings::Etcd(etcd)), _) | (None, Some(SourceFrom::Etcd(etcd))) => {
                format!("{etcd:?}")
            }
            (None, Some(SourceFrom::File(path))) => format!("file {}", path.display()),
            (None, Some(SourceFrom::Bucket)) => "bucket of fallback_cp".to_owned(),
            (None, Some(SourceFrom::Own) | None) => "none".to_owned(),
        }
    }

    /// What was found wrong with these settings after they were read, such as a certificate's file.
    pub fn unusable(&self, problems: Vec<Problem>) -> Unusable {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        Unusable(problems.into_iter().map(|problem| problem.at(&self.file, &text)).collect())
    }
}

/// Where a `config.yaml` is looked for when none is named.
const PLACES: [&str; 3] =
    ["./conf/config.yaml", "/usr/local/keelgate/conf/config.yaml", "/usr/local/apisix/conf/config.yaml"];

/// The file to read: the one named, `$KEELGATE_CONFIG`, or the first of the usual places that is there.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Unusable> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("KEELGATE_CONFIG") {
        return Ok(path.into());
    }
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        let places = PLACES.join(", ");
        Unusable(vec![format!(
            "no config.yaml: looked for {places}; name one with `-c FILE` or $KEELGATE_CONFIG"
        )])
    })
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Loaded, Unusable> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Unusable(vec![format!("{}: it can't be read: {error}", path.display())]))?;
    let lookup = |name: &str| std::env::var(name).ok();
    parse(&text, path, &lookup)
}

/// Reads and checks the text of a file.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Unusable> {
    let (text, unset) = substitute::in_settings(text, env);
    if let Some(unset) = missing(&text, unset, env) {
        return Err(Unusable(vec![format!("{}:{}: {unset}", path.display(), unset.line)]));
    }
    let mut ignored = Vec::new();
    let file: file::File =
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            file::File::default()
        } else {
            read(&text, &mut ignored).map_err(|problem| Unusable(vec![problem.at(path, &text)]))?
        };
    let mut warnings: Vec<Problem> = ignored.into_iter().map(unused).collect();
    let settings = resolve::resolve(&file, path, env, &mut warnings).map_err(|problems| {
        Unusable(problems.into_iter().map(|problem| problem.at(path, &text)).collect())
    })?;
    let warnings = warnings.into_iter().map(|warning| warning.at(path, &text)).collect();
    Ok(Loaded { settings, warnings })
}

/// A key that nothing is made of; what to write instead where APISIX 2 had it.
fn unused(key: String) -> Problem {
    let now = match key.as_str() {
        "etcd" => "deployment.etcd",
        "apisix.admin_key" => "deployment.admin.admin_key",
        "apisix.allow_admin" => "deployment.admin.allow_admin",
        "apisix.admin_listen" | "apisix.port_admin" => "deployment.admin.admin_listen",
        "apisix.https_admin" => "deployment.admin.https_admin",
        "apisix.admin_api_mtls" => "deployment.admin.admin_api_mtls",
        "apisix.enable_admin_cors" => "deployment.admin.enable_admin_cors",
        "apisix.admin_api_version" => "deployment.admin.admin_api_version",
        "apisix.config_center" => "deployment.role_<role>.config_provider",
        _ => return Problem::new(key, "this key is not used by Keelgate"),
    };
    Problem::new(key, format!("it does nothing here since APISIX 3: write {now}"))
}

/// The first of the variables without a value that stands elsewhere than in a comment.
fn missing(text: &str, unset: Vec<Unset>, env: &dyn Fn(&str) -> Option<String>) -> Option<Unset> {
    if unset.is_empty() {
        return None;
    }
    match serde_saphyr::from_str::<serde_json::Value>(text) {
        Ok(mut value) => {
            let missing = substitute::in_value(&mut value, env).err()?;
            unset.into_iter().find(|unset| unset.name == missing.name)
        }
        // A line that is no YAML may be none for want of the variable.
        Err(error) => {
            let line = error.location()?.line();
            unset.into_iter().find(|unset| unset.line as u64 == line)
        }
    }
}

/// What is wrong, and with which key.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Dotted: `deployment.etcd.host`.
    pub key: String,
    pub line: Option<u64>,
    pub text: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), line: None, text: text.into() }
    }

    fn at(&self, path: &Path, text: &str) -> String {
        let line =
            self.line.or_else(|| line_of(text, &self.key)).map_or(String::new(), |line| format!("{line}:"));
        let key =
            if self.key.is_empty() || self.key == "." { String::new() } else { format!("{}: ", self.key) };
        format!("{}:{line} {key}{}", path.display(), self.text)
    }
}

fn read(text: &str, ignored: &mut Vec<String>) -> Result<file::File, Problem> {
    let mut track = serde_path_to_error::Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
        serde_ignored::deserialize(yaml, |key| ignored.push(key.to_string().replace(".?", "")))
    });
    read.map_err(|error| {
        let line = error.location().map(|at| at.line());
        // A key that is itself at fault has no name.
        let key = track.path().to_string();
        let key = key.trim_end_matches(".?").to_owned();
        Problem { key, line, text: model::snapshot_file::in_words(&error) }
    })
}

/// The line a dotted key stands in, found by indentation. None where the file is written in another style.
fn line_of(text: &str, key: &str) -> Option<u64> {
    let mut wanted = key.split('.').filter(|part| part.parse::<usize>().is_err() && !part.is_empty());
    let mut name = wanted.next()?;
    let mut parent: Option<usize> = None;
    let mut found = None;
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let content = content.trim_start_matches("- ");
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if parent.is_some_and(|parent| indent <= parent) {
            return found;
        }
        if parent.is_none() && indent > 0 {
            continue;
        }
        let Some(rest) = content.strip_prefix(name) else { continue };
        if rest.starts_with(':') {
            found = Some(number);
            parent = Some(indent);
            match wanted.next() {
                Some(next) => name = next,
                None => return found,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
