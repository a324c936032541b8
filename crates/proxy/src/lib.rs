//! The data plane: compiles a snapshot into a plan and proxies traffic by it. Names no plugin.

pub mod access_log;
pub mod chain;
pub mod ctx;
pub mod engine;
mod kept_file;
pub mod lasting;
pub mod metrics;
pub mod plan;
pub mod plugin;
pub mod pubsub;
pub mod router;
pub mod secrets;
pub mod status;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod upstream;
pub mod vars;
