//! The data plane: compiles a snapshot into a plan and proxies traffic by it. Names no plugin.

pub mod ctx;
pub mod lasting;
pub mod metrics;
pub mod plugin;
pub mod tls;
