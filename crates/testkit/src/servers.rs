//! Real servers, each started for one test, on leased ports and with its data on a RAM disk.
//!
//! `./x deps` installs them; one that is missing fails the test with that advice.

pub mod ceph;
pub mod etcd;
pub mod kafka;
pub mod moto;
pub mod s3;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::run;

pub use ceph::Ceph;
pub use etcd::Etcd;
pub use kafka::Kafka;
pub use moto::Moto;
pub use s3::S3;

/// A folder that dies with its handle, in memory where there is a RAM disk: etcd waits for each fsync.
fn ram_dir(name: &str) -> TempDir {
    let ram = Path::new("/dev/shm");
    let parent = if ram.is_dir() { ram.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix(name).tempdir_in(parent).expect("a folder for a server's data")
}

/// Runs the AWS CLI as this client to its end, and gives what it prints: `aws(&s3, &["s3", "cp", …])`.
#[track_caller]
pub fn aws(client: &S3, args: &[&str]) -> String {
    let mut command = Command::new(python_program("aws"));
    command.args(["--endpoint-url", &client.endpoint, "--region", &client.region]).args(args);
    command.env("AWS_ACCESS_KEY_ID", &client.access_key).env("AWS_SECRET_ACCESS_KEY", &client.secret_key);
    // Nothing of the person who runs the tests.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    let output = run(&mut command).expect("the AWS CLI runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "aws {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
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
