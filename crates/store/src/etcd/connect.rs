//! Which etcd, and how to get through to it.
//!
//! The rule to know: a host that swallows packets is noticed by pings while something waits for it, and by timeouts
//! otherwise; nothing here waits without end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pki::Unchecked;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::Error;

/// An etcd cluster and a place in it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://127.0.0.1:2379`, `https://…`; tried in random order.
    pub hosts: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// For one request.
    pub timeout: Duration,
    /// Name and password.
    pub user: Option<(String, Arc<str>)>,
    pub tls: Tls,
    pub ping: Ping,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/apisix".to_owned(),
            timeout: Duration::from_secs(30),
            user: None,
            tls: Tls::default(),
            ping: Ping::default(),
        }
    }
}

/// For `https` hosts.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Trusted certificates; the system's where none.
    pub ca: Option<PathBuf>,
    /// Our own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Checks the server's certificate. APISIX's `verify`.
    pub verify: bool,
    /// The name asked for instead of the host's.
    pub sni: Option<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca: None, identity: None, verify: true, sni: None }
    }
}

/// How a silent connection is tried while a request or a watch waits on it.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// etcd hangs up on clients that ping more often than every 5 s.
    pub interval: Duration,
    /// Without an answer for so long the connection is given up.
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { interval: Duration::from_secs(6), timeout: Duration::from_secs(4) }
    }
}

/// A channel to one host, which connects when it is first used and again when it must.
pub(super) fn channel(config: &Config, host: &str) -> Result<Channel, Error> {
    let bad = |reason: String| Error::Unavailable { store: host.to_owned(), reason };
    let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let mut endpoint = Endpoint::from_shared(url)
        .map_err(|error| bad(error.to_string()))?
        .connect_timeout(config.timeout.min(Duration::from_secs(5)))
        .http2_keep_alive_interval(config.ping.interval)
        .keep_alive_timeout(config.ping.timeout)
        // Windows as large as a page of a big snapshot.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if endpoint.uri().scheme_str() == Some("https") {
        let tls = client_tls(&config.tls)?;
        endpoint = if config.tls.verify {
            endpoint.tls_config(tls)
        } else {
            endpoint.tls_config_with_verifier(tls, Arc::new(Unchecked::default()))
        }
        .map_err(|error| bad(chain(&error)))?;
    }
    Ok(endpoint.connect_lazy())
}

fn client_tls(tls: &Tls) -> Result<ClientTlsConfig, Error> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|error| Error::Corrupt { what: path.display().to_string(), reason: error.to_string() })
    };
    let mut config = ClientTlsConfig::new();
    if tls.verify {
        config = match &tls.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => config.with_native_roots(),
        };
    }
    if let Some((cert, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(sni) = &tls.sni {
        config = config.domain_name(sni);
    }
    Ok(config)
}

/// An error with its causes: tonic's own texts say nothing.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // A status shows its source in the middle of its own text.
    let word = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let causes: Vec<String> = std::iter::successors(Some(error), |error| error.source()).map(word).collect();
    // Wrappers often repeat what they wrap.
    let said = |n: usize| causes[..n].iter().any(|earlier| earlier.contains(&causes[n]));
    (0..causes.len()).filter(|n| !said(*n)).map(|n| causes[n].as_str()).collect::<Vec<_>>().join(": ")
}
