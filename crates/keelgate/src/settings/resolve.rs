//! From the file as written to settings: defaults, and what contradicts itself.

mod backup;
mod conflicts;
mod engine;
mod stream;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{
    Instance, InstanceEnvelope,
    instance::{DataEncryption, InstanceApisix, InstancePayload},
};
use proxy::{
    access_log::{Escape, Format},
    upstream::discovery::Config,
};
use serde_json::{Map, Value};

use super::{
    AdminSettings, DpListenSettings, EtcdSettings, Listener, Problem, PrometheusSettings, ServerTls,
    Settings, StoreSettings,
    file::{
        Address, Admin, Apisix, Etcd, FallbackCp, FallbackMode, File, LogLevel, Provider, ProxyMode, Role,
        SSL_CIPHERS, ipnet_or_ip,
    },
};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// APISIX's own, in its `config.yaml.example`.
const DEFAULT_KEYRING: [&str; 2] = ["qeddd145sfvddff3", "edd1c9f0985e76a2"];

/// APISIX's, those that are not built in too.
const DEFAULT_STREAM_PLUGINS: [&str; 4] = ["ip-restriction", "limit-conn", "mqtt-proxy", "syslog"];

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in defaults; gives every contradiction.
pub fn resolve(
    file: &File,
    path: &Path,
    env: Env<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let home = home_of(path);
    let below = |path: &Path| if path.is_absolute() { path.to_owned() } else { home.join(path) };
    let data_dir = file.keelgate.data_dir.as_deref().map_or_else(|| home.join("data"), below);
    let role = file.deployment.role;
    let provider = provider(file, &mut problems);
    let etcd =
        file.deployment.etcd.as_ref().map(|etcd| etcd_settings(etcd, &file.apisix, &below, &mut problems));
    let own_store = role != Role::DataPlane && provider != Provider::Etcd;
    let etcd_or_default = || {
        etcd.clone().unwrap_or_else(|| etcd_settings(&Etcd::default(), &file.apisix, &below, &mut Vec::new()))
    };

    let store = match (role, provider) {
        (Role::DataPlane, _) => None,
        (_, Provider::Embedded) => Some(StoreSettings::Embedded { dir: data_dir.join("store") }),
        (_, Provider::Etcd) => Some(StoreSettings::Etcd(etcd_or_default())),
        (Role::Traditional, Provider::Yaml | Provider::Json) => {
            Some(StoreSettings::Whole { dir: data_dir.join("standalone") })
        }
        (Role::ControlPlane, Provider::Yaml | Provider::Json) => None,
    };
    let admin = (role != Role::DataPlane && file.apisix.enable_admin)
        .then(|| admin(&file.deployment.admin, &below, &mut problems));
    // A traditional process with an etcd behind it is what API7 points at a control plane: it serves no data
    // planes of its own unless told to.
    let serves_data_planes = role == Role::ControlPlane || own_store || file.keelgate.dp_listen.is_some();
    let dp_listen =
        (role != Role::DataPlane && serves_data_planes).then(|| dp_listen(file, &below, &mut problems));

    let deployed = file.deployment.fallback_cp.as_ref().map(|one| ("deployment.fallback_cp", one));
    let own = file.fallback_cp.as_ref().map(|one| ("fallback_cp", one));
    let (dp_fallback, cp_fallback) = (deployed.or(own), own.or(deployed));
    let mode = |fallback: Option<(&str, &FallbackCp)>| fallback.and_then(|(_, fallback)| fallback.mode);
    let writes = role == Role::ControlPlane || role == Role::Traditional && own_store;
    if writes && mode(cp_fallback) == Some(FallbackMode::Read) {
        let text = "`read` on a node with a store of its own: it writes no backup, and needs none";
        warnings.push(Problem::new("fallback_cp.mode", text));
    }
    let export = cp_fallback
        .filter(|(_, fallback)| writes && fallback.mode != Some(FallbackMode::Read))
        .map(|fallback| backup::export(fallback, &below, &mut problems));
    if role == Role::DataPlane && mode(dp_fallback) == Some(FallbackMode::Write) {
        let text = "a data plane does not write backups yet: leave it to the control plane's `fallback_cp`";
        problems.push(Problem::new("deployment.fallback_cp.mode", text));
    }

    let source = backup::source(file, role, provider, dp_fallback, &home, etcd_or_default, &mut problems);
    let proxy = (role != Role::ControlPlane).then(|| engine::proxy(file, &below, env, &mut problems));

    discovery(file, &home, warnings, &mut problems);
    let mut settings = Settings {
        file: path.to_owned(),
        data_dir,
        role,
        group: group(file, env),
        store,
        admin,
        dp_listen,
        export,
        source,
        open_files: {
            let workers = proxy.as_ref().map_or(1, |proxy| proxy.workers.max(1) as u64);
            file.nginx_config.worker_rlimit_nofile.saturating_mul(workers)
        },
        proxy,
        control_api: file.apisix.enable_control.then(|| address(file.apisix.control, LOCAL, 9090)),
        status: Some(address(file.apisix.status, LOCAL, 7085)),
        prometheus: prometheus(&file.plugin_attr, &mut problems),
        instance: Arc::new(InstanceEnvelope { config: instance(file, &mut problems) }),
        plugins: file.plugins.clone(),
        stream_plugins: file
            .stream_plugins
            .clone()
            .unwrap_or_else(|| DEFAULT_STREAM_PLUGINS.map(str::to_owned).to_vec()),
        streams: file.apisix.proxy_mode != ProxyMode::Http,
        log_level: file.nginx_config.error_log_level.unwrap_or(LogLevel::Warn),
        error_log: below(Path::new(file.nginx_config.error_log.as_deref().unwrap_or("logs/error.log"))),
        pid_file: home.join("logs/keelgate.pid"),
        home,
    };
    without_effect(file, &settings, warnings);
    conflicts::find(&settings, &mut problems);
    conflicts::give_way(&mut settings, warnings);
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// What is wrong with `discovery`, and which of its keys are not used.
fn discovery(file: &File, home: &Path, warnings: &mut Vec<Problem>, problems: &mut Vec<Problem>) {
    match Config::default().discover(&file.discovery, home) {
        Ok(unused) => {
            let told =
                |key: String| Problem::new(format!("discovery.{key}"), "this key is not used by Keelgate");
            warnings.extend(unused.into_iter().map(told));
        }
        Err(wrong) => problems.push(Problem::new(format!("discovery.{}", wrong.key), wrong.text)),
    }
}

/// Tells of what is written and does nothing here.
fn without_effect(file: &File, settings: &Settings, warnings: &mut Vec<Problem>) {
    let mut tell = |key: &str, text: String| warnings.push(Problem::new(key, text));
    // APISIX's own default names some that there are not.
    let missing = settings.proxy.as_ref().map_or(&[][..], |proxy| &proxy.ssl_ciphers.unknown);
    if file.apisix.ssl.ssl_ciphers != SSL_CIPHERS && !missing.is_empty() {
        tell("apisix.ssl.ssl_ciphers", format!("there is no {}", missing.join(", ")));
    }
    let formats = [
        ("http", &file.nginx_config.http.access_log_format),
        ("stream", &file.nginx_config.stream.access_log_format),
    ];
    for (part, format) in formats {
        let format = Format::new(format.as_deref().unwrap_or_default(), Escape::default(), 0);
        for name in format.unknown() {
            let key = format!("nginx_config.{part}.access_log_format");
            tell(&key, format!("there is no variable `${name}`: nothing is written for it"));
        }
    }
    let stream_proxy = &file.apisix.stream_proxy;
    let ports = !stream_proxy.tcp.is_empty() || !stream_proxy.udp.is_empty();
    if ports && !settings.streams {
        tell("apisix.stream_proxy", "it does nothing while apisix.proxy_mode is `http`".to_owned());
    }
    let admin = file.apisix.enable_admin && file.deployment.admin.admin_key.is_some();
    if admin && settings.role == Role::DataPlane {
        tell("deployment.admin", "a data plane has no Admin API".to_owned());
    }
    let strangers = |names: Vec<&String>, on_streams: bool| {
        let is_built_in = |name: &str| {
            plugins::ALL.iter().any(|spec| spec.facts.name == name && (spec.on_streams || !on_streams))
        };
        let missing: Vec<&str> = names.into_iter().map(|name| &**name).filter(|n| !is_built_in(n)).collect();
        (!missing.is_empty()).then(|| format!("not built in: {}", missing.join(", ")))
    };
    let lists = [
        ("plugins", file.plugins.iter().flatten().collect(), false),
        ("stream_plugins", file.stream_plugins.iter().flatten().collect(), true),
        ("plugin_attr", file.plugin_attr.keys().collect(), false),
    ];
    for (key, names, on_streams) in lists {
        if let Some(text) = strangers(names, on_streams) {
            tell(key, text);
        }
    }
}

/// The folder above `conf/`; the file's own folder where it does not lie in one.
fn home_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    match (folder.file_name(), folder.parent()) {
        (Some(name), Some(above)) if name == "conf" => above.to_owned(),
        _ => folder.to_owned(),
    }
}

fn group(file: &File, env: Env<'_>) -> String {
    file.keelgate
        .gateway_group
        .clone()
        .or_else(|| env("KEELGATE_GATEWAY_GROUP"))
        .or_else(|| env("API7_GATEWAY_GROUP_SHORT_ID"))
        .filter(|group| !group.is_empty())
        .unwrap_or_else(|| "default".into())
}

fn provider(file: &File, problems: &mut Vec<Problem>) -> Provider {
    let deployment = &file.deployment;
    let (role, key) = match deployment.role {
        Role::Traditional => (&deployment.role_traditional, "deployment.role_traditional.config_provider"),
        Role::ControlPlane => {
            (&deployment.role_control_plane, "deployment.role_control_plane.config_provider")
        }
        Role::DataPlane => (&deployment.role_data_plane, "deployment.role_data_plane.config_provider"),
    };
    let default = match (deployment.role, &deployment.etcd) {
        (Role::Traditional | Role::ControlPlane, None) => Provider::Embedded,
        _ => Provider::Etcd,
    };
    let provider = role.config_provider.unwrap_or(default);
    match (deployment.role, provider) {
        (Role::DataPlane, Provider::Embedded) => {
            problems.push(Problem::new(
                key,
                "a data plane has no store of its own: use `etcd`, `yaml` or `json`",
            ));
        }
        (Role::ControlPlane, Provider::Yaml | Provider::Json) => {
            problems.push(Problem::new(key, "a control plane needs a store: use `embedded` or `etcd`"));
        }
        _ => {}
    }
    provider
}

type Below<'a> = &'a dyn Fn(&Path) -> PathBuf;

fn etcd_settings(
    etcd: &Etcd,
    apisix: &Apisix,
    below: Below<'_>,
    problems: &mut Vec<Problem>,
) -> EtcdSettings {
    let hosts: Vec<String> =
        etcd.host.clone().into_vec().into_iter().map(|host| host.trim_end_matches('/').to_owned()).collect();
    if hosts.is_empty() {
        problems.push(Problem::new(
            "deployment.etcd.host",
            "it is empty: name at least one, such as http://127.0.0.1:2379",
        ));
    }
    for host in &hosts {
        if !host.starts_with("http://") && !host.starts_with("https://") {
            let text = format!("`{host}` must begin with http:// or https://");
            problems.push(Problem::new("deployment.etcd.host", text));
        }
    }
    let identity = match (&etcd.tls.cert, &etcd.tls.key) {
        (Some(cert), Some(key)) => Some((below(cert), below(key))),
        (None, None) => None,
        _ => {
            problems.push(Problem::new("deployment.etcd.tls", "`cert` and `key` go together"));
            None
        }
    };
    EtcdSettings {
        hosts,
        prefix: etcd.prefix.trim_end_matches('/').to_owned(),
        timeout: etcd.timeout.0,
        user: etcd.user.clone().map(|user| (user, etcd.password.clone().unwrap_or_default().into())),
        ca: trusted_certificate(apisix).map(|file| below(Path::new(file))),
        identity,
        verify: etcd.tls.verify,
        sni: etcd.tls.sni.clone(),
    }
}

/// `system`, as nothing, means the system's own.
fn trusted_certificate(apisix: &Apisix) -> Option<&str> {
    apisix.ssl.ssl_trusted_certificate.as_deref().filter(|file| !file.is_empty() && *file != "system")
}

fn admin(admin: &Admin, below: Below<'_>, problems: &mut Vec<Problem>) -> AdminSettings {
    let mtls = &admin.admin_api_mtls;
    let tls = admin.https_admin.then(|| {
        if mtls.admin_ssl_cert.is_empty() || mtls.admin_ssl_cert_key.is_empty() {
            let text = "`https_admin` needs `admin_ssl_cert` and `admin_ssl_cert_key`";
            problems.push(Problem::new("deployment.admin.admin_api_mtls", text));
        }
        let ca = Some(&mtls.admin_ssl_ca_cert).filter(|ca| !ca.is_empty());
        ServerTls {
            cert: below(Path::new(&mtls.admin_ssl_cert)),
            key: below(Path::new(&mtls.admin_ssl_cert_key)),
            client_ca: ca.map(|ca| below(Path::new(ca))),
            keys: [
                "deployment.admin.admin_api_mtls.admin_ssl_cert",
                "deployment.admin.admin_api_mtls.admin_ssl_cert_key",
                "deployment.admin.admin_api_mtls.admin_ssl_ca_cert",
            ],
        }
    });
    AdminSettings {
        listen: address(Some(admin.admin_listen), ANY, 9180).explicit_if(admin.admin_listen.port.is_some()),
        keys: admin.admin_key.clone().unwrap_or_default(),
        key_required: admin.admin_key_required,
        version: admin.admin_api_version,
        // APISIX's default; an empty list lets every address in.
        allow: admin.allow_admin.as_ref().map_or_else(
            || ipnet_or_ip::parse("127.0.0.0/24").into_iter().collect(),
            |nets| nets.iter().map(|net| net.0).collect(),
        ),
        cors: admin.enable_admin_cors,
        tls,
    }
}

impl Listener {
    fn explicit_if(mut self, explicit: bool) -> Self {
        self.explicit = explicit;
        self
    }
}

fn address(given: Option<Address>, ip: IpAddr, port: u16) -> Listener {
    let explicit = given.is_some();
    let given = given.unwrap_or_default();
    Listener { address: SocketAddr::new(given.ip.unwrap_or(ip), given.port.unwrap_or(port)), explicit }
}

fn dp_listen(file: &File, below: Below<'_>, problems: &mut Vec<Problem>) -> DpListenSettings {
    let given = file.keelgate.dp_listen.clone().unwrap_or_default();
    let ip = given.ip.unwrap_or(ANY);
    let plain = Listener {
        address: SocketAddr::new(ip, given.port.unwrap_or(7900)),
        // Without it nothing is served: it is not a default to give up.
        explicit: true,
    };
    let tls = match (&given.cert, &given.key) {
        (Some(cert), Some(key)) => {
            let listener =
                Listener { address: SocketAddr::new(ip, given.tls_port.unwrap_or(7943)), explicit: true };
            let client_ca = given.client_ca.as_deref().map(below);
            let keys = ["keelgate.dp_listen.cert", "keelgate.dp_listen.key", "keelgate.dp_listen.client_ca"];
            Some((listener, ServerTls { cert: below(cert), key: below(key), client_ca, keys }))
        }
        (None, None) => None,
        _ => {
            problems.push(Problem::new("keelgate.dp_listen", "`cert` and `key` go together"));
            None
        }
    };
    DpListenSettings { plain, tls }
}

fn prometheus(attrs: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<PrometheusSettings> {
    let attr = attrs.get("prometheus").cloned().unwrap_or(Value::Null);
    if attr["enable_export_server"] == Value::Bool(false) {
        return None;
    }
    let key = "plugin_attr.prometheus.export_addr";
    let address = match &attr["export_addr"] {
        Value::Null => address(None, LOCAL, 9091),
        given => match serde_json::from_value::<Address>(given.clone()) {
            Ok(given) => address(Some(given), LOCAL, 9091),
            Err(error) => {
                problems.push(Problem::new(key, error.to_string()));
                return None;
            }
        },
    };
    let path = attr["export_uri"].as_str().unwrap_or("/apisix/prometheus/metrics").to_owned();
    Some(PrometheusSettings { listen: address, path })
}

fn instance(file: &File, problems: &mut Vec<Problem>) -> Instance {
    let encryption = file.apisix.data_encryption.clone().unwrap_or_else(|| DataEncryption {
        enable_encrypt_fields: true,
        keyring: DEFAULT_KEYRING.map(str::to_owned).to_vec(),
        ..DataEncryption::default()
    });
    if let Err(error) = model::secrets::Keyring::new(&encryption) {
        problems.push(Problem::new("apisix.data_encryption.keyring", error.to_string()));
    }
    let payload = InstancePayload {
        apisix: Some(InstanceApisix { data_encryption: encryption, other: Map::new() }),
        discovery: file.discovery.clone(),
        plugin_attr: file.plugin_attr.clone(),
        other: Map::new(),
    };
    // Equal payloads have equal versions on every control plane, without anything being kept.
    let text = serde_json::to_string(&payload).unwrap_or_default();
    let version = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Within what every JSON reader takes for a whole number.
    Instance { config_version: version >> 12, config_payload: payload }
}
