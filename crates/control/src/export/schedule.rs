//! When the store is read and offered to the back ends: by the clock, after changes, on demand.
//!
//! The rule to know: a change waits for a quiet moment, but new changes cannot make it wait for ever.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Local, Utc};
use futures_util::StreamExt;
use model::Snapshot;
use store::{Store, bucket::Backoff};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{Config, Shared};

/// A snapshot of the store, to be exported.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub snapshot: Snapshot,
    /// When the store held just this.
    pub at: DateTime<Utc>,
    /// The last order to export that this answers. A higher one than before cuts a wait short.
    pub asked: u64,
}

#[derive(Debug)]
pub(super) enum Order {
    Now { asked: u64 },
    Stop,
}

pub(super) struct Schedule {
    shared: Shared,
    offers: watch::Sender<Option<Offer>>,
    asked: u64,
}

/// The longest wait of a change, in quiet times.
const MOST_QUIETS: u32 = 5;

impl Schedule {
    pub fn new(shared: Shared, offers: watch::Sender<Option<Offer>>) -> Self {
        Self { shared, offers, asked: 0 }
    }

    pub async fn run(&mut self, orders: &mut mpsc::Receiver<Order>) {
        let Config { on_change, debounce, .. } = *self.shared.config;
        let mut waiting = Waiting::new(debounce);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut due = Some(Instant::now());
        let (changes, mut changed) = mpsc::channel(1);
        let watching = on_change.then(|| tokio::spawn(follow(self.shared.store.clone(), changes)));
        let _abort = AbortOnDrop(watching);
        loop {
            let next = [due, waiting.until()].into_iter().flatten().min();
            tokio::select! {
                () = at(next) => {}
                Some(()) = changed.recv() => {
                    waiting.change();
                    self.shared.status.send_modify(|status| status.pending = true);
                    continue;
                }
                order = orders.recv() => match order {
                    Some(Order::Now { asked }) => self.asked = asked,
                    Some(Order::Stop) | None => {
                        if waiting.until().is_some() {
                            self.offer().await;
                        }
                        return;
                    }
                },
            }
            waiting = Waiting::new(debounce);
            due = if self.offer().await {
                backoff.reset();
                self.next()
            } else {
                Some(Instant::now() + backoff.wait())
            };
        }
    }

    fn next(&self) -> Option<Instant> {
        self.shared
            .config
            .cron
            .as_ref()
            .and_then(|cron| cron.after(Local::now()))
            .map(|wait| Instant::now() + wait)
    }

    /// Reads the whole store at one revision and offers it.
    async fn offer(&self) -> bool {
        let at = Utc::now();
        let read = self.shared.store.snapshot().await;
        let error = match read {
            Ok(snapshot) => {
                self.offers.send_replace(Some(Offer { snapshot, at, asked: self.asked }));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        let done = error.is_none();
        self.shared.status.send_modify(|status| {
            if status.store_error != error {
                match &error {
                    Some(error) => tracing::warn!(%error, "the store can't be read for the backup"),
                    None => tracing::info!("the store can be read for the backup again"),
                }
            }
            if !done {
                // Nothing was offered that the back ends could answer an order with.
                status.backends.iter_mut().for_each(|backend| backend.asked = self.asked);
            }
            status.store_error = error;
            status.pending = false;
            status.asked = self.asked;
        });
        done
    }
}

/// Changes that wait for a quiet moment.
struct Waiting {
    debounce: Duration,
    until: Option<Instant>,
    latest: Option<Instant>,
}

impl Waiting {
    fn new(debounce: Duration) -> Self {
        Self { debounce, until: None, latest: None }
    }

    fn change(&mut self) {
        let now = Instant::now();
        let latest = *self.latest.get_or_insert(now + self.debounce * MOST_QUIETS);
        self.until = Some((now + self.debounce).min(latest));
    }

    fn until(&self) -> Option<Instant> {
        self.until
    }
}

struct AbortOnDrop(Option<tokio::task::JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Says that something changed, for as long as somebody listens.
async fn follow(store: Arc<dyn Store>, changes: mpsc::Sender<()>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut seen = None;
    loop {
        // What was missed meanwhile is a change too; the first snapshot is offered anyway.
        if let Ok(snapshot) = store.snapshot().await {
            if seen.is_some_and(|seen| seen != snapshot.revision) && !tell(&changes) {
                return;
            }
            seen = Some(snapshot.revision);
            if let Ok(mut batches) = store.watch(snapshot.revision).await {
                while let Some(Ok(batch)) = batches.next().await {
                    backoff.reset();
                    seen = Some(batch.revision);
                    if !tell(&changes) {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// False if nobody listens any more. A change that was not taken up yet covers this one.
fn tell(changes: &mpsc::Sender<()>) -> bool {
    !matches!(changes.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
}
