//! The exporter: keeps the backup of one group up to date with the store.
//!
//! The rule to know: it only reads the store, and it never replaces a backup by something that looks like a loss.
//! Such a change is *held*, and said to be, until a person accepts it.

mod backend;
mod compare;
mod cron;
mod guard;
mod schedule;
mod sequences;
mod status;

#[cfg(test)]
mod tests;

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use model::{Instance, Snapshot};
use store::{
    Store,
    backup::{Buckets, Signing},
    bucket::Backoff,
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

pub use cron::{BadSpec, CronSpec};
pub use guard::Guard;
pub use status::{BackendStatus, ByHand, Held, Status};

use backend::Backend;
use schedule::{Offer, Order, Schedule};
use sequences::Sequences;

/// What is exported, where to and when.
#[derive(Clone, Debug)]
pub struct Config {
    pub group: String,
    /// Each is written to, each fails alone.
    pub backends: Vec<(String, Buckets)>,
    pub cron: Option<CronSpec>,
    /// Export soon after each change.
    pub on_change: bool,
    /// A change waits for so long a quiet, but never five times as long.
    pub debounce: Duration,
    /// So many publications are kept.
    pub keep: usize,
    pub guard: Guard,
    pub signing: Option<Arc<Signing>>,
    pub instance: Arc<Instance>,
    /// Instance id and host name of this process.
    pub writer: String,
    /// Where the highest sequence is kept over restarts and changes of back ends; none: nowhere.
    pub sequences: Option<PathBuf>,
}

impl Config {
    /// The defaults around one group.
    pub fn new(group: impl Into<String>, backends: Vec<(String, Buckets)>) -> Self {
        Self {
            group: group.into(),
            backends,
            cron: None,
            on_change: true,
            debounce: Duration::from_secs(1),
            keep: 100,
            guard: Guard::default(),
            signing: None,
            instance: Arc::default(),
            writer: String::new(),
            sequences: None,
        }
    }
}

/// Compiles what was read back, the way a data plane would. Fails if no data plane could serve it.
pub type Prove = dyn Fn(&Snapshot, &Instance) -> Result<Proof, String> + Send + Sync;

/// What a compile made of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    pub resources: usize,
    /// Resources a data plane would refuse, each alone.
    pub rejected: usize,
}

/// Starts the tasks of an exporter.
#[derive(Debug)]
pub struct Exporter;

impl Exporter {
    /// Exports what is there now, then as `config` says, until the handle is stopped or dropped.
    pub fn start(config: Config, store: Arc<dyn Store>, prove: Arc<Prove>) -> Handle {
        let (status, _) = watch::channel(Status::new(&config));
        let status = Arc::new(status);
        let (offers, offered) = watch::channel(None);
        let (orders, ordered) = mpsc::channel(16);
        let sequences = Arc::new(Sequences::load(config.sequences.clone(), &config.group));
        let shared = Shared { config: Arc::new(config), store, prove, sequences, status: status.clone() };
        let mut tasks = JoinSet::new();
        for at in 0..shared.config.backends.len() {
            tasks.spawn(keep_writing(at, shared.clone(), offered.clone()));
        }
        tasks.spawn(keep_offering(Schedule::new(shared.clone(), offers), shared, ordered));
        Handle { orders, status, asked: Arc::default(), tasks: Mutex::new(tasks) }
    }
}

/// What the tasks of an exporter have in common.
#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    prove: Arc<Prove>,
    sequences: Arc<Sequences>,
    status: Arc<watch::Sender<Status>>,
}

/// Between the end of a task by a panic and its next life, the first time and at most.
const REVIVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Writes to a back end. A panic is told like any other failure, and it is begun anew.
async fn keep_writing(at: usize, shared: Shared, mut offers: watch::Receiver<Option<Offer>>) {
    let mut backoff = Backoff::new(REVIVAL.0, REVIVAL.1);
    loop {
        let life = Backend::new(at, shared.clone()).run(offers.clone());
        let Err(panic) = AssertUnwindSafe(life).catch_unwind().await else { return };
        let error = format!("it ended by a panic: {}", said(&*panic));
        tracing::error!(backend = shared.config.backends[at].0, error, "writing the backup is begun anew");
        let asked = offers.borrow().as_ref().map_or(0, |offer| offer.asked);
        shared.status.send_modify(|status| {
            let backend = &mut status.backends[at];
            (backend.asked, backend.last_error) = (asked, Some(error));
            backend.errors_total += 1;
        });
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            changed = offers.wait_for(|offer| offer.as_ref().is_some_and(|offer| offer.asked > asked)) => {
                if changed.is_err() {
                    return;
                }
            }
        }
        offers.mark_changed();
    }
}

/// Reads the store and offers it. A panic is told like any other failure, and it is begun anew.
async fn keep_offering(mut schedule: Schedule, shared: Shared, mut orders: mpsc::Receiver<Order>) {
    let mut backoff = Backoff::new(REVIVAL.0, REVIVAL.1);
    loop {
        let life = schedule.run(&mut orders);
        let Err(panic) = AssertUnwindSafe(life).catch_unwind().await else { return };
        let error = format!("it ended by a panic: {}", said(&*panic));
        tracing::error!(error, "reading the store for the backup is begun anew");
        shared.status.send_modify(|status| status.store_error = Some(error));
        tokio::time::sleep(backoff.wait()).await;
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}

/// A running exporter. Dropping it stops it where it is.
#[derive(Debug)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    status: Arc<watch::Sender<Status>>,
    asked: Arc<AtomicU64>,
    tasks: Mutex<JoinSet<()>>,
}

/// How long [`Handle::stop`] waits for exports under way.
const STOPPING: Duration = Duration::from_secs(10);

impl Handle {
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status, for metrics.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Exports now, to every back end. Gives the status once each has tried.
    pub async fn now(&self) -> Status {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut status = self.status.subscribe();
        if self.orders.send(Order::Now { asked }).await.is_err() {
            return self.status();
        }
        let tried = |status: &Status| {
            status.asked >= asked && status.backends.iter().all(|backend| backend.asked >= asked)
        };
        match status.wait_for(tried).await {
            Ok(status) => status.clone(),
            Err(_) => self.status(),
        }
    }

    /// Releases what is held and exports it. Gives the status once that is done.
    pub async fn accept(&self) -> Status {
        self.status.send_modify(|status| {
            for backend in &mut status.backends {
                backend.accepted = backend.held.is_some();
            }
        });
        self.now().await
    }

    /// Exports changes that are still waiting for quiet, and ends.
    pub async fn stop(&self) {
        let _ = self.orders.send(Order::Stop).await;
        let mut tasks = self.tasks.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOPPING, ended).await.is_err() {
            tracing::warn!("an export was still under way and was given up");
        }
    }
}
