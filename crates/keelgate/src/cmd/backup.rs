//! `backup`: works on the bucket that the configuration names, with the control plane up or down.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use http::Method;
use model::Manifest;
use serde_json::Value;
use store::{
    backup::{self, Buckets, ReadError, Trust, What},
    bucket,
};

use super::{remark, say};
use crate::{
    cli::BackupAction,
    http_client::{call, wait},
    planes,
    settings::Settings,
};

pub fn backup(settings: &Settings, action: &BackupAction) -> anyhow::Result<ExitCode> {
    match *action {
        BackupAction::Now => now(settings),
        BackupAction::List { json } => wait(list(settings, json)),
        BackupAction::Show { sequence, resources } => wait(show(settings, sequence, resources)),
        BackupAction::Verify { sequence } => wait(verify(settings, sequence)),
    }
}

/// The buckets of this configuration, whether it writes them or reads them, and whom it trusts.
fn buckets(settings: &Settings) -> anyhow::Result<(Buckets, Trust)> {
    let fallback = settings.source.as_ref().and_then(|source| source.fallback.as_ref());
    let written = settings.export.as_ref().map(|export| &export.backends);
    let backends: &[bucket::Config] = match (written, fallback) {
        (Some(written), _) => written,
        (None, Some(fallback)) => &fallback.backends,
        (None, None) => &[],
    };
    let backend = backends.first().context("the configuration names no bucket: it has no `fallback_cp`")?;
    let trust = fallback.map_or_else(Trust::default, |fallback| Trust {
        public_keys: fallback.public_keys.clone(),
        require_signature: fallback.require_signature,
    });
    Ok((Buckets::open(backend.clone())?, trust))
}

/// Asks the running process to export; without one, exports from the embedded store.
fn now(settings: &Settings) -> anyhow::Result<ExitCode> {
    if settings.export.is_none() {
        bail!("this configuration writes no backup: it has no `fallback_cp` of a control plane");
    }
    let running = settings
        .control_api
        .map(|control| wait(call(control.address, Method::POST, "/v1/backup", None, None)));
    let status = match running {
        Some(Ok(answer)) if answer.status.is_success() => answer.json()?,
        Some(Ok(answer)) => bail!("{}", answer.text()),
        Some(Err(_)) | None => {
            remark("no control plane is running with this configuration; exporting from its store");
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(planes::control::export_once(settings))?
        }
    };
    Ok(told(&status))
}

/// One line per back end; success where all are written and verified.
fn told(status: &Value) -> ExitCode {
    let mut good = true;
    for backend in status["backends"].as_array().into_iter().flatten() {
        let name = backend["name"].as_str().unwrap_or_default();
        let problem = ["last_error", "problem"].iter().find_map(|field| backend[*field].as_str());
        if let Some(problem) = problem {
            good = false;
            say(&format!("{name}: {problem}"));
        } else if backend["held"].is_object() {
            good = false;
            let reason = backend["held"]["reason"].as_str().unwrap_or_default();
            say(&format!("{name}: held: {reason}; release with `keelgate config accept`"));
        } else {
            say(&format!(
                "{name}: backup {}, revision {}, verified {}",
                backend["sequence"], backend["revision"], backend["verified"]
            ));
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn list(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let (buckets, trust) = buckets(settings)?;
    let listed = backup::list(&buckets, &settings.group, &trust).await?;
    if json {
        say(&serde_json::to_string_pretty(&listed)?);
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        say(&format!("there is no backup of gateway group `{}`", settings.group));
        return Ok(ExitCode::FAILURE);
    }
    for one in listed {
        say(&match (&one.manifest, &one.problem) {
            (Some(manifest), _) => line(manifest),
            (None, problem) => format!("{:>8}  {}", one.sequence, problem.as_deref().unwrap_or("unreadable")),
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn line(manifest: &Manifest) -> String {
    let resources: usize = manifest.resource.counts.values().sum();
    let note = manifest.note.as_ref().map_or(String::new(), |note| format!("  {note}"));
    format!(
        "{:>8}  {}  revision {:<8} {resources:>7} resources  by {}{note}",
        manifest.sequence, manifest.created_at, manifest.revision, manifest.writer
    )
}

async fn show(settings: &Settings, sequence: u64, resources: bool) -> anyhow::Result<ExitCode> {
    let (buckets, trust) = buckets(settings)?;
    let shown = backup::show(&buckets, &settings.group, &trust, sequence).await?;
    if resources {
        let mut file = Vec::new();
        shown.snapshot.write_json(&mut file)?;
        say(String::from_utf8_lossy(&file).trim_end());
    } else {
        say(&serde_json::to_string_pretty(&shown)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whole, and a data plane serves from it.
async fn verify(settings: &Settings, sequence: Option<u64>) -> anyhow::Result<ExitCode> {
    let (buckets, trust) = buckets(settings)?;
    let shown = match backup::verify(&buckets, &settings.group, &trust, sequence).await {
        Ok(shown) => shown,
        Err(ReadError::Missing { what: What::Manifest, .. }) => {
            let which = sequence.map_or(String::new(), |sequence| format!(" {sequence}"));
            say(&format!("there is no backup{which} of gateway group `{}`", settings.group));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => {
            say(&format!("bad: {error}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let proof =
        planes::data::prove(settings, &shown.snapshot, &shown.instance).map_err(anyhow::Error::msg)?;
    say(&line(&shown.manifest));
    say(&format!(
        "digests match; it boots: {} of {} resources are served",
        proof.resources - proof.rejected,
        proof.resources
    ));
    Ok(if proof.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
