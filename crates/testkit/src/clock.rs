//! The wall clock of nodes under test, through libfaketime: off by so much, and set right while they run.
//!
//! The one rule: time that only passes (timeouts, timers) is left alone.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::gateway::Gateway;

/// A clock that several nodes share.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// One that is right.
    pub fn right() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a folder for the clock") };
        clock.set("+0");
        clock
    }

    /// How far it is off from now on: `+20m`, `-20m`, `+0`.
    pub fn set(&self, off: &str) {
        // In one step, so that nobody reads half of it.
        let next = self.folder.path().join("next");
        fs::write(&next, off).and_then(|()| fs::rename(next, self.file())).expect("the clock is set");
    }

    /// Has a node that is not started yet go by it.
    pub fn of(&self, node: Gateway) -> Gateway {
        node.env("LD_PRELOAD", &library().display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file().display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("now")
    }
}

/// Where Debian's package `libfaketime` has it.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib");
    let candidates = folders.flatten().map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|file| file.exists()).expect("libfaketime is installed: run ./x deps")
}
