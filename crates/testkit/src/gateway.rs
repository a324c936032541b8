//! Our binary as its users run it: a folder with `conf/config.yaml`, ports, signals, the Admin API.
//!
//! ```text
//! let mut cp = Gateway::control_plane(env!("CARGO_BIN_EXE_keelgate"));
//! cp.start().await;
//! let mut dp = Gateway::data_plane(env!("CARGO_BIN_EXE_keelgate")).follow(&cp);
//! dp.start().await;
//! cp.put("routes/1", &route).await;
//! dp.serves("/ip").await;
//! cp.kill9();
//! ```
//!
//! The one rule: a node's listeners are on leased ports for its whole life, so that it comes back where it was. A
//! configuration is JSON (which is YAML) merged over one that names those ports, or a text in which `{http}`,
//! `{https}`, `{admin}`, `{control}`, `{status}`, `{prometheus}`, `{dp}`, `{dp_tls}`, `{key}` and `{home}` stand for
//! what they are here.

mod ask;
mod conf;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::get;
use crate::process::{Process, run};
use crate::wait::eventually;

pub use conf::{Ports, merge};

/// The Admin API's key in every configuration made here.
pub const ADMIN_KEY: &str = "test-admin-key-edd1c9f034335f136f87ad84b625c8f1";
/// A state that should come about in a moment: long enough for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// One node: its folder, its ports, and its process while it runs.
#[derive(Debug)]
pub struct Gateway {
    // First, so that it ends while its folder and log are still there.
    process: Option<Process>,
    binary: PathBuf,
    home: TempDir,
    ports: Ports,
    conf: Conf,
    env: Vec<(String, String)>,
}

#[derive(Debug)]
enum Conf {
    Merged(Value),
    Text(String),
}

impl Gateway {
    /// A control plane with the embedded store.
    pub fn control_plane(binary: impl Into<PathBuf>) -> Self {
        Self::new(binary, "control_plane", "embedded")
    }

    /// A data plane that follows a control plane: see [`Self::follow`].
    pub fn data_plane(binary: impl Into<PathBuf>) -> Self {
        Self::new(binary, "data_plane", "etcd")
    }

    /// Both in one process, with the embedded store.
    pub fn traditional(binary: impl Into<PathBuf>) -> Self {
        Self::new(binary, "traditional", "embedded")
    }

    /// A node of any role and `config_provider`; not started yet.
    pub fn new(binary: impl Into<PathBuf>, role: &str, provider: &str) -> Self {
        let ports = Ports::lease();
        let conf = Conf::Merged(conf::base(&ports, role, provider));
        let home = tempfile::Builder::new().prefix("keelgate-").tempdir().expect("a folder for the node");
        fs::create_dir(home.path().join("conf")).expect("the node's conf folder");
        let gateway = Self { binary: binary.into(), home, ports, conf, env: Vec::new(), process: None };
        gateway.write_config();
        gateway
    }

    /// Merges more into the configuration: objects key by key, everything else replaced, `null` removes.
    pub fn with(mut self, more: Value) -> Self {
        self.merge_config(more);
        self
    }

    /// Takes this text as the whole configuration, placeholders replaced.
    pub fn yaml(mut self, text: &str) -> Self {
        self.rewrite_config(text);
        self
    }

    /// Follows this control plane's configuration API.
    pub fn follow(self, cp: &Self) -> Self {
        self.follow_hosts(&[&format!("http://127.0.0.1:{}", cp.ports.dp)])
    }

    /// Takes its configuration from these etcd hosts.
    pub fn follow_hosts(self, hosts: &[&str]) -> Self {
        self.with(serde_json::json!({ "deployment": { "etcd": { "host": hosts, "prefix": "/apisix" } } }))
    }

    /// An environment variable for the node.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As [`Self::with`], on a node that may be running; it takes effect at the next [`Self::reload`] or start.
    pub fn merge_config(&mut self, more: Value) {
        match &mut self.conf {
            Conf::Merged(base) => merge(base, more),
            Conf::Text(_) => panic!("a configuration given as text can't be merged into"),
        }
        self.write_config();
    }

    /// As [`Self::yaml`], on a node that may be running.
    pub fn rewrite_config(&mut self, text: &str) {
        self.conf = Conf::Text(text.to_owned());
        self.write_config();
    }

    fn write_config(&self) {
        let text = match &self.conf {
            Conf::Merged(value) => format!("{value:#}\n"),
            Conf::Text(text) => self.fill(text),
        };
        fs::write(self.config_file(), text).expect("config.yaml is written");
    }

    /// Replaces the placeholders in a text.
    pub fn fill(&self, text: &str) -> String {
        let home = self.home.path().display().to_string();
        let names = [("{home}", home.as_str()), ("{key}", ADMIN_KEY)];
        let text = names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        self.ports.fill(text)
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        self.ready(SOON).await;
    }

    /// Starts it.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the node runs already");
        let mut command = self.cli();
        command.arg("run").arg("-c").arg(self.config_file());
        self.process = Some(Process::start("keelgate", &command, &self.log_file()));
    }

    /// Waits until it answers 200 on `/status/ready`; one that ends instead fails the test at once.
    pub async fn ready(&mut self, timeout: Duration) {
        let url = self.status_url("/status/ready");
        let process = self.process();
        eventually(timeout, "the node to be ready", async || {
            if let Some(status) = process.exited() {
                panic!("the node ended instead of becoming ready: {status}");
            }
            match get(&url).await {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(format!("{} {}", response.status, response.text())),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await;
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("the node runs").kill9();
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(&mut self) {
        let status = self.process.as_mut().expect("the node runs").terminate(SOON).await;
        assert!(status.success(), "the node ended badly: {status}");
        self.process = None;
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// SIGHUP: has it read `config.yaml` again. The caller waits for what should change.
    pub fn reload(&mut self) {
        self.process().signal(Signal::SIGHUP);
    }

    /// The running process: its log, its signals.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node runs")
    }

    /// Runs `keelgate ARGS… -c` this node's configuration to its end.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = self.cli();
        command.args(args).arg("-c").arg(self.config_file());
        run(&mut command).expect("the binary runs")
    }

    fn cli(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.home.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// A path on the proxy's plain port.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.http)
    }

    /// A path on the proxy's TLS port.
    pub fn tls_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.ports.https)
    }

    pub fn control_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.control)
    }

    pub fn status_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.status)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where `keelgate.data_dir` is.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("conf/config.yaml")
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("keelgate.log")
    }
}
