//! `run`: the process itself, from start to signals to end.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    daemon::{Daemon, Reloads},
    log, open_files,
    planes::{self, Planes},
    reload::{Outcome, Reloader},
    settings::{self, Loaded},
};

pub fn run(loaded: Loaded) -> anyhow::Result<ExitCode> {
    planes::check(&loaded.settings)?;
    log::start(loaded.settings.log_level);
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    open_files::raise(loaded.settings.open_files);
    // Everything but the proxy's requests runs here; those have a runtime per worker.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("keelgate")
        .enable_all()
        .build()
        .context("no tokio runtime")?;
    let code = runtime.block_on(live(loaded));
    runtime.shutdown_background();
    code
}

async fn live(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let file = loaded.settings.file.clone();
    let daemon = Daemon::new(&loaded.settings.pid_file);
    if let Some(pid) = daemon.running().filter(|pid| *pid != Pid::this()) {
        bail!(
            "it is running already, as process {pid} ({}); another one needs a folder of its own above its conf/",
            loaded.settings.pid_file.display()
        );
    }
    let (mut terminate, mut quit) = (signal(SignalKind::terminate())?, signal(SignalKind::quit())?);
    let (mut interrupt, mut hangup) = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut reopen = signal(SignalKind::user_defined1())?;
    let (reloader, mut asked) = Reloader::new();
    let mut planes = Planes::start(loaded.settings, reloader).await?;
    tokio::select! {
        opened = planes.open() => opened?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = quit.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    }
    daemon.register();
    let mut reloads = Reloads::default();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = quit.recv() => break,
            _ = interrupt.recv() => {
                tracing::info!("stopping at once");
                planes.abandon().await;
                daemon.unregister();
                return Ok(ExitCode::SUCCESS);
            }
            _ = hangup.recv() => {
                reloads.count += 1;
                reloads.error = reload(&mut planes, &file).await.err();
                let _ = daemon.tell(&reloads);
            }
            Some(answer) = asked.recv() => {
                let _ = answer.send(reload(&mut planes, &file).await);
            }
            _ = reopen.recv() => planes.reopen_logs(),
        }
    }
    tracing::info!("finishing what is in flight, then stopping");
    tokio::select! {
        () = planes.finish() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
        _ = interrupt.recv() => {}
    }
    daemon.unregister();
    Ok(ExitCode::SUCCESS)
}

/// Takes the settings of the file, or says why not: to the log too.
async fn reload(planes: &mut Planes, file: &Path) -> Outcome {
    take(planes, file).await.map_err(|error| {
        let error = format!("{error:#}");
        tracing::error!(error, "the new settings were not taken; the old ones stay in force");
        error
    })
}

async fn take(planes: &mut Planes, file: &Path) -> anyhow::Result<()> {
    let Loaded { settings, warnings } = settings::load(file)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let level = settings.log_level;
    open_files::raise(settings.open_files);
    planes.reload(settings).await?;
    log::change(level);
    Ok(())
}
