//! Logs: to stderr, one line an event, nginx's levels mapped to ours.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::settings::LogLevel;

/// Starts logging. `RUST_LOG` overrides the level of the settings. Called once, by `run`.
pub fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info | LogLevel::Notice => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Crit | LogLevel::Alert | LogLevel::Emerg => "error",
    };
    // What the process itself says of its life is told at every level that tells anything of that kind.
    let default = format!("{level},keelgate=info,h2=warn,hyper=warn,rustls=warn,object_store=warn");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let to_stderr = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter);
    // Set already where the process runs several nodes in one (tests): then it stays.
    let _ = to_stderr.try_init();
}
