//! `status` and `config accept`: asks the running process through its control API.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Value, json};

use super::say;
use crate::{
    daemon::Daemon,
    http_client::{call, wait},
    settings::Settings,
};

/// Whether it is running and ready; exit 0 says both.
pub fn status(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    if settings.control_api.is_none() {
        return only_ready(settings, json);
    }
    let view = ours(settings)?;
    if json {
        say(&serde_json::to_string_pretty(&view)?);
    } else {
        lines(&view).iter().for_each(|line| say(line));
    }
    Ok(exit(view["ready"] == true))
}

fn exit(ready: bool) -> ExitCode {
    if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All that is told without a control API.
fn only_ready(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let status = settings.status.context(
        "neither the control API (apisix.enable_control) nor the status listener (apisix.status) is there to be asked",
    )?;
    let answer = wait(call(status.address, Method::GET, "/status/ready", None, None))
        .with_context(|| format!("is it running? its status listener should be at {}", status.address))?;
    let ready = answer.status.is_success();
    if json {
        say(&serde_json::to_string_pretty(&json!({ "ready": ready }))?);
    } else {
        let off = "the control API, which tells the rest, is switched off: apisix.enable_control";
        say(&format!("{:<10} {} ({off})", "ready", if ready { "yes" } else { "no" }));
    }
    Ok(exit(ready))
}

pub fn accept(settings: &Settings) -> anyhow::Result<ExitCode> {
    ours(settings)?;
    let answer = ask(settings, Method::POST, "/v1/config/accept")?;
    let accepted = answer["accepted"].as_array().cloned().unwrap_or_default();
    if accepted.is_empty() {
        say("nothing is held");
        return Ok(ExitCode::FAILURE);
    }
    for what in accepted {
        say(&format!("accepted: {}", what.as_str().unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

fn control_api(settings: &Settings) -> anyhow::Result<SocketAddr> {
    let control = settings.control_api;
    let control = control
        .context("the control API is switched off (apisix.enable_control), so the process can't be asked")?;
    Ok(control.address)
}

fn ask(settings: &Settings, method: Method, path: &str) -> anyhow::Result<Value> {
    let address = control_api(settings)?;
    let answer = wait(call(address, method, path, None, None))
        .with_context(|| format!("is it running? its control API should be at {address}"))?;
    if !answer.status.is_success() {
        bail!("{address} answers with {}: {}", answer.status, answer.text());
    }
    answer.json().with_context(|| format!("{address}, where the control API should be, is no keelgate's"))
}

/// What the process of these settings says of itself; an error where another has its address.
fn ours(settings: &Settings) -> anyhow::Result<Value> {
    let view = ask(settings, Method::GET, "/v1/config")?;
    let address = control_api(settings)?;
    let (Some(role), Some(pid)) = (view["role"].as_str(), view["pid"].as_u64()) else {
        bail!("{address}, where the control API should be, is no keelgate's of this version");
    };
    let running = Daemon::new(&settings.pid_file).running().map(|pid| pid.as_raw().unsigned_abs().into());
    let kept = std::fs::read_to_string(settings.data_dir.join("instance_id")).ok();
    let is_other = running.is_some_and(|running: u64| running != pid)
        || kept.is_some_and(|kept| view["instance_id"] != kept.trim());
    if is_other {
        bail!(
            "another keelgate answers at {address}, a {role} with process {pid}: it is not the one of {} (choose \
             another address for one of them with apisix.control)",
            settings.file.display()
        );
    }
    Ok(view)
}

/// The view in words; what is absent is left out.
fn lines(view: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    line("role", format!("{}, gateway group {}", text(&view["role"]), text(&view["group"])));
    let age = view["age_s"].as_u64().map_or(String::new(), |age| format!(", {age} s old"));
    let sequence = view["sequence"].as_u64().map_or(String::new(), |sequence| format!(", backup {sequence}"));
    line("ready", if view["ready"] == true { "yes" } else { "no" }.to_owned());
    if view["role"] == "control_plane" {
        let (resources, revision) = (&view["resources"], &view["revision"]);
        line(
            "store",
            format!("{resources} resources at revision {revision} (not a data plane: it serves none)"),
        );
    } else {
        line("source", format!("{}, revision {}{sequence}{age}", text(&view["source"]), view["revision"]));
    }
    if let Some(connected) = view["cp"]["connected"].as_bool() {
        let since = view["cp"]["since"].as_str().map_or(String::new(), |since| format!(" since {since}"));
        let state = if connected { "connected" } else { "not connected" };
        line("cp", format!("{state}{since}"));
    }
    for part in ["cp", "bucket"] {
        if let Some(error) = view[part]["last_error"].as_str() {
            line(part, error.to_owned());
        }
    }
    for (part, field) in [("disk", "disk_error"), ("store", "store_error")] {
        if let Some(error) = view[field].as_str() {
            line(part, error.to_owned());
        }
    }
    if let (Some(error), since) = (view["file"]["last_error"].as_str(), text(&view["file"]["since"])) {
        line("file", format!("not taken since {since}, what there was before is served: {error}"));
    }
    if view["held"].is_object() {
        let held = &view["held"];
        line(
            "held",
            format!(
                "{}: the control plane offers {} resources (store {}), {} are served; release with `keelgate config accept`",
                text(&held["reason"]),
                held["offered"]["resources"],
                text(&held["offered"]["store_id"]),
                held["current"]["resources"],
            ),
        );
    }
    for (manager, heard) in view["secrets"].as_object().into_iter().flatten() {
        if let Some(error) = heard["last_error"].as_str() {
            let (failing, all) = (&heard["failing"], &heard["followed"]);
            line("secrets", format!("{manager}: {failing} of {all} can't be had: {error}"));
        }
    }
    for rejected in view["rejected"].as_array().into_iter().flatten() {
        let stale = if rejected["serving_stale"] == true { " (its last good form is served)" } else { "" };
        let name = format!("{}/{}", text(&rejected["kind"]), text(&rejected["id"]));
        line("rejected", format!("{name}: {}{stale}", text(&rejected["reason"])));
    }
    for backend in view["backup"]["backends"].as_array().into_iter().flatten() {
        line("backup", backup(backend));
    }
    lines
}

/// One back end of the backup in words.
fn backup(backend: &Value) -> String {
    let text = |field: &str| backend[field].as_str().map(str::to_owned);
    let name = text("name").unwrap_or_default();
    if let Some(reason) = backend["held"]["reason"].as_str() {
        return format!("{name}: held: {reason}; release with `keelgate config accept`");
    }
    let state = match (text("last_error"), text("problem"), backend["verified"].as_bool()) {
        (Some(error), ..) => format!("failing: {error}"),
        (None, Some(problem), _) => format!("not verified: {problem}"),
        (None, None, Some(true)) => "verified".to_owned(),
        (None, None, _) => "not verified yet".to_owned(),
    };
    let at = text("last_success").map_or("never".to_owned(), |at| at);
    format!(
        "{name}: backup {}, revision {}, {state}, last confirmed {at}",
        backend["sequence"], backend["revision"]
    )
}
