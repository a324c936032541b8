//! What the engine is told.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use proxy::engine::{RealIp, SaidBy};

use proxy::{
    secrets::Times,
    tls::Ciphers,
    upstream::discovery::{Dns, server_address},
};

use proxy::{ctx::PathRules, router::Routing};

use super::{
    super::{
        Listener, Problem, ProxySettings,
        file::{Apisix, File, NginxHttp, ProxyMode, Ssl, ipnet_or_ip},
        values::Listen,
    },
    ANY, Below, Env, trusted_certificate,
};

/// Where no address is written, all of IPv4, and of IPv6 if it can be had.
fn listeners(given: Option<&[Listen]>, default: u16, ipv6: bool) -> Vec<Listener> {
    const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mut listeners = Vec::new();
    for listen in given.unwrap_or(&[Listen::Port(default)]) {
        let (ip, port) = match listen {
            Listen::Port(port) => (None, *port),
            Listen::Table { ip, port, .. } => (*ip, *port),
        };
        listeners.push(Listener { address: SocketAddr::new(ip.unwrap_or(ANY), port), explicit: true });
        if ipv6 && ip.is_none() {
            listeners.push(Listener { address: SocketAddr::new(ANY_IPV6, port), explicit: false });
        }
    }
    listeners
}

/// Those of a port that may not be there at all.
fn optional(port: Option<u16>, ipv6: bool) -> Vec<Listener> {
    port.map_or_else(Vec::new, |port| listeners(Some(&[Listen::Port(port)]), port, ipv6))
}

/// nginx's realip: whose word is taken, and where it stands.
fn real_ip(http: &NginxHttp, problems: &mut Vec<Problem>) -> Option<RealIp> {
    let mut from = Vec::new();
    for text in http.real_ip_from.iter().flatten().filter(|text| *text != "unix:") {
        match ipnet_or_ip::parse(text) {
            Some(net) => from.push(net),
            None => {
                let text = format!("`{text}` is neither an IP address nor a range such as 10.0.0.0/8");
                problems.push(Problem::new("nginx_config.http.real_ip_from", text));
            }
        }
    }
    let said_by = match http.real_ip_header.as_str() {
        "" => return None,
        "proxy_protocol" => SaidBy::ProxyProtocol,
        name => match name.parse() {
            Ok(name) => SaidBy::Field(name),
            Err(_) => {
                let text = format!("`{name}` is neither a header's name nor `proxy_protocol`");
                problems.push(Problem::new("nginx_config.http.real_ip_header", text));
                return None;
            }
        },
    };
    (!from.is_empty()).then_some(RealIp { from, said_by, recursive: http.real_ip_recursive.0 })
}

/// Whose `X-Forwarded-*` are believed. A list of nobody would be a mistake: it is refused, as APISIX does.
fn trusted(apisix: &Apisix, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let nets: Option<Vec<IpNet>> =
        apisix.trusted_addresses.as_ref().map(|nets| nets.iter().map(|net| net.0).collect());
    if nets.as_ref().is_some_and(Vec::is_empty) {
        let text = "it is empty: name at least one address, or leave it out";
        problems.push(Problem::new("apisix.trusted_addresses", text));
    }
    nets.unwrap_or_default()
}

/// Where HTTP/3 is listened for.
fn quic(apisix: &Apisix, protocols: &[String], problems: &mut Vec<Problem>) -> Vec<SocketAddr> {
    let wanted = |listens: &[Listen]| -> Vec<Listen> {
        let wants = |one: &&Listen| matches!(one, Listen::Table { enable_http3: Some(true), .. });
        listens.iter().filter(wants).cloned().collect()
    };
    if let Some(plain) = apisix.node_listen.clone()
        && !wanted(&plain.0).is_empty()
    {
        let text = "HTTP/3 is never without TLS: `enable_http3` belongs into `apisix.ssl.listen`";
        problems.push(Problem::new("apisix.node_listen", text));
    }
    let wanted = wanted(apisix.ssl.listen.as_deref().unwrap_or_default());
    if wanted.is_empty() || !apisix.ssl.enable {
        return Vec::new();
    }
    if !protocols.iter().any(|protocol| protocol == "TLSv1.3") {
        let text = format!("`{}` has no TLSv1.3, which HTTP/3 needs", apisix.ssl.ssl_protocols);
        problems.push(Problem::new("apisix.ssl.ssl_protocols", text));
    }
    listeners(Some(&wanted), 9443, false).into_iter().map(|listener| listener.address).collect()
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

fn routing(file: &File) -> Routing {
    let apisix = &file.apisix;
    let megabytes = apisix.max_post_args_readable_size;
    Routing {
        kind: apisix.router.http,
        paths: PathRules {
            delete_tail_slash: apisix.delete_uri_tail_slash,
            like_servlet: apisix.normalize_uri_like_servlet,
            keep_encoded_slash: apisix.match_uri_encoded_slash,
        },
        most_body: if megabytes == 0 { u64::MAX } else { megabytes.saturating_mul(1024 * 1024) },
        most_graphql: file.graphql.max_size,
    }
}

fn secrets(apisix: &Apisix, problems: &mut Vec<Problem>) -> Times {
    let lru = &apisix.lru.secret;
    for (key, time) in [("ttl", lru.ttl), ("neg_ttl", lru.neg_ttl)] {
        if time.0 < Duration::from_secs(1) {
            problems.push(Problem::new(format!("apisix.lru.secret.{key}"), "it must be a second or more"));
        }
    }
    Times { ttl: lru.ttl.0, neg_ttl: lru.neg_ttl.0 }
}

fn dns(apisix: &Apisix, problems: &mut Vec<Problem>) -> Dns {
    let mut servers = Vec::new();
    for server in &apisix.dns_resolver {
        match server_address(server) {
            Ok(address) => servers.push(address),
            Err(error) => problems.push(Problem::new("apisix.dns_resolver", error)),
        }
    }
    Dns {
        servers,
        valid: apisix.dns_resolver_valid.map(|valid| valid.0),
        patience: Some(apisix.resolver_timeout.0),
        search: apisix.enable_resolv_search_opt,
        ipv6: apisix.enable_ipv6,
        services: None,
    }
}

pub(super) fn proxy(
    file: &File,
    below: Below<'_>,
    env: Env<'_>,
    problems: &mut Vec<Problem>,
) -> ProxySettings {
    let apisix = &file.apisix;
    let given = apisix.node_listen.clone().map(|listens| listens.0);
    let per_port_h2 =
        given.iter().flatten().any(|listen| matches!(listen, Listen::Table { enable_http2: Some(true), .. }));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let from_env = env("APISIX_WORKER_PROCESSES").and_then(|workers| workers.parse().ok());
    let protocols: Vec<String> = apisix.ssl.ssl_protocols.split_whitespace().map(str::to_owned).collect();
    if !protocols.iter().any(|protocol| matches!(protocol.as_str(), "TLSv1.2" | "TLSv1.3")) {
        let text = format!("`{}` has none of TLSv1.2, TLSv1.3", apisix.ssl.ssl_protocols);
        problems.push(Problem::new("apisix.ssl.ssl_protocols", text));
    }
    let quic = quic(apisix, &protocols, problems);
    let ciphers = ciphers(&apisix.ssl, &protocols, problems);
    let http = file.nginx_config.http.clone();
    let ipv6 = apisix.enable_ipv6;
    let mut settings = ProxySettings {
        listen: listeners(given.as_deref(), 9080, ipv6),
        tls_listen: if apisix.ssl.enable {
            // 9443 by default may be taken by a neighbour; what is written must work.
            let explicit = apisix.ssl.listen.is_some();
            let listens = listeners(apisix.ssl.listen.as_deref(), 9443, ipv6);
            let explicit = |listener: Listener| listener.explicit && explicit;
            listens.into_iter().map(|listener| listener.explicit_if(explicit(listener))).collect()
        } else {
            Vec::new()
        },
        proxied_listen: optional(apisix.proxy_protocol.listen_http_port, ipv6),
        proxied_tls_listen: if apisix.ssl.enable {
            optional(apisix.proxy_protocol.listen_https_port, ipv6)
        } else {
            Vec::new()
        },
        quic,
        http2: apisix.enable_http2 || per_port_h2,
        workers: file.nginx_config.worker_processes.0.or(from_env).unwrap_or(cores),
        routing: routing(file),
        server_tokens: apisix.enable_server_tokens,
        ssl_protocols: protocols,
        ssl_ciphers: ciphers,
        ssl_session_tickets: apisix.ssl.ssl_session_tickets,
        fallback_sni: apisix.ssl.fallback_sni.clone(),
        trusted_certificate: trusted_certificate(apisix).map(|file| below(Path::new(file))),
        trusted_addresses: trusted(apisix, problems),
        real_ip: real_ip(&http, problems),
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
        dns: dns(apisix, problems),
        secrets: secrets(apisix, problems),
        http,
        stream: super::stream::stream(file, below, problems),
    };
    if apisix.proxy_mode == ProxyMode::Stream {
        settings.listen.clear();
        settings.tls_listen.clear();
        settings.proxied_listen.clear();
        settings.proxied_tls_listen.clear();
    }
    settings
}
