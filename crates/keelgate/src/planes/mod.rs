//! Which role runs what: the only wiring there is.
//!
//! The rule to know: a reload prepares everything that can fail beside what runs, and only then swaps. See ADR 8.

pub mod control;
pub mod data;
mod ocsp;
mod source;
mod tls;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use model::{Instance, PluginFacts, instance::DataEncryption};
use proxy::{
    engine::{self, Engine, Listeners},
    plugin::Spec,
    router::Routing,
};
use store::source::{Apply as _, Update};
use tokio_util::task::TaskTracker;

use self::{
    control::{ControlPlane, Doors},
    data::{Applier, DataPlane, Under},
};
use crate::{
    control_api::{self, View},
    reload::Reloader,
    server::{Server, Site},
    settings::{Listener, Problem, ProxySettings, ServerTls, Settings},
};

/// How long what a fallback gives may take to be read and compiled, once it is asked.
const SOURCES: Duration = Duration::from_secs(2);

/// Everything this process runs.
pub struct Planes {
    settings: Settings,
    servers: BTreeMap<Door, Arc<Server>>,
    view: Arc<View>,
    /// For who asks over HTTP.
    reloader: Reloader,
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

/// What can be found wrong without starting anything; every file that can't be used is told at once.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    let mut problems: Vec<Problem> = server_tls(settings).filter_map(|tls| tls::server(tls).err()).collect();
    problems.extend(tls::of_proxy(settings).err());
    problems.extend(tls::check_etcd(settings).err());
    problems.extend(settings.export.as_ref().and_then(|export| control::signing(export).err()));
    // The same file may be for upstreams and for etcd.
    problems.dedup_by(|one, before| (&one.key, &one.text) == (&before.key, &before.text));
    if !problems.is_empty() {
        return Err(settings.unusable(problems).into());
    }
    Under::new(settings)?;
    if let Some(export) = &settings.export {
        control::export_config(settings, export)?;
    }
    Ok(())
}

fn server_tls(settings: &Settings) -> impl Iterator<Item = &ServerTls> {
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
    engine: Option<engine::Config>,
    under: Option<Under>,
    source: Option<store::source::Config>,
    control: Option<control::Prepared>,
}

impl Planes {
    /// Starts everything the settings ask for.
    pub async fn start(settings: Settings, reloader: Reloader) -> anyhow::Result<Self> {
        let mut planes = Self {
            view: Arc::new(View::new(&settings, reloader.clone())),
            reloader,
            settings: settings.clone(),
            servers: BTreeMap::new(),
            data: None,
            engine: None,
            source: None,
            control: None,
            leaving: TaskTracker::new(),
        };
        let prepared = planes.prepare(settings, None)?;
        Box::pin(planes.commit(prepared)).await?;
        Ok(planes)
    }

    /// Lets clients in once a configuration is in force. Where none comes in time they are let in all the same, to be
    /// told so. Fails where an address was taken by another process meanwhile.
    pub async fn open(&mut self) -> anyhow::Result<()> {
        if let (Some(engine), Some(data)) = (&mut self.engine, &self.data)
            && !engine.is_open()
        {
            data.wait_for_configuration(self.settings.patience() + SOURCES).await;
            if !data.plan().is_configured {
                tracing::error!(
                    "no configuration could be had yet: requests are answered with 503 until there is one"
                );
            }
            engine.open().context("the proxy")?;
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            role = self.settings.role.name(),
            resources = self.settings.resources_from(),
            file = %self.settings.file.display(),
            "keelgate has started"
        );
        Ok(())
    }

    /// Applies new settings, all of them or, with an error, none.
    pub async fn reload(&mut self, settings: Settings) -> anyhow::Result<()> {
        check(&settings)?;
        let kept = self.kept_store(&settings);
        let prepared = self.prepare(settings, kept)?;
        self.commit(prepared).await?;
        if self.engine.as_ref().is_some_and(|engine| !engine.is_open()) {
            self.open().await?;
        }
        tracing::info!(role = self.settings.role.name(), "the new settings are in force");
        Ok(())
    }

    /// The open store, where the new settings want the same one.
    fn kept_store(&self, new: &Settings) -> Option<Arc<dyn store::Store>> {
        let opened = self.control.as_ref()?.opened()?;
        (self.settings.store == new.store).then(|| opened.store.clone())
    }

    /// Everything that can fail, except that the engine may not get its listeners.
    fn prepare(&self, settings: Settings, kept: Option<Arc<dyn store::Store>>) -> anyhow::Result<Prepared> {
        let engine = settings.proxy.as_ref().map(|proxy| self.prepare_engine(proxy)).transpose()?;
        let under = settings.proxy.as_ref().map(|_| Under::new(&settings)).transpose()?;
        let source = settings.source.as_ref().map(|_| source::config(&settings)).transpose()?;
        let mut servers = BTreeMap::new();
        let mut swaps = Vec::new();
        for (door, listener, site) in self.sites(&settings)? {
            match self.servers.iter().find(|(_, server)| server.address() == listener.address) {
                Some((before, server)) => {
                    // Until the control plane has begun anew on the same store, it goes on as it is.
                    let goes_on = kept.is_some() && door.is_control_plane() && *before == door;
                    let router = if goes_on { server.router() } else { site.router };
                    swaps.push((server.clone(), Site { router, tls: site.tls }));
                    servers.insert(door, server.clone());
                }
                None => {
                    if let Some(server) = self.bind(door, listener, site)? {
                        servers.insert(door, Arc::new(server));
                    }
                }
            }
        }
        let control = control::Prepared::new(&settings, kept, &self.reloader)?;
        Ok(Prepared { settings, servers, swaps, engine, under, source, control })
    }

    fn prepare_engine(&self, proxy: &ProxySettings) -> anyhow::Result<engine::Config> {
        let logs = [("http", &proxy.access_log), ("stream", &proxy.stream.access_log)];
        for (key, log) in logs {
            let Some(folder) = log.as_deref().and_then(Path::parent) else { continue };
            fs::create_dir_all(folder).with_context(|| {
                format!("nginx_config.{key}.access_log: {} can't be made", folder.display())
            })?;
        }
        let held = |address| self.engine.as_ref().is_some_and(|engine| engine.address(address).is_some());
        Ok(source::engine_config(proxy, &held))
    }

    /// What each door serves. A control plane's doors say that it begins until it has.
    fn sites(&self, settings: &Settings) -> anyhow::Result<Vec<(Door, Listener, Site)>> {
        let plain = |router| Site { router, tls: None };
        let server = |tls: &ServerTls| tls::server(tls).map_err(|problem| settings.unusable(vec![problem]));
        let mut sites = Vec::new();
        if let Some(admin) = &settings.admin {
            let tls = admin.tls.as_ref().map(server).transpose()?;
            sites.push((Door::Admin, admin.listen, Site { tls, ..control::not_open_yet() }));
        }
        if let Some(dp) = &settings.dp_listen {
            sites.push((Door::DataPlanes, dp.plain, control::not_open_yet()));
            if let Some((listener, tls)) = &dp.tls {
                let tls = Some(server(tls)?);
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
        let Prepared { settings, servers, swaps, engine, under, source, control } = prepared;
        // The engine first: its listeners are the last thing that can fail, and nothing has changed yet.
        let fresh = self.commit_engine(engine, under)?;
        let resume = self.stop_source(&settings).await;
        if let Some(control) = self.control.take() {
            control.stop().await;
        }
        self.commit_servers(servers, swaps);
        if let Some(control) = control {
            let door = |door| self.servers.get(&door).cloned();
            let doors = Doors {
                admin: door(Door::Admin),
                dp: door(Door::DataPlanes),
                dp_tls: door(Door::DataPlanesTls),
            };
            self.control = Some(Arc::new(control.start(doors)));
        }
        if let (Some(data), Some(config)) = (&self.data, source) {
            let applier = Applier(data.clone());
            if let Some(under) = fresh {
                data.adopt(under);
                renew(&applier, resume.as_deref()).await;
            }
            self.source =
                Some(store::source::start(store::source::Config { resume, ..config }, Arc::new(applier)));
        }
        self.settings = settings;
        self.view.show(&self.settings, self.data.clone(), self.source.clone(), self.control.clone());
        Ok(())
    }

    /// Gives what a data plane that goes on has still to adopt.
    fn commit_engine(
        &mut self,
        config: Option<engine::Config>,
        under: Option<Under>,
    ) -> anyhow::Result<Option<Under>> {
        let (Some(config), Some(under)) = (config, under) else {
            if let Some(engine) = self.engine.take() {
                self.leaving.spawn_blocking(move || engine.drain());
            }
            self.data = None;
            return Ok(None);
        };
        if let (Some(engine), Some(_)) = (&mut self.engine, &self.data) {
            engine.reconfigure(config).context("the proxy")?;
            return Ok(Some(under));
        }
        let data = Arc::new(DataPlane::new(under));
        let engine = Engine::bind(config, Listeners::default(), data.shared.clone());
        self.engine = Some(engine.context("the proxy")?);
        tokio::spawn(ocsp::run(Arc::downgrade(&data.shared)));
        tokio::spawn(data::follow_secrets(Arc::downgrade(&data)));
        self.data = Some(data);
        Ok(None)
    }

    /// Gives what was served, where the new settings are about the same resources.
    async fn stop_source(&mut self, new: &Settings) -> Option<Arc<Update>> {
        let source = self.source.take()?;
        let current = source.current();
        source.stop().await;
        current.filter(|_| self.settings.group == new.group)
    }

    fn commit_servers(&mut self, servers: BTreeMap<Door, Arc<Server>>, swaps: Vec<(Arc<Server>, Site)>) {
        for (server, site) in swaps {
            server.replace(site);
        }
        let old_servers = std::mem::replace(&mut self.servers, servers);
        for server in old_servers.into_values() {
            if !self.servers.values().any(|kept| Arc::ptr_eq(kept, &server)) {
                self.leaving.spawn(async move { server.close().await });
            }
        }
    }

    /// Binds, or gives way where a default address is taken.
    fn bind(&self, door: Door, listener: Listener, site: Site) -> anyhow::Result<Option<Server>> {
        // A listener of ours on the same port and another address is one that leaves, or two that agree.
        let beside = self.servers.values().any(|server| server.address().port() == listener.address.port());
        match Server::bind(listener.address, beside, site) {
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

    /// After a log rotation.
    pub fn reopen_logs(&self) {
        if let Some(engine) = &self.engine {
            engine.reopen_log();
        }
    }

    /// Keeps what must be kept, and no more: whoever is in a hurry does not wait long for a disk.
    pub async fn abandon(self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if let Some(source) = &self.source {
            let _ = tokio::time::timeout(PATIENCE, source.stop()).await;
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
            join_all(self.servers.values().map(|server| server.close())).await;
            // What was written until now is still backed up.
            if let Some(control) = &self.control {
                control.stop().await;
            }
        };
        self.leaving.close();
        tokio::join!(engine, rest, self.leaving.wait());
    }
}

/// What is served is compiled again: new settings may build it otherwise, and its source may be away for long.
async fn renew(applier: &Applier, current: Option<&Update>) {
    if let Some(update) = current
        && let Err(error) = applier.apply(update).await
    {
        tracing::error!(error, "what is served can't be built by the new settings yet; it stays as it is");
    }
}

/// The plugins that these settings allow.
pub fn specs(settings: &Settings) -> impl Iterator<Item = &'static Spec> {
    let list = settings.plugins.clone();
    let allowed = move |name: &str| list.as_ref().is_none_or(|list| list.iter().any(|other| other == name));
    plugins::ALL.iter().filter(move |spec| allowed(spec.facts.name))
}

/// The plugins that these settings allow on stream routes.
pub fn stream_specs(settings: &Settings) -> impl Iterator<Item = &'static Spec> {
    let list = settings.stream_plugins.clone();
    plugins::ALL.iter().filter(move |spec| spec.on_streams && list.iter().any(|name| name == spec.facts.name))
}

/// The same, as the control plane knows them.
pub fn plugin_facts(settings: &Settings) -> &'static [PluginFacts] {
    kept(specs(settings))
}

fn stream_plugin_facts(settings: &Settings) -> &'static [PluginFacts] {
    kept(stream_specs(settings))
}

/// Each list is made once, for the life of the process.
fn kept(specs: impl Iterator<Item = &'static Spec>) -> &'static [PluginFacts] {
    static MADE: Mutex<Vec<&'static [PluginFacts]>> = Mutex::new(Vec::new());
    let facts: Vec<PluginFacts> = specs.map(|spec| spec.facts).collect();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let names = |facts: &[PluginFacts]| facts.iter().map(|facts| facts.name).collect::<Vec<_>>();
    if let Some(same) = made.iter().find(|list| names(list) == names(&facts)) {
        return same;
    }
    let list = Vec::leak(facts);
    made.push(list);
    list
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

/// What the Admin API refuses because no data plane would serve it.
fn serves(settings: &Settings) -> anyhow::Result<::control::admin::Serves> {
    let tls = tls::of_proxy(settings).map_err(|problem| settings.unusable(vec![problem]))?;
    Ok(Arc::new(move |kind, conf| ::proxy::plan::check(kind, conf, &tls)))
}

fn routing(settings: &Settings) -> Routing {
    settings.proxy.as_ref().map(|proxy| proxy.routing).unwrap_or_default()
}

#[cfg(test)]
mod tests;
