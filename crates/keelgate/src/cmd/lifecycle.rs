//! `test`, `start`, `stop`, `quit`, `restart`, `reload`: APISIX's verbs.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use super::{remark, say};
use crate::{
    daemon::Daemon,
    settings::{Loaded, Settings},
};

/// How long a new process may take until it has its listeners.
const START: Duration = Duration::from_secs(30);

pub fn test(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    loaded.warnings.iter().for_each(|warning| remark(warning));
    crate::planes::check(&loaded.settings)?;
    say(&format!("configuration file {} test is successful", loaded.settings.file.display()));
    Ok(ExitCode::SUCCESS)
}

pub fn start(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let settings = &loaded.settings;
    let daemon = Daemon::new(&settings.pid_file);
    if let Some(pid) = daemon.running() {
        bail!("it is running already, as process {pid} ({})", settings.pid_file.display());
    }
    loaded.warnings.iter().for_each(|warning| remark(warning));
    crate::planes::check(settings)?;
    let log = &settings.error_log;
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    }
    let open = OpenOptions::new().create(true).append(true).open(log);
    let to_log = open.with_context(|| format!("the log {} can't be written", log.display()))?;
    let before = to_log.metadata().map_or(0, |log| log.len());
    let mut child = Command::new(std::env::current_exe()?)
        .arg("run")
        .arg("--config")
        .arg(std::path::absolute(&settings.file)?)
        .stdin(Stdio::null())
        .stdout(to_log.try_clone()?)
        .stderr(to_log)
        // Ctrl-C in the terminal that started it is not meant for it.
        .process_group(0)
        .spawn()
        .context("the process can't be started")?;
    // It tells of itself when it lets clients in, which waits for a configuration.
    let patience = START + settings.patience();
    let until = Instant::now() + patience;
    while daemon.running().is_none() {
        if let Some(status) = child.try_wait()? {
            remark(last_words(log, before).trim());
            bail!("it did not start ({status}); its log is {}", log.display());
        }
        if Instant::now() > until {
            bail!("it did not start within {} s; see {}", patience.as_secs(), log.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say(&format!("keelgate runs as process {}, log in {}", child.id(), log.display()));
    Ok(ExitCode::SUCCESS)
}

/// What a process that ended has written to its log since then: the end of it.
fn last_words(log: &Path, since: u64) -> String {
    const MOST: u64 = 4096;
    let mut words = Vec::new();
    let read = fs::File::open(log).and_then(|mut file| {
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(since.max(end.saturating_sub(MOST))))?;
        file.read_to_end(&mut words)
    });
    // Its log is named beside it.
    drop(read);
    String::from_utf8_lossy(&words).into_owned()
}

pub fn stop(settings: &Settings) -> anyhow::Result<ExitCode> {
    Daemon::new(&settings.pid_file).end(Signal::SIGINT, START)?;
    Ok(ExitCode::SUCCESS)
}

pub fn quit(settings: &Settings) -> anyhow::Result<ExitCode> {
    let in_flight = settings.proxy.as_ref().map_or(Duration::ZERO, |proxy| proxy.shutdown_timeout);
    Daemon::new(&settings.pid_file).end(Signal::SIGQUIT, in_flight + START)?;
    Ok(ExitCode::SUCCESS)
}

pub fn restart(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    crate::planes::check(&loaded.settings)?;
    let daemon = Daemon::new(&loaded.settings.pid_file);
    if daemon.running().is_some() {
        daemon.end(Signal::SIGINT, START)?;
    }
    start(loaded)
}

pub fn reload(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    loaded.warnings.iter().for_each(|warning| remark(warning));
    crate::planes::check(&loaded.settings)?;
    Daemon::new(&loaded.settings.pid_file).reload()?;
    say("the new configuration is in force");
    Ok(ExitCode::SUCCESS)
}
