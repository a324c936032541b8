//! A store in one file of this machine: reads from memory, writes by a thread of its own.
//!
//! The rule to know: first durable, then visible. The writer takes all commits that wait, makes them one transaction
//! of the file with one fsync, and only then publishes and answers them.

mod file;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use model::{Key, Kind, Resource, Snapshot};
use tokio::sync::oneshot;

use crate::{
    Batch, Commit, Error, Store,
    log::{HISTORY, Log},
    tree::{Tree, millis},
};
use file::File;

/// A store in a folder of this machine, for one process at a time.
pub struct Embedded {
    log: Arc<Log>,
    store_id: Arc<str>,
    name: String,
    /// Taken only when the store is dropped: it is how the writer is told to stop.
    commits: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

type Answer = oneshot::Sender<Result<u64, Error>>;

/// One commit on its way, and who waits for it.
struct Request {
    commit: Commit,
    answer: Answer,
}

impl Embedded {
    /// Opens the store kept in `dir`, or makes one there. Blocks while the file is read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, HISTORY)
    }

    /// As [`open`](Self::open), keeping this many batches for watchers.
    pub fn open_with(dir: &Path, history: usize) -> Result<Self, Error> {
        let (file, tree) = File::open(dir)?;
        let name = file.name();
        let store_id = tree.snapshot.store_id.clone();
        let log = Arc::new(Log::new(tree.clone(), history));
        let (commits, requests) = mpsc::channel();
        let writer = Writer { file, tree, log: log.clone() };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&requests))
            .map_err(|error| Error::Unavailable { store: name.clone(), reason: error.to_string() })?;
        Ok(Self { log, store_id, name, commits: Some(commits), writer: Some(writer) })
    }

    fn gone(&self) -> Error {
        Error::Unavailable { store: self.name.clone(), reason: "its writer has stopped".to_owned() }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.commits.take());
        if let Some(writer) = self.writer.take() {
            // Whoever opens the folder next must not find it still locked. A panic was reported when it happened.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    fn store_id(&self) -> Arc<str> {
        self.store_id.clone()
    }

    async fn get(&self, key: &Key) -> Result<Option<Arc<Resource>>, Error> {
        Ok(self.log.tree().snapshot.get(key).cloned())
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Arc<Resource>>, Error> {
        Ok(self.log.tree().snapshot.of(kind).cloned().collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(self.log.tree().snapshot)
    }

    async fn commit(&self, commit: Commit) -> Result<u64, Error> {
        let (answer, answered) = oneshot::channel();
        let commits = self.commits.as_ref().ok_or_else(|| self.gone())?;
        commits.send(Request { commit, answer }).map_err(|_| self.gone())?;
        answered.await.map_err(|_| self.gone())?
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.log.watch(revision)
    }
}

/// The one who writes, on its own thread: a slow disk holds up no other work.
struct Writer {
    file: File,
    /// What the file holds.
    tree: Tree,
    log: Arc<Log>,
}

impl Writer {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        /// More would make the first to come wait for the last.
        const AT_ONCE: usize = 512;
        loop {
            let first = match self.wait() {
                None => requests.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(time) => requests.recv_timeout(time),
            };
            if matches!(first, Err(mpsc::RecvTimeoutError::Disconnected)) {
                return;
            }
            self.write(first.into_iter().chain(requests.try_iter()).take(AT_ONCE).collect());
        }
    }

    /// How long until something is due. Asks again each minute: the clock may be set.
    fn wait(&self) -> Option<Duration> {
        let due = self.tree.next_due()?;
        Some(Duration::from_millis(due.saturating_sub(now())).min(Duration::from_secs(60)))
    }

    fn write(&mut self, requests: Vec<Request>) {
        if !self.file.is_open() {
            self.recover();
        }
        let now = now();
        let mut next = self.tree.clone();
        let mut batches: Vec<_> = next.expire(now).into_iter().collect();
        let mut answers = Vec::with_capacity(requests.len());
        for Request { commit, answer } in requests {
            let result = next.commit(&commit, now).map(|batch| {
                batches.extend(batch);
                next.snapshot.revision
            });
            answers.push((answer, result));
        }
        if batches.is_empty() {
            return send(answers);
        }
        match self.file.append(&next, &batches) {
            Ok(()) => {
                self.tree = next.clone();
                self.log.publish(next, batches);
                send(answers);
            }
            Err(reason) => {
                tracing::error!(store = self.file.name(), reason, "the store can't write");
                // Conflicts too: they may be with commits that were not done.
                let failed = |_| Err(Error::Unavailable { store: self.file.name(), reason: reason.clone() });
                send(answers.into_iter().map(|(answer, result)| (answer, failed(result))).collect());
                self.recover();
            }
        }
    }

    /// After a failure nobody knows what the file holds: reads it anew, and goes on from there.
    fn recover(&mut self) {
        match self.file.reopen() {
            Ok(tree) if tree.snapshot.revision == self.tree.snapshot.revision => {}
            Ok(tree) => {
                self.tree = tree.clone();
                self.log.replace(tree);
            }
            // The next write tries again.
            Err(error) => tracing::error!(%error, "the store can't be reopened"),
        }
    }
}

fn send(answers: Vec<(Answer, Result<u64, Error>)>) {
    for (answer, result) in answers {
        // Who asked may have gone; it is done all the same.
        let _ = answer.send(result);
    }
}

/// Deadlines outlive the process, so they are in wall-clock time.
fn now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
