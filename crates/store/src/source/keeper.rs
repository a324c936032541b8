//! Writes what is in force to disk, beside the work.
//!
//! The rule to know: it never makes anybody wait, takes at most a tenth of one core however fast things change, and
//! has written the newest when [`Keeper::finish`] returns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    disk::{Folder, Kept},
    status::Shared,
};

/// The shortest time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// After a failed write, such as on a full disk.
const RETRY: Duration = Duration::from_secs(10);

/// A running writer.
pub(super) struct Keeper {
    newest: watch::Sender<Option<Kept>>,
    /// Dropped to end it.
    going_on: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub fn start(folder: Folder, shared: Arc<Shared>) -> Self {
        let (newest, wanted) = watch::channel(None);
        let (going_on, ended) = oneshot::channel();
        Self { newest, going_on, task: tokio::spawn(run((folder, shared), wanted, ended)) }
    }

    pub fn keep(&self, kept: Kept) {
        self.newest.send_replace(Some(kept));
    }

    /// Writes what is not written yet, and ends.
    pub async fn finish(self) {
        drop((self.newest, self.going_on));
        // It does not fail but by a bug, and then the generation before is still there.
        let _ = self.task.await;
    }
}

async fn run(
    (folder, shared): (Folder, Arc<Shared>),
    mut wanted: watch::Receiver<Option<Kept>>,
    mut ended: oneshot::Receiver<()>,
) {
    let (mut last_error, mut ending) = (None, false);
    // Gives what was not seen yet even when it came together with the end.
    while wanted.changed().await.is_ok() {
        let Some(kept) = wanted.borrow_and_update().clone() else { continue };
        let (started, folder) = (Instant::now(), folder.clone());
        let written = tokio::task::spawn_blocking(move || folder.write(&kept)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        let pause = if error.is_some() { RETRY } else { PAUSE.max(started.elapsed() * 10) };
        if let Some(error) = error.as_ref().filter(|_| error != last_error) {
            tracing::error!(
                %error,
                "the last good snapshot can't be kept on disk: a restart in an outage has nothing to start from"
            );
        }
        shared.kept(error.clone());
        ending = ending || tokio::time::timeout(pause, &mut ended).await.is_ok();
        if error.is_some() && ending {
            return;
        }
        if error.is_some() {
            wanted.mark_changed();
        }
        last_error = error;
    }
}
