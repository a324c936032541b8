//! Which nodes of an upstream are up: what clients' requests meet, and what we ask ourselves.
//!
//! The rule to know: health belongs to the upstream's name, not to a plan. A plan's set of nodes only looks at it, and
//! what did not change goes on through every change around it. As in APISIX, checks begin with the first request that
//! comes to the upstream, and that request itself does not count.

mod checks;
mod probe;
mod target;
mod watch;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use rustc_hash::FxHashMap;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

pub use checks::{Checks, Kind};
pub use target::Target;
pub use watch::{Watch, Watched};

use super::{ClientTls, Node};
use crate::lasting::Lasting;
use target::{Finding, Id};

/// Every upstream that is checked. Outlives plans, in [`Lasting`].
#[derive(Default)]
pub struct Checkers {
    /// Where we ask nodes; none: nowhere.
    background: Option<Handle>,
    disabled: AtomicBool,
    all: Mutex<BTreeMap<Arc<str>, Arc<Health>>>,
}

impl Checkers {
    /// Those of `lasting`.
    pub fn of(lasting: &Lasting) -> Arc<Self> {
        lasting.get_or("health", Self::default)
    }

    /// Has them ask nodes on this runtime. Before anything is compiled.
    pub fn run_on(lasting: &Lasting, background: Handle) -> Arc<Self> {
        lasting.get_or("health", || Self { background: Some(background), ..Self::default() })
    }

    /// `apisix.disable_upstream_healthcheck`, for what is compiled from now on.
    pub fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Relaxed);
    }

    /// The health of the upstream of this name, where it is checked.
    pub fn get(&self, name: &str) -> Option<Arc<Health>> {
        self.all().get(name).cloned()
    }

    /// Ends the checks of those that `serves` does not know. After each compile.
    pub fn retain(&self, serves: impl Fn(&Arc<Health>) -> bool) {
        self.all().retain(|_, health| {
            let goes_on = serves(health);
            if !goes_on {
                health.end();
            }
            goes_on
        });
    }

    /// The health that goes with `how`: the one there is, or a new one that knows what that one knew of its nodes.
    pub(super) fn take(&self, name: &Arc<str>, how: How) -> Option<Arc<Health>> {
        if self.disabled.load(Relaxed) {
            return None;
        }
        let mut all = self.all();
        let known = all.get(name);
        if let Some(same) = known.filter(|known| known.how == how) {
            return Some(Arc::clone(same));
        }
        let health = Arc::new(Health {
            name: Arc::clone(name),
            how,
            targets: Mutex::new(known.map(|known| known.targets()).unwrap_or_default()),
            turned: known.map(|known| Arc::clone(&known.turned)).unwrap_or_default(),
            begun: OnceLock::new(),
            background: self.background.clone(),
        });
        if known.is_some_and(|known| known.begun.get().is_some()) {
            health.begin();
        }
        all.insert(Arc::clone(name), Arc::clone(&health));
        Some(health)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Health>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How nodes of an upstream are asked, and what counts.
pub struct How {
    pub checks: Checks,
    /// The `Host` all nodes are asked for, where `pass_host` says so.
    pub host: Option<Arc<str>>,
    /// For checks over TLS.
    pub tls: Option<ClientTls>,
}

impl PartialEq for How {
    fn eq(&self, other: &Self) -> bool {
        let speaks = |how: &Self| how.tls.as_ref().map(|tls| tls.fingerprint);
        self.checks == other.checks && self.host == other.host && speaks(self) == speaks(other)
    }
}

/// The health of one upstream's nodes.
pub struct Health {
    name: Arc<str>,
    how: How,
    targets: Mutex<Arc<[Arc<Target>]>>,
    /// How often a node went up or down; shared with the health that comes after, as the targets are.
    turned: Arc<AtomicU64>,
    begun: OnceLock<Box<[AbortHandle]>>,
    background: Option<Handle>,
}

impl Health {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is checked; nothing before checks have begun.
    pub fn checked(&self) -> Arc<[Arc<Target>]> {
        if self.begun.get().is_some() { self.targets() } else { Arc::default() }
    }

    fn targets(&self) -> Arc<[Arc<Target>]> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these nodes are checked; those that were before keep their health. No nodes change nothing: they
    /// may just not be known yet.
    fn follow(&self, nodes: &[Arc<Node>]) -> Box<[Arc<Target>]> {
        if nodes.is_empty() {
            return Box::default();
        }
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let known: FxHashMap<&Id, &Arc<Target>> = targets.iter().map(|target| (&target.id, target)).collect();
        let mut followed: FxHashMap<Id, Arc<Target>> = FxHashMap::default();
        let mut next = Vec::with_capacity(nodes.len());
        let follow = |node: &Arc<Node>| {
            let id = self.id(node);
            let target = followed.entry(id.clone()).or_insert_with(|| {
                let known = known.get(&id).map(|known| Arc::clone(known));
                let target = known.unwrap_or_else(|| Arc::new(Target::new(id, self.address(node))));
                next.push(Arc::clone(&target));
                target
            });
            Arc::clone(target)
        };
        let of_nodes = nodes.iter().map(follow).collect();
        *targets = next.into();
        of_nodes
    }

    fn id(&self, node: &Node) -> Id {
        let checks = &self.how.checks;
        let bare = node.host.trim_start_matches('[').trim_end_matches(']');
        let is_name = bare.parse::<IpAddr>().is_err();
        let ip = match node.address.map(|address| address.ip()) {
            Some(IpAddr::V4(ip)) if is_name => ip.to_string().into(),
            Some(IpAddr::V6(ip)) if is_name => format!("[{ip}]").into(),
            _ => Arc::clone(&node.host),
        };
        Id {
            hostname: checks.host.as_deref().map_or_else(|| Arc::clone(&ip), Into::into),
            ip,
            port: checks.port.unwrap_or(node.port),
            header: self.how.host.clone().or_else(|| is_name.then(|| Arc::clone(&node.host))),
        }
    }

    fn address(&self, node: &Node) -> Option<SocketAddr> {
        let mut address = node.address?;
        address.set_port(self.how.checks.port.unwrap_or(node.port));
        Some(address)
    }

    /// Begins to ask nodes; true where this has happened before.
    fn begin(self: &Arc<Self>) -> bool {
        if self.begun.get().is_some() {
            return true;
        }
        self.begun.get_or_init(|| {
            let Some(background) = &self.background else { return Box::default() };
            let Checks { up, down, .. } = self.how.checks;
            tracing::debug!(upstream = &*self.name, "checks of nodes begin");
            [(up, true), (down, false)]
                .into_iter()
                .filter_map(|(every, up)| {
                    Some(background.spawn(keep_asking(Arc::downgrade(self), up, every?)))
                })
                .map(|task| task.abort_handle())
                .collect()
        });
        false
    }

    fn end(&self) {
        for task in self.begun.get().into_iter().flatten() {
            task.abort();
        }
    }

    /// Asks all nodes that are up, or all that are down.
    async fn ask(&self, up: bool) {
        let targets = self.targets();
        let due = targets.iter().filter(|target| target.is_up() == up);
        let tls = self.how.tls.as_ref().map(|tls| &tls.config);
        stream::iter(due)
            .for_each_concurrent(self.how.checks.concurrency, async |target| {
                if let Some(finding) = probe::probe(target, &self.how.checks, tls).await {
                    self.report(target, finding, &self.how.checks.active);
                }
            })
            .await;
    }

    fn report(&self, target: &Target, finding: Finding, limits: &checks::Limits) {
        let limit = match finding {
            Finding::Success => limits.successes,
            Finding::HttpFailure => limits.http_failures,
            Finding::TcpFailure => limits.tcp_failures,
            Finding::Timeout => limits.timeouts,
        };
        let Some(up) = target.report(finding, limit) else { return };
        self.turned.fetch_add(1, Release);
        let (upstream, node, port) = (&*self.name, &*target.id.ip, target.id.port);
        if up {
            tracing::info!(upstream, node, port, "node is up");
        } else {
            tracing::warn!(upstream, node, port, ?finding, "node is down");
        }
    }

    /// A client's request was answered with this status.
    fn answered(&self, target: &Target, status: StatusCode) {
        let limits = &self.how.checks.passive;
        let finding = if limits.good.contains(&status.as_u16()) {
            Finding::Success
        } else if limits.bad.contains(&status.as_u16()) {
            Finding::HttpFailure
        } else {
            return;
        };
        self.report(target, finding, limits);
    }

    /// A client's request got no answer.
    fn failed(&self, target: &Target, timed_out: bool) {
        let finding = if timed_out { Finding::Timeout } else { Finding::TcpFailure };
        self.report(target, finding, &self.how.checks.passive);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks nodes for as long as they are checked.
async fn keep_asking(health: Weak<Health>, up: bool, every: Duration) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(health) = health.upgrade() else { return };
        health.ask(up).await;
    }
}

#[cfg(test)]
mod tests;
