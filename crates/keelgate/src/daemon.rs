//! The running process as other invocations see it: its pid file, and what became of the last reload.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// How long a signalled process may take to do what it was asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a process tells about its settings, beside its pid file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Counts the times SIGHUP was acted upon.
    pub count: u64,
    /// Why the last reload was refused; none when it was applied.
    pub error: Option<String>,
}

/// A pid file, and the process it names.
pub struct Daemon {
    pid_file: PathBuf,
}

impl Daemon {
    pub fn new(pid_file: impl Into<PathBuf>) -> Self {
        Self { pid_file: pid_file.into() }
    }

    /// The process in the pid file, if it lives.
    pub fn running(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok().filter(|pid| *pid > 0)?);
        // A process of another user is alive too.
        let there = matches!(kill(pid, None), Ok(()) | Err(Errno::EPERM));
        (there && !is_dead(pid) && is_ours(pid)).then_some(pid)
    }

    fn required(&self) -> anyhow::Result<Pid> {
        self.running()
            .with_context(|| format!("nothing is running (no process for {})", self.pid_file.display()))
    }

    /// Called by the process itself. A folder that can't be written costs `stop` and `reload`, not the service.
    pub fn register(&self) {
        let written = self.pid_file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            write_whole(&self.pid_file, format!("{}\n", std::process::id()).as_bytes())?;
            self.tell(&Reloads::default())
        });
        if let Err(error) = written {
            tracing::warn!(file = %self.pid_file.display(), %error, "the pid file can't be written");
        }
    }

    /// Called by the process itself when it ends.
    pub fn unregister(&self) {
        if self.running() == Some(Pid::this()) {
            let _ = fs::remove_file(&self.pid_file);
            let _ = fs::remove_file(self.reloads_file());
        }
    }

    /// Called by the process itself after a reload.
    pub fn tell(&self, reloads: &Reloads) -> io::Result<()> {
        write_whole(&self.reloads_file(), serde_json::to_string(reloads)?.as_bytes())
    }

    fn reloads_file(&self) -> PathBuf {
        self.pid_file.with_extension("reload")
    }

    fn reloads(&self) -> Option<Reloads> {
        serde_json::from_slice(&fs::read(self.reloads_file()).ok()?).ok()
    }

    /// Sends a signal and waits for the process to be gone.
    pub fn end(&self, signal: Signal, patience: Duration) -> anyhow::Result<()> {
        let pid = self.required()?;
        kill(pid, signal).with_context(|| format!("process {pid} can't be signalled"))?;
        // Its pid file goes before it does, and its ports only with it.
        wait_for(patience, || has_ended(pid).then_some(()))
            .with_context(|| format!("process {pid} is still running after {} s", patience.as_secs()))
    }

    /// Makes the process read its settings anew; an error says why it would not take them.
    pub fn reload(&self) -> anyhow::Result<()> {
        let pid = self.required()?;
        let before = self.reloads().unwrap_or_default().count;
        kill(pid, Signal::SIGHUP).with_context(|| format!("process {pid} can't be signalled"))?;
        let after = wait_for(PATIENCE, || self.reloads().filter(|reloads| reloads.count > before))
            .with_context(|| format!("process {pid} has not answered the reload"))?;
        match after.error {
            None => Ok(()),
            Some(error) => bail!("the running process keeps its settings: {error}"),
        }
    }
}

fn has_ended(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH) || is_dead(pid)
}

/// A process that ended and was not yet collected by its parent can still be signalled. One that is only about to
/// end looks just like it, but for its other threads: until they are gone, its files and ports are not free.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which may itself hold anything but ends with the last parenthesis.
    let ended = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    ended && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

/// A pid file may outlive its process, and the number be given to another.
fn is_ours(pid: Pid) -> bool {
    let exe = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let name = |path: PathBuf| {
        // A binary replaced by an upgrade shows as "keelgate (deleted)".
        path.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
    };
    match (exe(&pid.to_string()).and_then(name), exe("self").and_then(name)) {
        (Some(theirs), Some(ours)) => theirs == ours || theirs == "keelgate" || theirs == "apisix",
        _ => true,
    }
}

fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A reader sees the old content or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::rename(beside, path)
}
