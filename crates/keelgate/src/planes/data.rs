//! The data plane of this process: compiles what its source gives and swaps it in.
//!
//! The rule to know: one update after another, each compiled beside the plan in force and swapped in whole.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use control::export::Proof;
use model::{Instance, Kind, Rejected, Snapshot, secrets::Keyring};
use proxy::{
    engine::Shared,
    lasting::Lasting,
    plan::{Catalog, Input, Plan, Report, compile},
    secrets::{self, Secrets, reference::Reference},
    upstream::{
        discovery::{Config, Directory},
        health::Checkers,
    },
};
use serde_json::{Map, Value, json};
use store::source::{Apply, Update};
use tokio::{runtime::Handle, sync::watch};

use crate::settings::{Settings, SourceFrom};

/// How long a plan waits for secrets that nobody has asked for before.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long changes of secrets are gathered before they are put in force.
const PAUSE: Duration = Duration::from_millis(20);

/// Everything of a data plane that outlives its settings: the plan in force, and what plans leave behind.
pub struct DataPlane {
    pub shared: Arc<Shared>,
    pub report: ArcSwap<Report>,
    lasting: Lasting,
    checkers: Arc<Checkers>,
    under: Mutex<Under>,
    last: Mutex<Applied>,
    /// Whether a configuration has ever been in force.
    configured: watch::Sender<bool>,
}

/// What plans are compiled under, besides the snapshot.
pub struct Under {
    settings: Arc<Settings>,
    catalog: Arc<Catalog>,
    tls: proxy::tls::Settings,
    /// The instance configuration of the plan in force; none before the first, and after new settings.
    instance: Option<Instance>,
}

/// What became of the last update.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub took: Duration,
    /// Entries of the file or object that were no resources.
    pub unreadable: Vec<Rejected>,
}

impl DataPlane {
    /// On a runtime: nodes of upstreams are checked there.
    pub fn new(under: Under) -> Self {
        let lasting = Lasting::new(under.directory(), under.secrets());
        Self {
            shared: Arc::default(),
            report: ArcSwap::default(),
            checkers: Checkers::run_on(&lasting, Handle::current()),
            lasting,
            under: Mutex::new(under),
            last: Mutex::default(),
            configured: watch::channel(false).0,
        }
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.shared.plan.load_full()
    }

    /// Waits for the first configuration, but no longer than that.
    pub async fn wait_for_configuration(&self, patience: Duration) {
        let mut configured = self.configured.subscribe();
        let _ = tokio::time::timeout(patience, configured.wait_for(|configured| *configured)).await;
    }

    /// The upstreams whose nodes are checked.
    pub fn checkers(&self) -> &Checkers {
        &self.checkers
    }

    pub fn last(&self) -> Applied {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What names and services lead to.
    pub fn directory(&self) -> &Directory {
        &self.lasting.directory
    }

    /// What references to secrets stand for.
    pub fn secrets(&self) -> &Secrets {
        &self.lasting.secrets
    }

    /// How each secret manager fares that something refers to, also one that there is not.
    pub fn heard_of_secrets(&self) -> Vec<secrets::Heard> {
        let mut heard = self.secrets().heard();
        for reference in self.plan().unmanaged() {
            let Some(Ok(Reference::Kept { manager, .. })) = Reference::read(reference) else { continue };
            let at = heard.iter().position(|one| *one.manager == *manager).unwrap_or_else(|| {
                heard.push(secrets::Heard::nothing_of(manager));
                heard.len() - 1
            });
            let one = &mut heard[at];
            (one.followed, one.failing, one.unresolved) =
                (one.followed + 1, one.failing + 1, one.unresolved + 1);
            one.last_error = Some(self.why_no_manager(manager));
        }
        heard
    }

    fn why_no_manager(&self, manager: &str) -> String {
        let report = self.report.load();
        let refused = report.rejected.iter().find(|one| one.kind() == Kind::Secrets && one.id() == manager);
        refused.map_or_else(
            || format!("there is no resource secrets/{manager}"),
            |refused| format!("secrets/{manager} was refused: {}", refused.reason),
        )
    }

    /// New settings: the next update is compiled from the ground up.
    pub fn adopt(&self, under: Under) {
        *self.under.lock().unwrap_or_else(PoisonError::into_inner) = under;
    }

    /// Compiles and swaps in; on a thread that may take its time.
    fn put_in_force(&self, update: &Update) -> Result<(), String> {
        let began = Instant::now();
        let mut under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = under.instance_for(update.instance.as_deref());
        let rebuild = under.instance.as_ref() != Some(&instance);
        let keyring = Arc::new(keyring(&instance)?);
        if rebuild {
            self.lasting.directory.configure(under.discovery(&instance));
            self.lasting.secrets.configure(under.asking(&keyring));
        }
        self.swap(&under, &instance, &keyring, (update.snapshot.clone(), rebuild));
        under.instance = Some(instance);
        self.shared.status.set_configured();
        self.configured.send_replace(true);
        let took = began.elapsed();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Applied { took, unreadable: update.rejected.clone() };
        Ok(())
    }

    /// Has secrets that have changed take effect, unless an update does that anyway.
    fn renew_secrets(&self) -> Result<(), String> {
        let under = self.under.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(instance) = &under.instance else { return Ok(()) };
        self.swap(&under, instance, &keyring(instance)?, (self.plan().snapshot.clone(), false));
        Ok(())
    }

    /// Compiles, everything where that is said, and swaps in. Secrets that were never asked for are waited for, so
    /// that a manager that is well costs nobody a request.
    fn swap(
        &self,
        under: &Under,
        instance: &Instance,
        keyring: &Keyring,
        (snapshot, rebuild): (Snapshot, bool),
    ) {
        let began = Instant::now();
        let previous = self.plan();
        let input = Input {
            snapshot,
            keyring,
            catalog: &under.catalog,
            lasting: &self.lasting,
            attrs: &attrs(&under.settings, instance),
            routing: super::routing(&under.settings),
            tls: &under.tls,
            rebuild,
            news: self.lasting.secrets.take_news(),
        };
        self.checkers
            .set_disabled(!under.settings.proxy.as_ref().is_some_and(|proxy| proxy.checks_upstreams));
        let (mut plan, mut report) = compile(&input, Some(&previous));
        if self.lasting.secrets.wait(PATIENCE) {
            let compiled = report.compiled;
            let again = Input { rebuild: false, news: self.lasting.secrets.take_news(), ..input };
            (plan, report) = compile(&again, Some(&plan));
            report.compiled += compiled;
        }
        self.checkers.retain(|health| plan.checks(health));
        let (revision, compiled) = (plan.snapshot.revision, report.compiled);
        self.shared.plan.store(Arc::new(plan));
        for rejected in &report.rejected {
            tracing::debug!(key = %rejected.key, reason = rejected.reason, "a resource is refused");
        }
        self.report.store(Arc::new(report));
        drop(previous);
        self.lasting.sweep();
        tracing::debug!(revision, compiled, took_us = began.elapsed().as_micros(), "in force");
    }
}

/// Has secrets take effect as they change, for as long as there is a data plane.
pub async fn follow_secrets(data: Weak<DataPlane>) {
    let Some(secrets) = data.upgrade().map(|data| data.secrets().clone()) else { return };
    loop {
        // Looks now and then whether the data plane is still there.
        let changed = tokio::time::timeout(Duration::from_secs(60), secrets.changed()).await;
        let Some(data) = data.upgrade() else { return };
        if changed.is_err() {
            continue;
        }
        tokio::time::sleep(PAUSE).await;
        let renewed = tokio::task::spawn_blocking(move || data.renew_secrets()).await;
        let error = match renewed {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(error) => format!("the compile panicked: {error}"),
        };
        tracing::error!(error, "secrets that have changed can't be put in force");
    }
}

/// A data plane as sources see it.
pub struct Applier(pub Arc<DataPlane>);

#[async_trait]
impl Apply for Applier {
    async fn apply(&self, update: &Update) -> Result<(), String> {
        let (data, update) = (self.0.clone(), update.clone());
        let compiled = tokio::task::spawn_blocking(move || data.put_in_force(&update));
        compiled.await.map_err(|error| format!("the compile panicked: {error}"))?
    }
}

impl Under {
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let from_file =
            settings.source.as_ref().is_some_and(|source| matches!(source.from, SourceFrom::File(_)));
        let catalog = Catalog::new(super::specs(settings))
            .and_then(|catalog| catalog.with_streams(super::stream_specs(settings)))
            .and_then(|catalog| if from_file { catalog.with_schemas() } else { Ok(catalog) })
            .map_err(anyhow::Error::msg)
            .context("the plugins")?;
        Ok(Self {
            settings: Arc::new(settings.clone()),
            catalog: Arc::new(catalog),
            tls: super::tls::of_proxy(settings).map_err(|problem| settings.unusable(vec![problem]))?,
            instance: None,
        })
    }

    /// Follows names and services by tasks of the runtime that this is called in.
    fn directory(&self) -> Directory {
        Directory::new(&Handle::current(), self.settings.data_dir.join("endpoints.json"))
    }

    /// Follows secrets by tasks of the runtime that this is called in.
    fn secrets(&self) -> Secrets {
        Secrets::new(&Handle::current(), self.settings.data_dir.join("secrets.json"))
    }

    /// How secret managers are asked.
    fn asking(&self, keyring: &Arc<Keyring>) -> secrets::Config {
        secrets::Config {
            times: self.settings.proxy.as_ref().map(|proxy| proxy.secrets).unwrap_or_default(),
            roots: Arc::clone(&self.tls.roots),
            keyring: Arc::clone(keyring),
        }
    }

    /// Whom names and services are asked of. A registry that was delivered and can't be used costs no other.
    fn discovery(&self, instance: &Instance) -> Config {
        let dns = self.settings.proxy.as_ref().map(|proxy| proxy.dns.clone()).unwrap_or_default();
        let mut config = Config { dns, roots: Arc::clone(&self.tls.roots), ..Config::default() };
        for (name, registry) in &instance.config_payload.discovery {
            let one = Map::from_iter([(name.clone(), registry.clone())]);
            if let Err(unusable) = config.discover(&one, &self.settings.home) {
                tracing::error!(%unusable, "a registry is not asked");
            }
        }
        config
    }

    /// What the control plane delivers, with this node's own attributes over it and its own keys behind it.
    fn instance_for(&self, delivered: Option<&Instance>) -> Instance {
        let own = &self.settings.instance.config;
        let Some(delivered) = delivered else { return own.clone() };
        let mut merged = delivered.clone();
        for (name, attr) in &own.config_payload.plugin_attr {
            merged.config_payload.plugin_attr.insert(name.clone(), attr.clone());
        }
        for (name, registry) in &own.config_payload.discovery {
            merged.config_payload.discovery.insert(name.clone(), registry.clone());
        }
        let own = own.config_payload.apisix.clone().unwrap_or_default();
        let theirs = merged.config_payload.apisix.get_or_insert_with(|| own.clone());
        for key in own.data_encryption.keyring {
            if !theirs.data_encryption.keyring.contains(&key) {
                theirs.data_encryption.keyring.push(key);
            }
        }
        merged
    }
}

fn keyring(instance: &Instance) -> Result<Keyring, String> {
    Keyring::new(&super::encryption(instance)).map_err(|error| format!("the keyring: {error}"))
}

/// `plugin_attr`, with what plugins must know of our listeners.
fn attrs(settings: &Settings, instance: &Instance) -> Map<String, Value> {
    let mut attrs = instance.config_payload.plugin_attr.clone();
    let https = settings.proxy.as_ref().and_then(|proxy| proxy.tls_listen.first());
    if let Some(listener) = https {
        let redirect = attrs.entry("redirect").or_insert_with(|| json!({}));
        if let Some(redirect) = redirect.as_object_mut() {
            redirect.entry("https_port").or_insert_with(|| listener.address.port().into());
        }
    }
    attrs
}

/// Compiles a backup the way a data plane would.
pub fn prove(settings: &Settings, snapshot: &Snapshot, instance: &Instance) -> Result<Proof, String> {
    let under = Under::new(settings).map_err(|error| format!("{error:#}"))?;
    let input = Input {
        snapshot: snapshot.clone(),
        keyring: &keyring(instance)?,
        catalog: &under.catalog,
        lasting: &Lasting::blind(),
        attrs: &attrs(settings, instance),
        routing: super::routing(settings),
        tls: &under.tls,
        rebuild: true,
        news: Vec::new(),
    };
    let (_, report) = compile(&input, None);
    Ok(Proof { resources: snapshot.len(), rejected: report.rejected.len() })
}
