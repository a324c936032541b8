//! `status` and `config accept`: asks the running process through its control API.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::Value;

use super::say;
use crate::{
    http_client::{call, wait},
    settings::Settings,
};

pub fn status(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let view = ask(settings, Method::GET, "/v1/config")?;
    if json {
        say(&serde_json::to_string_pretty(&view)?);
    } else {
        lines(&view).iter().for_each(|line| say(line));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn accept(settings: &Settings) -> anyhow::Result<ExitCode> {
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

fn ask(settings: &Settings, method: Method, path: &str) -> anyhow::Result<Value> {
    let control = settings
        .control_api
        .context("the control API is switched off (apisix.enable_control), so the process can't be asked")?;
    let answer = wait(call(control.address, method, path, None, None))
        .with_context(|| format!("is it running? its control API should be at {}", control.address))?;
    if !answer.status.is_success() {
        bail!("{}", answer.text());
    }
    answer.json()
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
    line("source", format!("{}, revision {}{sequence}{age}", text(&view["source"]), view["revision"]));
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
