//! Real servers, each started for one test, on leased ports and with its data on a RAM disk.
//!
//! `./x deps` installs them; one that is missing fails the test with that advice.

pub mod ceph;
pub mod etcd;
pub mod moto;
pub mod s3;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use ceph::Ceph;
pub use etcd::Etcd;
pub use moto::Moto;
pub use s3::S3;

/// A folder that dies with its handle, in memory where there is a RAM disk: etcd waits for each fsync.
fn ram_dir(name: &str) -> TempDir {
    let ram = Path::new("/dev/shm");
    let parent = if ram.is_dir() { ram.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix(name).tempdir_in(parent).expect("a folder for a server's data")
}

/// A program of the Python environment that `./x deps` makes.
fn python_program(name: &str) -> PathBuf {
    let program = cache().join("venv/bin").join(name);
    assert!(program.exists(), "{} is missing; run ./x deps", program.display());
    program
}

/// Where `./x` keeps what it installs, found in the same way.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let parent = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let cache = variable("KEELGATE_CACHE").or_else(|| Some(parent()?.join("keelgate")));
    cache.expect("HOME is set")
}

/// Fails with advice if a Debian program is not there.
#[track_caller]
fn needs(program: &str, task: &str) {
    assert!(crate::process::installed(program), "{program} is not installed; run {task}");
}
