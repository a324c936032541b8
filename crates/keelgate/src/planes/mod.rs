//! Which role runs what: the only wiring there is.
//!
//! The rule to know: a reload prepares everything that can fail beside what runs, and only then swaps. See ADR 8.

pub mod control;
pub mod data;
mod source;
mod tls;

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use model::{Instance, PluginFacts, instance::DataEncryption};
use proxy::{
    engine::{Engine, Listeners},
    plugin::Spec,
    router,
};
use tokio_util::task::TaskTracker;

use self::{
    control::{ControlPlane, Doors, Opening},
    data::{Applier, DataPlane},
};
use crate::{
    control_api::{self, View},
    server::{Server, Site},
    settings::{Listener, Settings},
};

/// Everything this process runs.
pub struct Planes {
    settings: Settings,
    servers: BTreeMap<Door, Arc<Server>>,
    view: Arc<View>,
    data: Option<Arc<DataPlane>>,
    engine: Option<Engine>,
    source: Option<store::source::Handle>,
    control: Option<Arc<ControlPlane>>,
    /// Closing what a reload left behind.
    leaving: TaskTracker,
}

/// The listeners that are not the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Admin,
    DataPlanes,
    DataPlanesTls,
    ControlApi,
    Status,
    Prometheus,
}

impl Door {
    /// Whether what it serves needs the store.
    const fn is_control_plane(self) -> bool {
        matches!(self, Self::Admin | Self::DataPlanes | Self::DataPlanesTls)
    }

    /// The key in `config.yaml` that says where it is.
    const fn key(self) -> &'static str {
        match self {
            Self::Admin => "deployment.admin.admin_listen",
            Self::DataPlanes => "keelgate.dp_listen.port",
            Self::DataPlanesTls => "keelgate.dp_listen.tls_port",
            Self::ControlApi => "apisix.control",
            Self::Status => "apisix.status",
            Self::Prometheus => "plugin_attr.prometheus.export_addr",
        }
    }
}

/// What can be found wrong without starting anything.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    for tls in server_tls(settings) {
        tls::server(tls)?;
    }
    for name in settings.plugins.iter().flatten() {
        if !plugins::ALL.iter().any(|spec| spec.facts.name == name) {
            tracing::debug!(plugin = name, "this plugin of the list is not built in");
        }
    }
    Ok(())
}

fn server_tls(settings: &Settings) -> impl Iterator<Item = &crate::settings::ServerTls> {
    let admin = settings.admin.as_ref().and_then(|admin| admin.tls.as_ref());
    let dp = settings.dp_listen.as_ref().and_then(|dp| dp.tls.as_ref()).map(|(_, tls)| tls);
    admin.into_iter().chain(dp)
}

/// What a reload has got ready: nothing of it is in force yet.
struct Prepared {
    settings: Settings,
    servers: BTreeMap<Door, Arc<Server>>,
    /// Servers that were there already, and what they serve from now on.
    swaps: Vec<(Arc<Server>, Site)>,
    opening: Option<Opening>,
}

impl Planes {
    /// Starts everything the settings ask for.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let mut planes = Self {
            view: Arc::new(View::new(&settings)),
            settings: settings.clone(),
            servers: BTreeMap::new(),
            data: None,
            engine: None,
            source: None,
            control: None,
            leaving: TaskTracker::new(),
        };
        let prepared = planes.prepare(settings, None)?;
        planes.commit(prepared).await?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            role = planes.settings.role.name(),
            file = %planes.settings.file.display(),
            "keelgate has started"
        );
        Ok(planes)
    }

    /// Applies new settings, all of them or, with an error, none.
    pub async fn reload(&mut self, settings: Settings) -> anyhow::Result<()> {
        check(&settings)?;
        let kept = self.kept_store(&settings);
        let prepared = self.prepare(settings, kept)?;
        self.commit(prepared).await?;
        tracing::info!(role = self.settings.role.name(), "the new settings are in force");
        Ok(())
    }

    /// The open store, where the new settings want the same one.
    fn kept_store(&self, new: &Settings) -> Option<Arc<dyn store::Store>> {
        let opened = self.control.as_ref()?.opened()?;
        (self.settings.store == new.store).then(|| opened.store.clone())
    }

    fn prepare(&self, settings: Settings, kept: Option<Arc<dyn store::Store>>) -> anyhow::Result<Prepared> {
        let mut servers = BTreeMap::new();
        let mut swaps = Vec::new();
        for (door, listener, site) in self.sites(&settings)? {
            match self.servers.get(&door).filter(|server| server.address() == listener.address) {
                Some(server) => {
                    // Until the control plane has begun anew on the same store, it goes on as it is.
                    let router =
                        if kept.is_some() && door.is_control_plane() { server.router() } else { site.router };
                    swaps.push((server.clone(), Site { router, tls: site.tls }));
                    servers.insert(door, server.clone());
                }
                None => {
                    if let Some(server) = bind(door, listener, site)? {
                        servers.insert(door, Arc::new(server));
                    }
                }
            }
        }
        let opening = match (&settings.store, kept) {
            (None, _) => None,
            (Some(_), Some(store)) => Some(Opening::Ready(store)),
            (Some(store), None) => Some(control::open(store)?),
        };
        Ok(Prepared { settings, servers, swaps, opening })
    }

    /// What each door serves. A control plane's doors say that it begins until it has.
    fn sites(&self, settings: &Settings) -> anyhow::Result<Vec<(Door, Listener, Site)>> {
        let plain = |router| Site { router, tls: None };
        let mut sites = Vec::new();
        if let Some(admin) = &settings.admin {
            let tls = admin.tls.as_ref().map(tls::server).transpose()?;
            sites.push((Door::Admin, admin.listen, Site { tls, ..control::not_open_yet() }));
        }
        if let Some(dp) = &settings.dp_listen {
            sites.push((Door::DataPlanes, dp.plain, control::not_open_yet()));
            if let Some((listener, tls)) = &dp.tls {
                let tls = Some(tls::server(tls)?);
                sites.push((Door::DataPlanesTls, *listener, Site { tls, ..control::not_open_yet() }));
            }
        }
        if let Some(listener) = settings.control_api {
            sites.push((Door::ControlApi, listener, plain(control_api::router(self.view.clone()))));
        }
        if let Some(listener) = settings.status {
            sites.push((Door::Status, listener, plain(control_api::status_router(self.view.clone()))));
        }
        if let Some(prometheus) = &settings.prometheus {
            let router = control_api::metrics_router(self.view.clone(), &prometheus.path);
            sites.push((Door::Prometheus, prometheus.listen, plain(router)));
        }
        Ok(sites)
    }

    /// Puts what was prepared in force.
    async fn commit(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        let Prepared { settings, servers, swaps, opening } = prepared;
        // The engine first: its listeners are the last thing that can fail, and nothing has changed yet.
        self.commit_engine(&settings).await?;
        let old_source = self.source.take();
        let resume = old_source.as_ref().and_then(store::source::Handle::current);
        if let Some(source) = old_source {
            source.stop().await;
        }
        if let Some(control) = self.control.take() {
            control.stop().await;
        }
        for (server, site) in swaps {
            server.replace(site);
        }
        let old_servers = std::mem::replace(&mut self.servers, servers);
        for (door, server) in old_servers {
            if !self.servers.get(&door).is_some_and(|kept| Arc::ptr_eq(kept, &server)) {
                self.leaving.spawn(async move { server.close().await });
            }
        }
        if let Some(opening) = opening {
            let door = |door| self.servers.get(&door).cloned();
            let doors = Doors {
                admin: door(Door::Admin),
                dp: door(Door::DataPlanes),
                dp_tls: door(Door::DataPlanesTls),
            };
            self.control = Some(Arc::new(ControlPlane::start(&settings, opening, doors)?));
        }
        if let (Some(data), Some(_)) = (&self.data, &settings.source) {
            data.adopt(&settings)?;
            let config = source::config(&settings, resume)?;
            self.source = Some(store::source::start(config, Arc::new(Applier(data.clone()))));
        }
        self.settings = settings;
        self.view.show(&self.settings, self.data.clone(), self.source.clone(), self.control.clone());
        Ok(())
    }

    async fn commit_engine(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let Some(proxy) = &settings.proxy else {
            if let Some(engine) = self.engine.take() {
                self.leaving.spawn_blocking(move || engine.drain());
            }
            self.data = None;
            return Ok(());
        };
        let data = match &self.data {
            Some(data) => data.clone(),
            None => Arc::new(DataPlane::new(settings)?),
        };
        if let Some(folder) = proxy.access_log.as_deref().and_then(Path::parent) {
            fs::create_dir_all(folder).with_context(|| {
                format!("nginx_config.http.access_log: {} can't be made", folder.display())
            })?;
        }
        let config = source::engine_config(proxy)?;
        match &mut self.engine {
            Some(engine) => engine.reconfigure(config).context("the proxy")?,
            None => {
                let engine = Engine::start(config, Listeners::default(), data.shared.clone());
                self.engine = Some(engine.context("the proxy")?);
            }
        }
        self.data = Some(data);
        Ok(())
    }

    /// After a log rotation.
    pub fn reopen_logs(&self) {
        if let Some(engine) = &self.engine {
            engine.reopen_log();
        }
    }

    /// Stops listening, lets what is in flight finish, keeps what must be kept.
    pub async fn finish(self) {
        let engine = async {
            if let Some(engine) = self.engine {
                let _ = tokio::task::spawn_blocking(move || engine.drain()).await;
            }
        };
        let rest = async {
            if let Some(source) = &self.source {
                source.stop().await;
            }
            if let Some(control) = &self.control {
                control.stop().await;
            }
            for server in self.servers.values() {
                server.close().await;
            }
        };
        tokio::join!(engine, rest);
    }
}

/// Binds, or gives way where a default address is taken.
fn bind(door: Door, listener: Listener, site: Site) -> anyhow::Result<Option<Server>> {
    match Server::bind(listener.address, site) {
        Ok(server) => Ok(Some(server)),
        Err(error) if !listener.explicit && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(
                "{} is taken by another process; going on without (set {} to choose another address)",
                listener.address,
                door.key()
            );
            Ok(None)
        }
        Err(error) => bail!("{}: {} can't be listened on: {error}", door.key(), listener.address),
    }
}

/// The plugins that these settings allow.
pub fn specs(settings: &Settings) -> impl Iterator<Item = &'static Spec> {
    let list = settings.plugins.clone();
    let allowed = move |name: &str| list.as_ref().is_none_or(|list| list.iter().any(|other| other == name));
    plugins::ALL.iter().filter(move |spec| allowed(spec.facts.name))
}

/// The same, as the control plane knows them. Made once per change of settings, for the life of the process.
fn plugin_facts(settings: &Settings) -> &'static [PluginFacts] {
    Vec::leak(specs(settings).map(|spec| spec.facts).collect())
}

fn encryption(instance: &Instance) -> DataEncryption {
    instance.config_payload.apisix.as_ref().map(|apisix| apisix.data_encryption.clone()).unwrap_or_default()
}

/// Who wrote a backup: the host and the process's home.
fn node_name(settings: &Settings) -> String {
    format!("{}:{}", hostname(), settings.home.display())
}

pub fn hostname() -> String {
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}

/// Who this node is: made once, kept in the data folder.
pub fn instance_id(settings: &Settings) -> String {
    let file = settings.data_dir.join("instance_id");
    if let Ok(id) = fs::read_to_string(&file)
        && !id.trim().is_empty()
    {
        return id.trim().to_owned();
    }
    let id = uuid::Uuid::new_v4().to_string();
    let kept = fs::create_dir_all(&settings.data_dir).and_then(|()| write_private(&file, id.as_bytes()));
    if let Err(error) = kept {
        tracing::warn!(file = %file.display(), %error, "the instance id can't be kept; it is new at every start");
    }
    id
}

/// Readable by this user alone.
fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut open = fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(bytes)
}

/// Proves that a backup boots, the way a data plane would.
fn prove(settings: &Settings) -> Arc<::control::export::Prove> {
    let settings = settings.clone();
    Arc::new(move |snapshot, instance| data::prove(&settings, snapshot, instance))
}

fn router_kind(settings: &Settings) -> router::Kind {
    settings.proxy.as_ref().map(|proxy| proxy.router).unwrap_or_default()
}
