//! Where nodes come from that the configuration does not name by address: DNS and registries.
//!
//! The rule to know: nothing is asked while a request waits, but for a name's very first answer. Whatever is followed
//! keeps its last good answer for as long as whoever gave it can't be heard, also over a restart.
//!
//! ```text
//! Live nodes ──follow──▶ Directory ──▶ Answer ◀──publish── resolver (one task a name)
//!     ▲                                   │   ◀──publish── registry (one task each: Consul, Nacos, …)
//!     └────────────rebuild────────────────┘   ◀──at first─ what was kept on disk
//! ```

mod answer;
mod board;
pub(crate) mod client;
mod config;
mod consul;
mod consul_kv;
mod dump;
mod eureka;
mod kept;
mod kubernetes;
mod nacos;
mod names;
mod resolver;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

pub use answer::{Answer, State};
pub use board::{Board, Heard};
pub use config::{Config, Dns, Registry, Unusable, server_address};
pub use nacos::key as nacos_key;
pub use resolver::Resolver;

use kept::Kept;

/// An address as DNS or a registry gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// An address; from a registry a name too.
    pub host: Box<str>,
    /// None: the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// In the place of `port` where gRPC is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

impl Endpoint {
    pub fn new(host: &str, port: Option<u16>, weight: u32) -> Self {
        Self { host: host.into(), port, weight, priority: None, grpc_port: None, metadata: None }
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// DNS, for the address of a node's host.
    Host,
    /// DNS, for a service.
    Dns,
    Consul,
    ConsulKv,
    Eureka,
    Kubernetes,
    Nacos,
}

impl Kind {
    /// As `discovery_type` and the keys of `discovery` have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Dns => "dns",
            Self::Consul => "consul",
            Self::ConsulKv => "consul_kv",
            Self::Eureka => "eureka",
            Self::Kubernetes => "kubernetes",
            Self::Nacos => "nacos",
        }
    }

    /// The discovery type of this name.
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Dns, Self::Consul, Self::ConsulKv, Self::Eureka, Self::Kubernetes, Self::Nacos];
        all.into_iter().find(|kind| kind.name() == name)
    }

    const fn is_dns(self) -> bool {
        matches!(self, Self::Host | Self::Dns)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    pub kind: Kind,
    pub name: Arc<str>,
}

/// Everything that is followed. Outlives plans; the default one asks nobody.
#[derive(Clone, Default)]
pub struct Directory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    runtime: Option<Handle>,
    answers: Mutex<FxHashMap<Query, Weak<Answer>>>,
    registries: Mutex<BTreeMap<Kind, Running>>,
    resolver: ArcSwap<Option<Resolver>>,
    /// Counts the resolvers: whoever resolves a name begins anew with each.
    resolvers: watch::Sender<u64>,
    config: Mutex<Config>,
    kept: Kept,
}

/// A registry that is asked.
struct Running {
    board: Arc<Board>,
    registry: Registry,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long a request waits for the first answer there ever was, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(5);

impl Directory {
    /// Asks by tasks of `runtime`; keeps what was answered in `file`.
    pub fn new(runtime: &Handle, file: PathBuf) -> Self {
        let kept = Kept::read(file);
        let inner = Arc::new(Inner { runtime: Some(runtime.clone()), kept, ..Inner::default() });
        runtime.spawn(kept::keep(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Asks these from now on. What has not changed goes on; answers stay until there are others.
    pub fn configure(&self, config: Config) {
        let Some(runtime) = &self.0.runtime else { return };
        // Also where nothing has changed: `/etc/hosts` and `/etc/resolv.conf` are read again.
        self.0.resolver.store(Arc::new(Some(Resolver::new(&config.dns))));
        self.0.resolvers.send_modify(|count| *count += 1);
        let mut running = lock(&self.0.registries);
        running.retain(|_, running| config.registries.contains(&running.registry));
        for registry in &config.registries {
            running.entry(registry.kind()).or_insert_with(|| {
                let board = Arc::new(Board::new(registry, &self.0));
                let task = runtime.spawn(registry.clone().run(Arc::clone(&board), config.roots.clone()));
                Running { board, registry: registry.clone(), task }
            });
        }
        drop(running);
        *lock(&self.0.config) = config;
        for answer in self.0.followed() {
            if !self.0.asks(answer.query.kind) {
                answer.give_up();
            }
        }
    }

    /// Follows what is asked for, until nobody holds the answer any more.
    pub fn follow(&self, query: Query) -> Arc<Answer> {
        let inner = &self.0;
        let mut answers = lock(&inner.answers);
        if let Some(known) = answers.get(&query).and_then(Weak::upgrade) {
            return known;
        }
        let answer = Arc::new(Answer::new(query.clone(), inner.at_first(&query)));
        answers.insert(query, Arc::downgrade(&answer));
        drop(answers);
        match &inner.runtime {
            Some(runtime) if answer.query.kind.is_dns() => {
                runtime.spawn(names::follow(Arc::downgrade(inner), Arc::downgrade(&answer)));
            }
            _ => {
                if let Some(board) = inner.board(answer.query.kind) {
                    board.wake();
                }
            }
        }
        answer
    }

    /// Whether anybody is asked for what is of this kind.
    pub fn asks(&self, kind: Kind) -> bool {
        self.0.asks(kind)
    }

    /// How long a request waits for a first answer.
    pub fn patience(&self) -> Duration {
        lock(&self.0.config).dns.patience.unwrap_or(PATIENCE)
    }

    /// What each registry has said, and what became of the names that DNS was asked for.
    pub fn heard(&self) -> Vec<Heard> {
        let registries: Vec<_> =
            lock(&self.0.registries).values().map(|running| running.board.heard()).collect();
        registries.into_iter().chain(names::heard(&self.0)).collect()
    }

    /// What APISIX's control API shows of a registry; none where it is not asked.
    pub fn dump(&self, kind: Kind) -> Option<Value> {
        let running = lock(&self.0.registries);
        let running = running.get(&kind)?;
        Some(running.registry.dump(&running.board))
    }

    /// The file that a registry's `dump` names, as it is.
    pub fn dump_file(&self, kind: Kind) -> Option<Result<String, String>> {
        lock(&self.0.registries).get(&kind)?.registry.dump_file()
    }

    /// Forgets what nobody follows any more.
    pub fn sweep(&self) {
        lock(&self.0.answers).retain(|_, answer| answer.strong_count() > 0);
    }
}

impl Inner {
    fn asks(&self, kind: Kind) -> bool {
        match kind {
            _ if self.runtime.is_none() => false,
            Kind::Host => true,
            Kind::Dns => self.resolver.load().as_ref().as_ref().is_some_and(Resolver::serves_services),
            _ => self.board(kind).is_some(),
        }
    }

    fn board(&self, kind: Kind) -> Option<Arc<Board>> {
        lock(&self.registries).get(&kind).map(|running| Arc::clone(&running.board))
    }

    /// What is known before anyone was asked.
    fn at_first(&self, query: &Query) -> State {
        let resolver = self.resolver.load();
        if let Some(known) = resolver.as_ref().as_ref().and_then(|resolver| resolver.at_once(query)) {
            return State::settled(known);
        }
        if let Some(known) = self.board(query.kind).and_then(|board| board.find(&query.name)) {
            return State::settled(known);
        }
        match self.kept.find(query) {
            Some(kept) => State::settled(kept),
            None if self.asks(query.kind) => State::default(),
            None => State::settled(Arc::default()),
        }
    }

    fn followed(&self) -> Vec<Arc<Answer>> {
        lock(&self.answers).values().filter_map(Weak::upgrade).collect()
    }

    /// Those who follow something of this kind.
    fn followed_of(&self, kind: Kind) -> Vec<Arc<Answer>> {
        lock(&self.answers)
            .iter()
            .filter(|(query, _)| query.kind == kind)
            .filter_map(|(_, answer)| answer.upgrade())
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
