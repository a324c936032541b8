//! What the engine is told.

use std::{net::SocketAddr, path::Path, time::Duration};

use proxy::tls::Ciphers;

use super::{
    super::{
        Listener, Problem, ProxySettings,
        file::{File, Ssl},
        values::{Listen, OneOrMany},
    },
    ANY, Below, Env, trusted_certificate,
};

fn listeners(given: Option<&[Listen]>, default: u16) -> Vec<Listener> {
    match given {
        None => vec![Listener { address: SocketAddr::new(ANY, default), explicit: true }],
        Some(listens) => listens
            .iter()
            .map(|listen| {
                let (ip, port) = match listen {
                    Listen::Port(port) => (None, *port),
                    Listen::Table { ip, port, .. } => (*ip, *port),
                };
                Listener { address: SocketAddr::new(ip.unwrap_or(ANY), port), explicit: true }
            })
            .collect(),
    }
}

/// Those of TLS 1.2.
fn ciphers(ssl: &Ssl, protocols: &[String], problems: &mut Vec<Problem>) -> Ciphers {
    let ciphers = Ciphers::read(&ssl.ssl_ciphers);
    let has = |version: &str| protocols.iter().any(|known| known == version);
    if ciphers.is_empty() && has("TLSv1.2") && !has("TLSv1.3") {
        let text = format!("`{}` has none that we know for TLSv1.2", ssl.ssl_ciphers);
        problems.push(Problem::new("apisix.ssl.ssl_ciphers", text));
    }
    ciphers
}

pub(super) fn proxy(
    file: &File,
    below: Below<'_>,
    env: Env<'_>,
    problems: &mut Vec<Problem>,
) -> ProxySettings {
    let apisix = &file.apisix;
    let given = apisix.node_listen.clone().map(OneOrMany::into_vec);
    let per_port_h2 =
        given.iter().flatten().any(|listen| matches!(listen, Listen::Table { enable_http2: Some(true), .. }));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let from_env = env("APISIX_WORKER_PROCESSES").and_then(|workers| workers.parse().ok());
    let protocols: Vec<String> = apisix.ssl.ssl_protocols.split_whitespace().map(str::to_owned).collect();
    if !protocols.iter().any(|protocol| matches!(protocol.as_str(), "TLSv1.2" | "TLSv1.3")) {
        let text = format!("`{}` has none of TLSv1.2, TLSv1.3", apisix.ssl.ssl_protocols);
        problems.push(Problem::new("apisix.ssl.ssl_protocols", text));
    }
    let ciphers = ciphers(&apisix.ssl, &protocols, problems);
    let http = file.nginx_config.http.clone();
    ProxySettings {
        listen: listeners(given.as_deref(), 9080),
        tls_listen: if apisix.ssl.enable {
            // 9443 by default may be taken by a neighbour; what is written must work.
            let explicit = apisix.ssl.listen.is_some();
            let listens = listeners(apisix.ssl.listen.as_deref(), 9443);
            listens.into_iter().map(|listener| listener.explicit_if(explicit)).collect()
        } else {
            Vec::new()
        },
        http2: apisix.enable_http2 || per_port_h2,
        workers: file.nginx_config.worker_processes.0.or(from_env).unwrap_or(cores),
        router: apisix.router.http,
        server_tokens: apisix.enable_server_tokens,
        ssl_protocols: protocols,
        ssl_ciphers: ciphers,
        ssl_session_tickets: apisix.ssl.ssl_session_tickets,
        fallback_sni: apisix.ssl.fallback_sni.clone(),
        trusted_certificate: trusted_certificate(apisix).map(|file| below(Path::new(file))),
        trusted_addresses: apisix.trusted_addresses.iter().flatten().map(|net| net.0).collect(),
        show_upstream_status: apisix.show_upstream_status_in_response_header,
        checks_upstreams: !apisix.disable_upstream_healthcheck,
        shutdown_timeout: file
            .nginx_config
            .worker_shutdown_timeout
            .map_or(Duration::from_secs(240), |time| time.0),
        access_log: http
            .enable_access_log
            .then(|| http.access_log.clone())
            .filter(|path| path != "off")
            .map(|path| below(Path::new(&path))),
        http,
    }
}
