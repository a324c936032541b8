//! The control plane of this process: store, Admin API, configuration API, exporter.
//!
//! The rule to know: a store that can't be reached yet is waited for; until then the listeners are there and say so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use axum::Router;
use control::{
    admin,
    etcd::{Access, instances::Instances, mirror::Mirror},
    export,
};
use http::StatusCode;
use model::{InstanceEnvelope, secrets::Keyring};
use serde_json::json;
use store::{Store, backup::Signing};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::prove;
use crate::{
    reload::Reloader,
    server::{Server, Site},
    settings::{
        AdminRole, AdminSettings, AdminVersion, EtcdSettings, ExportSettings, Problem, Settings,
        StoreSettings,
    },
};

/// A control plane, with its store or still waiting for it.
pub struct ControlPlane {
    opened: Arc<ArcSwapOption<Opened>>,
    /// Why the store can't be read.
    damage: Option<String>,
    /// Ends the waiting for a store.
    cancel: CancellationToken,
    dialling: Mutex<Option<JoinHandle<()>>>,
}

/// A control plane to be: all that could go wrong with its settings has been tried.
pub struct Prepared {
    opening: Opening,
    begin: Begin,
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
    /// It can't be read, and this says why. Only where something else can be served meanwhile.
    Damaged(String),
}

/// Opens the store; a folder is opened now, an etcd cluster later.
pub fn open(settings: &StoreSettings) -> anyhow::Result<Opening> {
    Ok(match settings {
        StoreSettings::Embedded { dir } | StoreSettings::Whole { dir } => {
            let embedded = store::embedded::Embedded::open(dir)
                .with_context(|| format!("the embedded store in {} can't be opened", dir.display()))?;
            Opening::Ready(Arc::new(embedded))
        }
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

impl Prepared {
    /// Reads and checks everything; opens the store unless it is given, or far away.
    pub fn new(
        settings: &Settings,
        kept: Option<Arc<dyn Store>>,
        reloader: &Reloader,
    ) -> anyhow::Result<Option<Self>> {
        let Some(wanted) = &settings.store else { return Ok(None) };
        let begin = Begin {
            prefix: prefix(settings).into(),
            group: settings.group.as_str().into(),
            instance: settings.instance.clone(),
            admin: settings
                .admin
                .as_ref()
                .map(|admin| admin_config(settings, admin, reloader))
                .transpose()?,
            export: settings.export.as_ref().map(|export| export_config(settings, export)).transpose()?,
            prove: prove(settings),
        };
        let opening = match kept {
            Some(store) => Opening::Ready(store),
            None => match open(wanted) {
                Err(error) if is_damage(&error) && serves_without(settings) => {
                    let reason = format!("{error:#}");
                    tracing::error!(
                        reason,
                        "the last good configuration is served, and the Admin API answers 503; to mend it, stop \
                         this node, put a copy of the file back or move it away (then the node begins with an empty \
                         store, and serves on what it has until `keelgate config accept`), and start it"
                    );
                    Opening::Damaged(reason)
                }
                opened => opened?,
            },
        };
        Ok(Some(Self { opening, begin }))
    }

    /// Begins; the doors serve as soon as the store is open.
    pub fn start(self, doors: Doors) -> ControlPlane {
        let opened = Arc::new(ArcSwapOption::empty());
        let cancel = CancellationToken::new();
        let Self { opening, begin } = self;
        let mut damage = None;
        let dialling = match opening {
            Opening::Damaged(reason) => {
                for door in [&doors.admin, &doors.dp, &doors.dp_tls].into_iter().flatten() {
                    door.reroute(unavailable(format!("the store can't be read: {reason}")));
                }
                damage = Some(reason);
                None
            }
            Opening::Ready(store) => {
                opened.store(Some(Arc::new(begin.with(store, &doors))));
                None
            }
            Opening::Dial(config) => {
                let (waiting, opened) = (cancel.clone(), opened.clone());
                Some(tokio::spawn(async move {
                    tokio::select! {
                        store = dial(&config) => opened.store(Some(Arc::new(begin.with(store, &doors)))),
                        () = waiting.cancelled() => {}
                    }
                }))
            }
        };
        ControlPlane { opened, damage, cancel, dialling: Mutex::new(dialling) }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl ControlPlane {
    pub fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.load_full()
    }

    /// Why the store can't be read; none where it can, or is still waited for.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Ends the waiting for a store, and what writes to buckets.
    pub async fn stop(&self) {
        self.cancel.cancel();
        // Whoever comes next has the doors: this one must not begin behind its back.
        let dialling = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dialling) = dialling {
            let _ = dialling.await;
        }
        if let Some(opened) = self.opened.swap(None)
            && let Some(exporter) = &opened.exporter
        {
            exporter.stop().await;
        }
    }
}

/// Tries until the cluster answers.
async fn dial(config: &store::etcd::Config) -> Arc<dyn Store> {
    let mut pause = Duration::from_millis(200);
    let mut told = String::new();
    loop {
        match store::etcd::Etcd::open(config.clone()).await {
            Ok(etcd) => return Arc::new(etcd),
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
    prefix: Arc<str>,
    group: Arc<str>,
    instance: Arc<InstanceEnvelope>,
    admin: Option<admin::Config>,
    export: Option<export::Config>,
    prove: Arc<export::Prove>,
}

impl Begin {
    fn with(self, store: Arc<dyn Store>, doors: &Doors) -> Opened {
        let mirror = Mirror::start(store.clone());
        let instances = Arc::new(Instances::default());
        if let (Some(door), Some(mut config)) = (&doors.admin, self.admin) {
            config.groups = BTreeMap::from([(config.default_group.clone(), store.clone())]);
            match admin::router(config) {
                Ok(router) => door.reroute(router.merge(control::console::router())),
                // It was made once already when these settings were prepared.
                Err(error) => tracing::error!(error, "the Admin API can't begin"),
            }
        }
        for door in [&doors.dp, &doors.dp_tls].into_iter().flatten() {
            let config = control::etcd::Config {
                prefix: self.prefix.clone(),
                access: Access::ReadOnly,
                group: self.group.clone(),
                instance: self.instance.clone(),
            };
            door.reroute(control::etcd::router(config, store.clone(), mirror.clone(), instances.clone()));
        }
        let exporter =
            self.export.map(|config| export::Exporter::start(config, store.clone(), self.prove.clone()));
        Opened { store, mirror, instances, exporter }
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
    Site { router: unavailable("the store can't be reached yet; see the log".to_owned()), tls: None }
}

/// Answers everything with 503 and this.
fn unavailable(text: String) -> Router {
    let answer =
        move || async move { (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({ "error_msg": text }))) };
    Router::new().fallback(answer)
}

/// Whether the store is there and can't be read. One that another process has open is no damage.
fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|one| matches!(one.downcast_ref(), Some(store::Error::Corrupt { .. })))
}

/// Whether there is something to serve without the store.
fn serves_without(settings: &Settings) -> bool {
    settings.proxy.is_some()
        && store::source::disk::Folder::new(&settings.data_dir, &settings.group).has_one()
}

/// Of a store that is not known yet.
fn admin_config(
    settings: &Settings,
    admin: &AdminSettings,
    reloader: &Reloader,
) -> anyhow::Result<admin::Config> {
    if !admin.key_required {
        tracing::warn!("deployment.admin.admin_key_required: it is off, everyone may write configuration");
    }
    let reloader = reloader.clone();
    let keyring = Keyring::new(&super::encryption(&settings.instance.config))?;
    let config = admin::Config {
        keys: admin_keys(settings, admin)?,
        key_required: admin.key_required,
        allow: admin.allow.clone(),
        cors: admin.cors,
        server_tokens: settings.proxy.as_ref().is_none_or(|proxy| proxy.server_tokens),
        version: match admin.version {
            AdminVersion::V3 => admin::Version::V3,
            AdminVersion::V2 => admin::Version::V2,
        },
        whole_only: matches!(settings.store, Some(StoreSettings::Whole { .. })),
        stream: settings.streams,
        groups: BTreeMap::new(),
        default_group: settings.group.clone(),
        plugins: super::plugin_facts(settings),
        stream_plugins: super::stream_plugin_facts(settings),
        keyring: Arc::new(keyring),
        serves: super::serves(settings)?,
        reload: Arc::new(move || {
            let reloader = reloader.clone();
            Box::pin(async move { reloader.ask().await })
        }),
        prefix: prefix(settings).into(),
    };
    admin::router(config.clone()).map(|_| config).map_err(anyhow::Error::msg).context("the Admin API")
}

/// The keys of the Admin API. In the place of an empty one, and where there is none at all, one is made, as in APISIX.
fn admin_keys(settings: &Settings, admin: &AdminSettings) -> anyhow::Result<Vec<admin::AdminKey>> {
    let mut keys = Vec::new();
    for given in &admin.keys {
        let (name, role) = (given.name.clone(), given.role);
        match (given.key.as_str(), role) {
            ("", AdminRole::Viewer) => {
                tracing::warn!(name, "deployment.admin.admin_key: a viewer with an empty key is not let in");
            }
            ("", AdminRole::Admin) if !admin.key_required => {}
            ("", AdminRole::Admin) => {
                keys.push(admin::AdminKey { name, key: generated_key(settings)?, role: admin::Role::Admin });
            }
            (key, role) => keys.push(admin::AdminKey {
                name,
                key: key.to_owned(),
                role: match role {
                    AdminRole::Admin => admin::Role::Admin,
                    AdminRole::Viewer => admin::Role::Viewer,
                },
            }),
        }
    }
    if keys.is_empty() && admin.key_required {
        let key = generated_key(settings)?;
        keys.push(admin::AdminKey { name: "admin".into(), key, role: admin::Role::Admin });
    }
    Ok(keys)
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

/// The key that backups are signed by.
pub fn signing(export: &ExportSettings) -> Result<Option<Arc<Signing>>, Problem> {
    let Some(file) = &export.private_key_file else { return Ok(None) };
    let wrong = |why: String| {
        let key = format!("{}.signing.private_key_file", export.key);
        Problem::new(key, format!("{} {why}", file.display()))
    };
    let pem = std::fs::read_to_string(file).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let key = Signing::from_pem(&pem).map_err(|error| wrong(format!("can't be used: {error}")))?;
    Ok(Some(Arc::new(key)))
}

pub fn export_config(settings: &Settings, export: &ExportSettings) -> anyhow::Result<export::Config> {
    let backends = export
        .backends
        .iter()
        .map(|backend| Ok((backend.backend().to_owned(), store::bucket::Buckets::open(backend.clone())?)))
        .collect::<Result<Vec<_>, store::bucket::Error>>()?;
    let signing = signing(export).map_err(|problem| settings.unusable(vec![problem]))?;
    Ok(export::Config {
        cron: export.cron_spec.as_deref().map(export::CronSpec::parse).transpose()?,
        on_change: export.on_change,
        debounce: export.debounce,
        keep: export.keep,
        guard: export::Guard { max_shrink: export.max_shrink, allow_empty: export.allow_empty },
        signing,
        instance: Arc::new(settings.instance.config.clone()),
        writer: super::node_name(settings),
        sequences: Some(settings.data_dir.join("backup.json")),
        ..export::Config::new(&settings.group, backends)
    })
}

/// Exports from the store of a process that does not run. Gives the exporter's status.
pub async fn export_once(settings: &Settings) -> anyhow::Result<serde_json::Value> {
    let export = settings.export.as_ref().context("there is no `fallback_cp`")?;
    let store = settings.store.as_ref().context("this role has no store")?;
    let store: Arc<dyn Store> = match open(store)? {
        Opening::Ready(store) => store,
        Opening::Dial(config) => Arc::new(store::etcd::Etcd::open(*config).await?),
        Opening::Damaged(reason) => anyhow::bail!(reason),
    };
    let exporter = export::Exporter::start(export_config(settings, export)?, store, prove(settings));
    let status = exporter.now().await;
    exporter.stop().await;
    Ok(serde_json::to_value(status)?)
}
