//! How many files the process may have open, which are connections for the most part.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to `wanted`, or as far as it goes: every connection from a client may need one to an upstream.
///
/// nginx's `worker_rlimit_nofile` is for each worker; ours are threads of one process, so `wanted` is for all of them.
/// Where the hard limit allows more than that, more is taken. A limit that stays below `wanted` is told.
pub fn raise(wanted: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let most = hard.max(wanted);
    if soft >= most || setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
        return;
    }
    let allowed = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    tracing::warn!(
        allowed,
        wanted,
        "fewer files may be open than nginx_config.worker_rlimit_nofile asks for; raise the hard limit (ulimit -Hn)"
    );
}
