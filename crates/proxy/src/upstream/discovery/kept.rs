//! What was last answered, kept on this machine: a restart while DNS or a registry is dead goes by it.
//!
//! The rule to know: the file is a help, never a must. It is replaced whole, and one that can't be read is as none.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Endpoint, Inner, Kind, Query};
use crate::kept_file;

/// The format written, and the only one read.
const FORMAT: u32 = 1;
/// How long changes are gathered before they are written.
const PAUSE: Duration = Duration::from_millis(50);

/// What was found at the start, and the file that it is written to from then on.
#[derive(Default)]
pub(super) struct Kept {
    file: Option<PathBuf>,
    found: Answers,
    woken: Notify,
}

type Answers = BTreeMap<Kind, BTreeMap<Arc<str>, Arc<[Endpoint]>>>;

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    answers: Answers,
}

impl Kept {
    pub fn read(file: PathBuf) -> Self {
        let found = match fs::read(&file).map(|bytes| serde_json::from_slice::<Written>(&bytes)) {
            Ok(Ok(written)) if written.format == FORMAT => written.answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Answers::default(),
            Ok(Ok(_)) => {
                tracing::warn!(file = %file.display(), "the kept endpoints are of another version and not used");
                Answers::default()
            }
            Ok(Err(error)) => damaged(&file, &error),
            Err(error) => damaged(&file, &error),
        };
        Self { file: Some(file), found, woken: Notify::new() }
    }

    pub fn find(&self, query: &Query) -> Option<Arc<[Endpoint]>> {
        self.found.get(&query.kind)?.get(&query.name).cloned()
    }

    /// Something has changed.
    pub fn wake(&self) {
        self.woken.notify_one();
    }
}

fn damaged(file: &Path, error: &dyn std::fmt::Display) -> Answers {
    tracing::warn!(file = %file.display(), %error, "the kept endpoints can't be read; they are asked for anew");
    Answers::default()
}

/// Writes what has changed, for as long as there is a directory.
pub(super) async fn keep(directory: Weak<Inner>) {
    loop {
        let Some(inner) = directory.upgrade() else { return };
        let Some(file) = inner.kept.file.clone() else { return };
        tokio::select! {
            () = inner.kept.woken.notified() => {}
            // Looks now and then whether the directory is still there.
            () = tokio::time::sleep(Duration::from_secs(60)) => continue,
        }
        tokio::time::sleep(PAUSE).await;
        let answers = collect(&inner);
        drop(inner);
        let written =
            tokio::task::spawn_blocking(move || write(&file, answers).map_err(|error| (file, error)));
        if let Ok(Err((file, error))) = written.await {
            tracing::warn!(file = %file.display(), %error, "endpoints can't be kept; a restart must ask for them");
        }
    }
}

/// What is followed and has endpoints. Defaults are not among it: they are in the configuration.
fn collect(inner: &Inner) -> Answers {
    let mut answers = Answers::default();
    for answer in inner.followed() {
        let state = answer.state();
        let query = &answer.query;
        let default = inner.board(query.kind).is_some_and(|board| board.is_default(&state.endpoints));
        if !state.endpoints.is_empty() && !default {
            answers
                .entry(query.kind)
                .or_default()
                .insert(Arc::clone(&query.name), Arc::clone(&state.endpoints));
        }
    }
    answers
}

fn write(file: &Path, answers: Answers) -> io::Result<()> {
    kept_file::replace(file, &serde_json::to_vec(&Written { format: FORMAT, answers })?)
}
