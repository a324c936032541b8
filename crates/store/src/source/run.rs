//! Brings sources, [`Failover`] and [`Apply`] together: listens, asks what to do, does it, says how things stand.
//!
//! The rule to know: one task, one thing at a time. While an update is applied nothing else is decided, and what
//! came meanwhile is seen afterwards as the newest there is.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Apply, Authority, Config, Handle, Origin, Update, bucket, disk, etcd,
    facts::Facts,
    failover::{Event, Failover, Now, Policy},
    file,
    keeper::Keeper,
    notice::{Board, Notice, State},
    status::{Brief, Held, NothingHeld, Order, Shared},
};
use crate::bucket::Backoff;

/// How often it is looked whether what is served has become stale, and noted on disk that it has not.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

pub(super) fn start(config: Config, apply: Arc<dyn Apply>) -> Handle {
    let (orders, ordered) = mpsc::channel(4);
    let shared = Arc::new(Shared::new(&config));
    let run = Run::new(config, apply, shared.clone());
    tokio::spawn(run.run(ordered));
    Handle { shared, orders }
}

/// Between the end of a task by a panic and its next life, the first time and at most.
const REVIVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

struct Run {
    apply: Arc<dyn Apply>,
    shared: Arc<Shared>,
    failover: Failover,
    sources: Vec<Source>,
    /// Whether the backup should be read.
    poll: watch::Sender<bool>,
    keeper: Option<Keeper>,
    /// Follows the sources; ends with this.
    tasks: JoinSet<()>,
    started: Instant,
    held: Option<Held>,
    stale: bool,
    /// Where what this process goes on from came from before a reload, until something is served.
    resumed: Option<Origin>,
}

/// A source, as far as it was listened to.
struct Source {
    origin: Origin,
    notices: watch::Receiver<Notice>,
    update: Option<Arc<Update>>,
    reading: u64,
    error: Option<Arc<str>>,
}

impl Run {
    fn new(config: Config, apply: Arc<dyn Apply>, shared: Arc<Shared>) -> Self {
        let folder = config.data_dir.as_ref().map(|dir| disk::Folder::new(dir, &config.group));
        let mut marks = folder.as_ref().map(disk::Folder::marks).unwrap_or_default();
        marks.sequence = marks.sequence.max(config.resume.as_ref().and_then(|update| update.sequence));
        let mut run = Self {
            apply,
            failover: Failover::new(Policy::of(&config), marks),
            sources: Vec::new(),
            poll: watch::channel(false).0,
            keeper: folder.clone().map(|folder| Keeper::start(folder, shared.clone())),
            tasks: JoinSet::new(),
            started: Instant::now(),
            held: None,
            stale: false,
            resumed: config.resume.as_ref().map(|update| update.origin),
            shared,
        };
        run.start_authority(&config, marks.sequence, folder.as_ref());
        match (config.resume, folder) {
            (Some(update), _) => run.resume(&update),
            (None, Some(folder)) => {
                let board = run.listen(Origin::Disk);
                run.tasks.spawn_blocking(move || read_disk(&folder, &board));
            }
            (None, None) => {}
        }
        run
    }

    fn start_authority(&mut self, config: &Config, sequence: Option<u64>, folder: Option<&disk::Folder>) {
        let mut backup = None;
        match &config.authority {
            Authority::ControlPlane { etcd, fallback } => {
                let (etcd, group, shared) = (etcd.clone(), config.group.clone(), self.shared.clone());
                self.follow(Origin::ControlPlane, move |board| {
                    etcd::follow(etcd.clone(), group.clone(), board, shared.clone())
                });
                backup.clone_from(fallback);
            }
            Authority::Bucket(bucket) => backup = Some(bucket.clone()),
            Authority::File(path) => {
                let path = path.clone();
                let served = config.resume.as_ref().map(|update| update.snapshot.clone());
                let before = file::Before { served, kept: folder.cloned() };
                self.follow(Origin::File, move |board| file::follow(path.clone(), before.clone(), board));
            }
        }
        if let Some(backup) = backup {
            let (group, poll) = (config.group.clone(), self.poll.subscribe());
            self.follow(Origin::Bucket, move |board| {
                bucket::Poller::new(backup.clone(), (&group, sequence), board, poll.clone()).run()
            });
        }
    }

    /// Follows a source by a task of its own. A panic in there is told like any other failure of the source, and it is
    /// begun anew.
    fn follow<F>(&mut self, origin: Origin, begin: impl Fn(Board) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let board = self.listen(origin);
        self.tasks.spawn(async move {
            let mut backoff = Backoff::new(REVIVAL.0, REVIVAL.1);
            while AssertUnwindSafe(begin(board.clone())).catch_unwind().await.is_err() {
                tracing::error!(source = %origin, "following it ended by a panic and is begun anew");
                board.lost("following it ended by a panic; the log has more", false);
                tokio::time::sleep(backoff.wait()).await;
            }
        });
    }

    fn listen(&mut self, origin: Origin) -> Board {
        let (board, notices) = Board::new();
        self.sources.push(Source { origin, notices, update: None, reading: 0, error: None });
        board
    }

    /// What this process serves already counts as kept by this node, wherever it came from.
    fn resume(&mut self, update: &Arc<Update>) {
        let update = Arc::new(Update { origin: Origin::Disk, ..(**update).clone() });
        self.failover.resume(Facts::of(&update));
        self.shared.applied(update);
        self.publish();
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut minute = tokio::time::interval(CONFIRM_EVERY);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.settle().await;
            tokio::select! {
                at = changed(&mut self.sources) => self.hear(at),
                order = orders.recv() => match order {
                    Some(Order::Accept(answer)) => drop(answer.send(self.accept().await)),
                    Some(Order::Stop(done)) => {
                        self.stop().await;
                        // Who asked may have gone away since.
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                _ = minute.tick() => self.confirm(),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Does what is to be done now. Gives the time to look again.
    async fn settle(&mut self) -> Instant {
        loop {
            let decision = self.failover.decide(self.now());
            self.poll.send_if_modified(|poll| std::mem::replace(poll, decision.poll) != decision.poll);
            let Some(origin) = decision.serve else {
                self.publish();
                let wake = decision.wake.unwrap_or(CONFIRM_EVERY.saturating_mul(60));
                return self.started + wake.max(self.started.elapsed());
            };
            self.serve(origin).await;
        }
    }

    async fn serve(&mut self, origin: Origin) {
        let update =
            self.sources.iter().find(|source| source.origin == origin).and_then(|it| it.update.clone());
        let (Some(mut update), Some(facts)) = (update, self.failover.newest(origin)) else {
            return self.failover.unusable(origin);
        };
        if update.snapshot.revision != facts.revision {
            // Somebody with the same resources knew that they are newer than that.
            Arc::make_mut(&mut update).snapshot.revision = facts.revision;
        }
        // A panic in there must not end the following of all sources.
        let applied = AssertUnwindSafe(self.apply.apply(&update)).catch_unwind().await;
        match applied.unwrap_or_else(|_| Err("it made the compile panic".to_owned())) {
            Ok(()) => self.served(origin, update),
            Err(error) => {
                tracing::error!(source = %origin, revision = update.snapshot.revision, %error, "can't apply the snapshot");
                self.shared.not_applied(error);
                self.failover.unusable(origin);
            }
        }
    }

    fn served(&mut self, origin: Origin, update: Arc<Update>) {
        let mut before = self.failover.in_force().map(|(origin, facts)| (origin, facts.store_id.clone()));
        if let (Some(resumed), Some((before, _))) = (self.resumed.take(), &mut before) {
            *before = resumed;
        }
        self.failover.served(origin);
        let (snapshot, sequence) = (&update.snapshot, update.sequence);
        let (revision, store_id) = (snapshot.revision, &snapshot.store_id);
        match before {
            Some((before, store)) if (before, &store) == (origin, store_id) => {
                tracing::debug!(source = %origin, revision, sequence, "applied");
            }
            Some((before, store)) if before == origin => {
                tracing::warn!(source = %origin, %store_id, before = %store, revision, sequence, "another store is served");
            }
            None if self.failover.following() => {
                tracing::info!(source = %origin, %store_id, revision, sequence, "serving");
            }
            _ => {
                let before = before.map_or("none", |(before, _)| before.name());
                tracing::warn!(source = %origin, %before, %store_id, revision, sequence, "the source has changed");
            }
        }
        self.shared.applied(update);
        self.publish();
        self.keep();
    }

    /// What is in force goes to disk, unless it comes from there.
    fn keep(&self) {
        let (Some(keeper), Some(update)) = (&self.keeper, self.shared.current()) else { return };
        if self.failover.in_force().is_some_and(|(origin, _)| origin != Origin::Disk) {
            keeper.keep(disk::Kept { update, marks: self.failover.marks() });
        }
    }

    /// Whether it is known at this moment that what is in force is the newest.
    fn confirmed(&self, origin: Origin) -> bool {
        self.failover.following() && matches!(origin, Origin::ControlPlane | Origin::File)
    }

    fn hear(&mut self, at: usize) {
        let now = self.now();
        let source = &mut self.sources[at];
        let (from, notice) = (source.origin, source.notices.borrow_and_update().clone());
        if notice.error != source.error {
            tell(from, &notice);
        }
        source.error.clone_from(&notice.error);
        self.shared.noticed(from, &notice);
        match (notice.state, notice.update) {
            (State::Up, Some(update)) => {
                let whole = std::mem::replace(&mut source.reading, notice.reading) != notice.reading;
                let facts = Facts::of(&update);
                source.update = Some(update);
                self.failover.hear(Event::Offer { from, facts, whole }, now);
            }
            (State::Nothing, _) => self.failover.hear(Event::Nothing { from }, now),
            (State::Lost { refused }, _) => {
                let confirmed = self.confirmed(from);
                self.failover.hear(Event::Lost { from, refused }, now);
                if confirmed {
                    self.publish();
                    // The last moment at which it was known to be current must survive a restart.
                    self.keep();
                }
            }
            (State::Asking | State::Up, _) => {}
        }
    }

    async fn accept(&mut self) -> Result<Held, NothingHeld> {
        let held = self.held.clone().ok_or(NothingHeld)?;
        tracing::warn!(
            reason = held.reason,
            offered = held.offered.revision,
            "an operator accepts what is held"
        );
        self.failover.hear(Event::Accept, self.now());
        self.settle().await;
        Ok(held)
    }

    async fn stop(&mut self) {
        self.keep();
        self.tasks.abort_all();
        if let Some(keeper) = self.keeper.take() {
            keeper.finish().await;
        }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: Utc::now() }
    }

    /// Once a minute: what is still current is noted as such, what has become stale is said once.
    fn confirm(&mut self) {
        if self.failover.in_force().is_some_and(|(origin, _)| self.confirmed(origin)) {
            self.keep();
        }
        let status = self.shared.status();
        if status.stale && !self.stale {
            tracing::warn!(
                age_s = status.age_s,
                revision = status.revision,
                "what is served is older than max_age"
            );
        }
        self.stale = status.stale;
    }

    /// Brings the status up to date.
    fn publish(&mut self) {
        let in_force = self.failover.in_force();
        let current = in_force.map(|(_, facts)| brief(facts)).unwrap_or_default();
        let held = self.failover.held().map(|hold| Held {
            reason: hold.doubt.name(),
            since: hold.since,
            offered: brief(&hold.offered),
            current,
        });
        let changed = held.as_ref().map(|held| held.reason) != self.held.as_ref().map(|held| held.reason);
        match &held {
            Some(Held { reason, offered, current, .. }) if changed => {
                let (offered, current) = (offered.resources, current.resources);
                tracing::warn!(reason, offered, current, "a change is held: `config accept` takes it");
            }
            None if changed => tracing::info!("nothing is held any more"),
            _ => {}
        }
        self.held.clone_from(&held);
        let confirmed = in_force.is_some_and(|(origin, _)| self.confirmed(origin));
        self.shared.published(in_force, confirmed, held);
    }
}

/// Waits for news of any source. Says of which.
async fn changed(sources: &mut [Source]) -> usize {
    let waiting = sources.iter_mut().enumerate().map(|(at, source)| {
        Box::pin(async move {
            // A source that has said all it has to say is not listened to any more.
            match source.notices.changed().await {
                Ok(()) => at,
                Err(_) => std::future::pending().await,
            }
        })
    });
    futures_util::future::select_all(waiting).await.0
}

/// One line for each change of what is wrong with a source.
fn tell(source: Origin, notice: &Notice) {
    match &notice.error {
        Some(why) if notice.state == State::Nothing => tracing::info!(%source, %why, "it has nothing yet"),
        Some(error) => tracing::warn!(%source, %error, "trouble with a source"),
        // At the level of the trouble, so that whoever reads of the one reads of the other.
        None => tracing::warn!(%source, "it can be heard again"),
    }
}

fn read_disk(folder: &disk::Folder, board: &Board) {
    match folder.read() {
        Ok(Some(update)) => board.offer(update, true, None),
        Ok(None) => board.nothing("nothing was kept on disk yet"),
        Err(error) => board.nothing(&error),
    }
}

fn brief(facts: &Facts) -> Brief {
    Brief { store_id: facts.store_id.clone(), revision: facts.revision, resources: facts.resources }
}
