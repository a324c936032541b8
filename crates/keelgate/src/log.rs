//! Logs: to stderr, one line an event, nginx's levels mapped to ours.

use std::{io::IsTerminal as _, sync::OnceLock};

use tracing_subscriber::EnvFilter;

use crate::settings::LogLevel;

/// Changes the level of the log that was started.
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging. `RUST_LOG` overrides the level of the settings. Called once, by `run`.
pub fn start(level: LogLevel) {
    let to_stderr = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter(level))
        .with_filter_reloading();
    let handle = to_stderr.reload_handle();
    // Set already where the process runs several nodes in one (tests): then it stays.
    if to_stderr.try_init().is_ok() {
        // It fails only where the log itself has gone.
        let _ = CHANGE.set(Box::new(move |filter| drop(handle.reload(filter))));
    }
}

/// Logs by another level from now on.
pub fn change(level: LogLevel) {
    if let Some(change) = CHANGE.get() {
        change(filter(level));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info | LogLevel::Notice => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => "error",
    };
    // What the process itself says of its life is told at every level that tells anything of that kind.
    let default =
        format!("{level},keelgate=info,h2=warn,hyper=warn,rustls=warn,object_store=warn,rskafka=off");
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}
