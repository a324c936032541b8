//! The file that Consul's `dump` names. APISIX's format, so that a file of the one is read by the other.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Board, board};

/// `dump` of `consul` and `consul_kv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Below the folder above `conf/`, where it is relative.
    path: PathBuf,
    #[serde(default = "yes")]
    load_on_init: bool,
    /// Seconds after which it is not read any more; 0, the default, is never.
    #[serde(default)]
    expire: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    services: board::Services,
    last_update: u64,
    #[serde(default)]
    expire: u64,
}

impl Dump {
    pub fn at(&mut self, home: &Path) {
        self.path = home.join(&self.path);
    }

    /// The file as it is.
    pub fn show(&self) -> Result<String, String> {
        fs::read_to_string(&self.path).map_err(|error| error.to_string())
    }

    /// What was dumped before, where that is wanted and fresh enough.
    pub async fn load(&self, board: &Board) {
        if !self.load_on_init {
            return;
        }
        let path = self.path.clone();
        let Ok(Ok(bytes)) = tokio::task::spawn_blocking(move || fs::read(path)).await else { return };
        let file = self.path.display();
        match serde_json::from_slice::<Written>(&bytes) {
            Ok(written) if self.expire == 0 || written.last_update + self.expire >= now() => {
                board.preload(written.services);
            }
            Ok(_) => tracing::warn!(%file, "the dump is too old and not used"),
            Err(error) => tracing::warn!(%file, %error, "the dump can't be read"),
        }
    }

    /// Writes what is known now.
    pub async fn write(&self, board: &Board) {
        let written = Written { services: board.services(), last_update: now(), expire: self.expire };
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || fs::write(path, serde_json::to_vec(&written)?)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(file = %self.path.display(), %error, "the dump can't be written");
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn yes() -> bool {
    true
}
