//! The control plane of this process: store, Admin API, configuration API, exporter.
//!
//! The rule to know: a store that can't be reached yet is waited for; until then the listeners are there and say so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use axum::Router;
use control::{
    admin,
    etcd::{Access, instances::Instances, mirror::Mirror},
    export,
};
use http::StatusCode;
use model::secrets::Keyring;
use serde_json::json;
use store::{Store, backup::Signing};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::prove;
use crate::{
    server::{Server, Site},
    settings::{AdminRole, EtcdSettings, ExportSettings, Settings, StoreSettings},
};

/// A control plane, with its store or still waiting for it.
pub struct ControlPlane {
    opened: Arc<ArcSwapOption<Opened>>,
    /// Ends the waiting for a store.
    _opening: DropGuard,
}

/// What there is once the store is open.
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub mirror: Arc<Mirror>,
    pub instances: Arc<Instances>,
    pub exporter: Option<export::Handle>,
}

/// The listeners a control plane has, each with what is told until the store is open.
pub struct Doors {
    pub admin: Option<Arc<Server>>,
    pub dp: Option<Arc<Server>>,
    pub dp_tls: Option<Arc<Server>>,
}

/// What can be opened at once, or must be dialled.
pub enum Opening {
    Ready(Arc<dyn Store>),
    Dial(Box<store::etcd::Config>),
}

/// Opens the store; a folder is opened now, an etcd cluster later.
pub fn open(settings: &StoreSettings) -> anyhow::Result<Opening> {
    Ok(match settings {
        StoreSettings::Embedded { dir } => {
            let embedded = store::embedded::Embedded::open(dir)
                .with_context(|| format!("the embedded store in {} can't be opened", dir.display()))?;
            Opening::Ready(Arc::new(embedded))
        }
        StoreSettings::Memory => Opening::Ready(Arc::new(store::memory::Memory::new())),
        StoreSettings::Etcd(etcd) => Opening::Dial(Box::new(etcd_config(etcd))),
    })
}

pub fn etcd_config(etcd: &EtcdSettings) -> store::etcd::Config {
    store::etcd::Config {
        hosts: etcd.hosts.clone(),
        prefix: etcd.prefix.clone(),
        timeout: etcd.timeout,
        user: etcd.user.clone(),
        tls: store::etcd::Tls {
            ca: etcd.ca.clone(),
            identity: etcd.identity.clone(),
            verify: etcd.verify,
            sni: etcd.sni.clone(),
        },
        ..store::etcd::Config::default()
    }
}

impl ControlPlane {
    /// Begins; the doors serve as soon as the store is open.
    pub fn start(settings: &Settings, opening: Opening, doors: Doors) -> anyhow::Result<Self> {
        let opened = Arc::new(ArcSwapOption::empty());
        let cancel = CancellationToken::new();
        let begin = Begin { settings: settings.clone(), doors, opened: opened.clone() };
        match opening {
            Opening::Ready(store) => begin.with(store)?,
            Opening::Dial(config) => {
                let waiting = cancel.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = dial(&config, begin) => {}
                        () = waiting.cancelled() => {}
                    }
                });
            }
        }
        Ok(Self { opened, _opening: cancel.drop_guard() })
    }

    pub fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.load_full()
    }

    /// Ends what writes to buckets; the store is given on.
    pub async fn stop(&self) -> Option<Arc<dyn Store>> {
        let opened = self.opened.swap(None)?;
        if let Some(exporter) = &opened.exporter {
            exporter.stop().await;
        }
        Some(opened.store.clone())
    }
}

/// Tries until the cluster answers.
async fn dial(config: &store::etcd::Config, begin: Begin) {
    let mut pause = Duration::from_millis(200);
    let mut told = String::new();
    loop {
        match store::etcd::Etcd::open(config.clone()).await {
            Ok(etcd) => {
                if let Err(error) = begin.with(Arc::new(etcd)) {
                    tracing::error!(error = format!("{error:#}"), "the control plane can't begin");
                }
                return;
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    tracing::warn!(error, "the store can't be opened yet; trying on");
                    told = error;
                }
            }
        }
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What is needed to begin once the store is there.
struct Begin {
    settings: Settings,
    doors: Doors,
    opened: Arc<ArcSwapOption<Opened>>,
}

impl Begin {
    fn with(&self, store: Arc<dyn Store>) -> anyhow::Result<()> {
        let settings = &self.settings;
        let mirror = Mirror::start(store.clone());
        let instances = Arc::new(Instances::default());
        if let Some(door) = &self.doors.admin {
            door.reroute(admin_router(settings, store.clone())?.merge(control::console::router()));
        }
        for door in [&self.doors.dp, &self.doors.dp_tls].into_iter().flatten() {
            let config = control::etcd::Config {
                prefix: prefix(settings).into(),
                access: Access::ReadOnly,
                group: settings.group.as_str().into(),
                instance: settings.instance.clone(),
            };
            door.reroute(control::etcd::router(config, store.clone(), mirror.clone(), instances.clone()));
        }
        let exporter = match &settings.export {
            Some(export) => Some(exporter(settings, export, store.clone())?),
            None => None,
        };
        self.opened.store(Some(Arc::new(Opened { store, mirror, instances, exporter })));
        Ok(())
    }
}

fn prefix(settings: &Settings) -> &str {
    match &settings.store {
        Some(StoreSettings::Etcd(etcd)) => &etcd.prefix,
        _ => "/apisix",
    }
}

/// What a door says while there is no store.
pub fn not_open_yet() -> Site {
    let answer = || async {
        let text = "the store can't be reached yet; see the log";
        (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({ "error_msg": text })))
    };
    Site { router: Router::new().fallback(answer), tls: None }
}

fn admin_router(settings: &Settings, store: Arc<dyn Store>) -> anyhow::Result<Router> {
    let admin = settings.admin.as_ref().context("there is no Admin API in these settings")?;
    let mut keys: Vec<admin::AdminKey> = admin
        .keys
        .iter()
        .filter(|key| !key.key.is_empty())
        .map(|key| admin::AdminKey {
            name: key.name.clone(),
            key: key.key.clone(),
            role: match key.role {
                AdminRole::Admin => admin::Role::Admin,
                AdminRole::Viewer => admin::Role::Viewer,
            },
        })
        .collect();
    if keys.is_empty() && admin.key_required {
        keys.push(admin::AdminKey {
            name: "admin".into(),
            key: generated_key(settings)?,
            role: admin::Role::Admin,
        });
    }
    let keyring = Keyring::new(&super::encryption(&settings.instance.config))?;
    let router = admin::router(admin::Config {
        keys,
        key_required: admin.key_required,
        allow: admin.allow.clone(),
        cors: admin.cors,
        server_tokens: settings.proxy.as_ref().is_none_or(|proxy| proxy.server_tokens),
        stream: false,
        groups: BTreeMap::from([(settings.group.clone(), store)]),
        default_group: settings.group.clone(),
        plugins: super::plugin_facts(settings),
        keyring: Arc::new(keyring),
    });
    router.map_err(anyhow::Error::msg).context("the Admin API")
}

/// The key of a control plane that was given none, the same at every start.
fn generated_key(settings: &Settings) -> anyhow::Result<String> {
    let file = settings.data_dir.join("admin.key");
    if let Ok(key) = std::fs::read_to_string(&file)
        && !key.trim().is_empty()
    {
        return Ok(key.trim().to_owned());
    }
    let key = uuid::Uuid::new_v4().simple().to_string();
    std::fs::create_dir_all(&settings.data_dir)
        .and_then(|()| super::write_private(&file, key.as_bytes()))
        .with_context(|| format!("the Admin API's key can't be kept in {}", file.display()))?;
    tracing::warn!(file = %file.display(), "no admin key is configured: one was made and kept in this file");
    Ok(key)
}

fn exporter(
    settings: &Settings,
    export: &ExportSettings,
    store: Arc<dyn Store>,
) -> anyhow::Result<export::Handle> {
    let backends = export
        .backends
        .iter()
        .map(|backend| Ok((backend.backend().to_owned(), store::bucket::Buckets::open(backend.clone())?)))
        .collect::<Result<Vec<_>, store::bucket::Error>>()?;
    let signing = match &export.private_key_file {
        Some(file) => {
            let pem = std::fs::read_to_string(file)
                .with_context(|| format!("the signing key {} can't be read", file.display()))?;
            let key =
                Signing::from_pem(&pem).with_context(|| format!("the signing key {}", file.display()))?;
            Some(Arc::new(key))
        }
        None => None,
    };
    let config = export::Config {
        cron: export.cron_spec.as_deref().map(export::CronSpec::parse).transpose()?,
        on_change: export.on_change,
        debounce: export.debounce,
        keep: export.keep,
        guard: export::Guard { max_shrink: export.max_shrink, allow_empty: export.allow_empty },
        signing,
        instance: Arc::new(settings.instance.config.clone()),
        writer: super::node_name(settings),
        ..export::Config::new(&settings.group, backends)
    };
    let prove = prove(settings);
    Ok(export::Exporter::start(config, store, prove))
}

/// Exports from the store of a process that does not run. Gives the exporter's status.
pub async fn export_once(settings: &Settings) -> anyhow::Result<serde_json::Value> {
    let export = settings.export.as_ref().context("there is no `fallback_cp`")?;
    let store = settings.store.as_ref().context("this role has no store")?;
    let store: Arc<dyn Store> = match open(store)? {
        Opening::Ready(store) => store,
        Opening::Dial(config) => Arc::new(store::etcd::Etcd::open(*config).await?),
    };
    let exporter = exporter(settings, export, store)?;
    let status = exporter.now().await;
    exporter.stop().await;
    Ok(serde_json::to_value(status)?)
}
