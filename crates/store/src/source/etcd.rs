//! Follows a control plane, or an etcd cluster with APISIX's keys.
//!
//! The rule to know: a whole snapshot first, then every batch after its revision, each offered as a new snapshot at
//! once. After a cut it goes on where it stopped; where that is no longer possible it starts over.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures_util::{StreamExt, stream::BoxStream};
use model::{Change, Instance, Snapshot};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Origin, Update,
    digest::Digest,
    heartbeat::{self, Answer, Beat},
    notice::Board,
    status::Shared,
};
use crate::{Batch, Error, Store, bucket::Backoff, etcd};

pub use crate::etcd::Tls;

/// Which control plane, and who asks.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://cp:7900`, `https://cp:7943`; tried in random order.
    pub hosts: Vec<String>,
    /// `/apisix`.
    pub prefix: String,
    /// For one request.
    pub timeout: Duration,
    /// Name and password.
    pub user: Option<(String, Arc<str>)>,
    pub tls: Tls,
    pub node: Node,
}

/// Who this data plane is, as its heartbeats say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    pub instance_id: String,
    pub hostname: String,
    pub ip: String,
    pub version: String,
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const SLOWEST_RETRY: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// So often an unanswered heartbeat keeps us from believing that there is no instance configuration.
const UNANSWERED: u32 = 3;
/// After a cut, how long no further batch must come before we have caught up.
const CAUGHT_UP: Duration = Duration::from_millis(50);

/// Follows for ever.
pub(super) async fn follow(config: Config, group: String, board: Board, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(FIRST_RETRY, SLOWEST_RETRY);
    let mut follower = Follower { config, group, board, shared, seen: None, instance: None, unanswered: 0 };
    loop {
        let started = Instant::now();
        let error = follower.session().await.err().unwrap_or_else(|| "the watch ended".to_owned());
        if started.elapsed() > SLOWEST_RETRY {
            backoff.reset();
        }
        // The store's errors are texts by now; the operating system has one word for this.
        follower.board.lost(&error, error.contains("Connection refused"));
        tokio::time::sleep(backoff.wait()).await;
    }
}

struct Follower {
    config: Config,
    group: String,
    board: Board,
    shared: Arc<Shared>,
    /// As far as we have followed, and what that adds up to.
    seen: Option<(Snapshot, Digest)>,
    instance: Option<Arc<Instance>>,
    /// Heartbeats in a row without an answer.
    unanswered: u32,
}

impl Follower {
    /// From connecting until the connection is lost.
    async fn session(&mut self) -> Result<(), String> {
        let config = etcd::Config {
            hosts: self.config.hosts.clone(),
            prefix: self.config.prefix.clone(),
            timeout: self.config.timeout,
            user: self.config.user.clone(),
            tls: self.config.tls.clone(),
            ..etcd::Config::default()
        };
        // Anew each time: certificates may have been renewed, names may point elsewhere.
        let etcd = etcd::Etcd::open_reader(config).await.map_err(text)?;
        let beat = self.heartbeat(etcd.client().clone());
        let answer = beat.await;
        self.answered(answer)?;
        let mut batches = match self.go_on(&etcd).await? {
            Some(batches) => batches,
            None => self.start_over(&etcd).await?,
        };
        // Beside the watch: a slow answer must not keep a change waiting.
        let mut heartbeat = pin!(self.next_heartbeat(&etcd));
        loop {
            tokio::select! {
                batch = batches.next() => match batch {
                    Some(Ok(batch)) => self.take(batch),
                    Some(Err(Error::Compacted { .. })) => batches = self.start_over(&etcd).await?,
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Ok(()),
                },
                answer = &mut heartbeat => {
                    if self.answered(answer)? {
                        self.offer(false);
                    }
                    heartbeat.set(self.next_heartbeat(&etcd));
                }
            }
        }
    }

    fn next_heartbeat(&self, etcd: &etcd::Etcd) -> impl Future<Output = Result<Answer, String>> + use<> {
        let beat = self.heartbeat(etcd.client().clone());
        async move {
            tokio::time::sleep(HEARTBEAT).await;
            beat.await
        }
    }

    /// Goes on from where the last session ended; none where there was none or the way from there is lost.
    async fn go_on(
        &mut self,
        etcd: &etcd::Etcd,
    ) -> Result<Option<BoxStream<'static, Result<Batch, Error>>>, String> {
        let Some((snapshot, _)) = self.seen.as_ref().filter(|(seen, _)| seen.store_id == etcd.store_id())
        else {
            return Ok(None);
        };
        let mut batches = match etcd.watch(snapshot.revision).await {
            Ok(batches) => batches,
            Err(Error::Compacted { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        // What happened meanwhile comes in one go, and should be seen as one.
        while let Ok(Some(batch)) = timeout(CAUGHT_UP, batches.next()).await {
            match batch {
                Ok(batch) => drop(self.add(batch)),
                Err(Error::Compacted { .. }) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.offer(false);
        Ok(Some(batches))
    }

    async fn start_over(
        &mut self,
        etcd: &etcd::Etcd,
    ) -> Result<BoxStream<'static, Result<Batch, Error>>, String> {
        loop {
            let snapshot = etcd.snapshot().await.map_err(text)?;
            let (digest, revision) = (Digest::of(&snapshot), snapshot.revision);
            self.seen = Some((snapshot, digest));
            self.offer(true);
            match etcd.watch(revision).await {
                // It is compacted all the time, or has just lost its data.
                Err(Error::Compacted { .. }) => tokio::time::sleep(FIRST_RETRY).await,
                batches => return batches.map_err(text),
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        if self.add(batch) {
            self.offer(false);
        }
    }

    /// Adds a batch to what was seen. Says whether it changed anything.
    fn add(&mut self, batch: Batch) -> bool {
        let Some((snapshot, digest)) = &mut self.seen else { return false };
        snapshot.revision = batch.revision;
        let changed = !batch.changes.is_empty();
        for change in batch.changes {
            let key = match &change {
                Change::Put(resource) => &resource.key,
                Change::Delete(key) => key,
            };
            if let Some(old) = snapshot.get(key) {
                digest.remove(old);
            }
            match change {
                Change::Put(resource) => {
                    digest.add(&resource);
                    snapshot.put_shared(resource);
                }
                Change::Delete(key) => {
                    snapshot.delete(&key);
                }
            }
        }
        changed
    }

    fn offer(&self, afresh: bool) {
        let Some((snapshot, digest)) = &self.seen else { return };
        let update = Update {
            snapshot: snapshot.clone(),
            instance: self.instance.clone(),
            origin: Origin::ControlPlane,
            sequence: None,
            digest: digest.to_string(),
            rejected: Vec::new(),
            verified_at: Some(Utc::now()),
            by_hand: false,
        };
        self.board.offer(update, afresh, None);
    }

    /// One heartbeat, told what is served when it is sent.
    fn heartbeat(&self, client: etcd::Client) -> impl Future<Output = Result<Answer, String>> + use<> {
        let (node, group, shared) = (self.config.node.clone(), self.group.clone(), self.shared.clone());
        async move {
            let (revision, source) = shared.in_force();
            let source = source.map_or("none", Origin::name);
            let beat = Beat { node: &node, gateway_group: &group, control_plane_revision: revision, source };
            heartbeat::beat(&client, &beat).await
        }
    }

    /// Takes the answer to a heartbeat, and says whether it brought another instance configuration. Fails where the
    /// control plane will not have us, and for a while where it does not answer: without its instance configuration, a
    /// snapshot's secrets can't be read.
    fn answered(&mut self, answer: Result<Answer, String>) -> Result<bool, String> {
        let new = match answer {
            Ok(Answer::Instance(instance)) => Some(Arc::from(instance)),
            Ok(Answer::Unknown) => None,
            Ok(Answer::Refused(reason)) => return Err(reason),
            Err(error) => {
                self.unanswered += 1;
                tracing::debug!(%error, unanswered = self.unanswered, "no answer to a heartbeat");
                if self.instance.is_none() && self.unanswered < UNANSWERED {
                    return Err(format!("no answer to a heartbeat: {error}"));
                }
                return Ok(false);
            }
        };
        self.unanswered = 0;
        let changed = new != self.instance;
        self.instance = new;
        Ok(changed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: Error) -> String {
    error.to_string()
}
