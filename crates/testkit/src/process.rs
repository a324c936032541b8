//! A program under test: started, signalled, listened to, and gone with its handle.
//!
//! The one rule: no process outlives its test. Dropping the handle kills it; `setpriv --pdeathsig` has the kernel do
//! the same where the test itself is killed. (That signal follows the starting *thread*, so start processes from the
//! test's own thread or tasks, not from a short-lived one.)

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 150;

/// A running program. Its stdout and stderr go to one file, which goes on over restarts.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where in the log this run begins.
    start: u64,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, appending its output to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> Self {
        let output = OpenOptions::new().create(true).append(true).open(log).expect("the log file opens");
        let start = output.metadata().map_or(0, |meta| meta.len());
        let child = tied(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle to the log"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?}); run ./x deps"));
        Self { name: name.to_owned(), child, log: log.to_owned(), start, ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has ended already takes no notice.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let pid = i32::try_from(self.child.id()).expect("a pid");
            kill(Pid::from_raw(pid), signal)
                .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended = Some(self.child.wait().expect("a child can be waited for"));
    }

    /// SIGTERM, and waits until it has ended by itself.
    pub async fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(timeout).await
    }

    /// SIGSTOP: alive, connections open, and not a word from it.
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(timeout, what, async || self.exited().ok_or("still running")).await
    }

    /// All it has said since it was started.
    pub fn log(&self) -> String {
        read_from(&self.log, self.start)
    }

    /// Where the log ends now, for [`Self::log_since`].
    pub fn mark(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// What it has said since a mark.
    pub fn log_since(&self, mark: u64) -> String {
        read_from(&self.log, mark)
    }

    /// Waits until a line with `text` is in the log of this run, and gives the line.
    pub async fn wait_for_log(&self, text: &str, timeout: Duration) -> String {
        self.wait_for_log_since(self.start, text, timeout).await
    }

    /// Waits until a line with `text` is in the log after a mark, and gives the line.
    pub async fn wait_for_log_since(&self, mark: u64, text: &str, timeout: Duration) -> String {
        let what = format!("{text:?} in the log of {}", self.name);
        eventually(timeout, what, async || {
            let log = self.log_since(mark);
            let found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.ok_or_else(|| last_lines(&log, 5))
        })
        .await
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.exited();
        if ended.is_none() {
            self.kill9();
        }
        if std::thread::panicking() {
            let fate = ended.map_or_else(|| "was running".to_owned(), fate);
            eprintln!(
                "--- {} (pid {}, {fate}) ---\n{}",
                self.name,
                self.pid(),
                last_lines(&self.log(), SHOWN_LINES)
            );
        }
    }
}

/// Runs a command to its end, with its output.
pub fn run(command: &mut Command) -> io::Result<std::process::Output> {
    command.stdin(Stdio::null()).output()
}

/// The command, such that the kernel kills it when we are gone.
fn tied(command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.arg("--pdeathsig=KILL").arg("--").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(key, value),
            None => tied.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        tied.current_dir(directory);
    }
    tied
}

/// Whether a program is on the path.
pub fn installed(program: impl AsRef<OsStr>) -> bool {
    let program = Path::new(program.as_ref());
    if program.is_absolute() {
        return program.exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

fn read_from(log: &Path, start: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(log)
        && file.seek(SeekFrom::Start(start)).is_ok()
    {
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn fate(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exited with {}", status.code().unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Process, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("WORD", "keel");
        let process = Process::start("shell", &command, &directory.path().join("log"));
        (process, directory)
    }

    #[tokio::test]
    async fn hears_what_it_says_and_how_it_ends() {
        let (mut process, _directory) = shell("echo a $WORD >&2; exit 3");
        assert_eq!(process.wait_for_log("keel", Duration::from_secs(5)).await, "a keel");
        assert_eq!(process.wait(Duration::from_secs(5)).await.code(), Some(3));
    }

    #[tokio::test]
    async fn signals_reach_the_program_itself() {
        let (mut process, _directory) = shell("trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done");
        process.wait_for_log("up", Duration::from_secs(5)).await;
        process.signal(Signal::SIGHUP);
        process.wait_for_log("hup", Duration::from_secs(5)).await;
        process.kill9();
        assert_eq!(process.exited().and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn is_gone_with_its_handle() {
        let (process, _directory) = shell("sleep 60");
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
