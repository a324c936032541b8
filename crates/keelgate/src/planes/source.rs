//! From settings to the configuration of a source and of the engine.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use ::proxy::{access_log, engine, stream};
use http::HeaderValue;
use store::{
    backup,
    source::{self, Authority, Guard},
};

use super::{hostname, instance_id};
use crate::settings::{
    EtcdSettings, FallbackSettings, Listener, ProxySettings, Settings, SourceFrom, StreamListener,
    StreamSettings, file::Escape,
};

/// Whom this data plane believes.
pub fn config(settings: &Settings) -> anyhow::Result<source::Config> {
    let Some(wanted) = &settings.source else { anyhow::bail!("this role has no source") };
    let fallback = wanted.fallback.as_ref().map(bucket).transpose()?;
    let authority = match &wanted.from {
        SourceFrom::Etcd(from) => Authority::ControlPlane { etcd: etcd(settings, from), fallback },
        SourceFrom::Own => {
            let Some(dp_listen) = &settings.dp_listen else {
                anyhow::bail!("this role serves no data planes")
            };
            let own = EtcdSettings {
                hosts: vec![format!("http://{}", crate::http_client::reachable(dp_listen.plain.address))],
                prefix: "/apisix".into(),
                timeout: Duration::from_secs(10),
                user: None,
                ca: None,
                identity: None,
                verify: true,
                sni: None,
            };
            Authority::ControlPlane { etcd: etcd(settings, &own), fallback: None }
        }
        SourceFrom::Bucket => match fallback {
            Some(fallback) => Authority::Bucket(fallback),
            None => anyhow::bail!("there is no `fallback_cp` to read from"),
        },
        SourceFrom::File(path) => Authority::File(path.clone()),
    };
    let mut config = source::Config::new(&settings.group, authority);
    config.data_dir = Some(settings.data_dir.clone());
    config.guard = Guard {
        max_shrink: wanted.max_shrink,
        allow_empty: wanted.allow_empty,
        own_store: matches!(wanted.from, SourceFrom::Own),
    };
    if let Some(fallback) = &wanted.fallback {
        config.startup_grace = fallback.startup_grace;
        config.fallback_after = fallback.fallback_after;
        config.max_age = fallback.max_age;
        config.on_stale = fallback.on_stale;
    }
    Ok(config)
}

fn etcd(settings: &Settings, etcd: &EtcdSettings) -> source::etcd::Config {
    source::etcd::Config {
        hosts: etcd.hosts.clone(),
        prefix: etcd.prefix.clone(),
        timeout: etcd.timeout,
        user: etcd.user.clone(),
        tls: source::etcd::Tls {
            ca: etcd.ca.clone(),
            identity: etcd.identity.clone(),
            verify: etcd.verify,
            sni: etcd.sni.clone(),
        },
        node: source::etcd::Node {
            instance_id: instance_id(settings),
            hostname: hostname(),
            ip: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
    }
}

fn bucket(fallback: &FallbackSettings) -> anyhow::Result<source::bucket::Config> {
    let buckets = fallback
        .backends
        .iter()
        .map(|backend| store::bucket::Buckets::open(backend.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let trust = backup::Trust {
        public_keys: fallback.public_keys.clone(),
        require_signature: fallback.require_signature,
    };
    Ok(source::bucket::Config { buckets, trust, poll_interval: fallback.poll_interval })
}

/// What the engine is told; `held` are the addresses it listens on already.
pub fn engine_config(proxy: &ProxySettings, held: &dyn Fn(SocketAddr) -> bool) -> engine::Config {
    let plain = |address| engine::Listener { http2: proxy.http2, ..engine::Listener::at(address) };
    let tls = |address| engine::Listener { tls: true, ..plain(address) };
    let usable = |one: &&Listener| one.explicit || held(one.address) || is_free(one);
    let all = |listeners: &[Listener], made: &dyn Fn(SocketAddr) -> engine::Listener| -> Vec<_> {
        listeners.iter().filter(usable).map(|one| made(one.address)).collect()
    };
    let proxied = |listener| engine::Listener { proxy_protocol: true, ..listener };
    let listeners = [
        all(&proxy.listen, &plain),
        all(&proxy.tls_listen, &tls),
        all(&proxy.proxied_listen, &|address| proxied(plain(address))),
        all(&proxy.proxied_tls_listen, &|address| proxied(tls(address))),
    ]
    .concat();
    let streams = proxy.stream.tcp.iter().map(stream_listener);
    let http = &proxy.http;
    let block = usize::try_from(http.access_log_buffer.0).unwrap_or(usize::MAX);
    let given = http.access_log_format.as_deref();
    let format = log_format(given, access_log::DEFAULT_FORMAT, http.access_log_format_escape, block);
    engine::Config {
        listeners: listeners.into_iter().chain(streams).collect(),
        quic: proxy.quic.clone(),
        workers: proxy.workers,
        limits: engine::Limits {
            head: http.large_client_header_buffers.total(),
            line: http.large_client_header_buffers.size,
            body: http.client_max_body_size.0,
            ..engine::Config::default().limits
        },
        timeouts: engine::Timeouts {
            keepalive: http.keepalive_timeout.0,
            client_header: http.client_header_timeout.0,
            client_body: http.client_body_timeout.0,
            send: http.send_timeout.0,
            shutdown: proxy.shutdown_timeout,
        },
        access_log: proxy.access_log.is_some().then(|| Arc::new(format)),
        access_log_file: proxy.access_log.clone(),
        server: Some(HeaderValue::from_static(if proxy.server_tokens {
            ::control::admin::COMPATIBLE_WITH
        } else {
            "APISIX"
        })),
        trusted: proxy.trusted_addresses.clone(),
        real_ip: proxy.real_ip.clone(),
        underscores: http.underscores_in_headers.0,
        show_upstream_status: proxy.show_upstream_status,
        fallback_sni: proxy.fallback_sni.as_deref().map(Into::into),
        stream: stream_config(&proxy.stream),
    }
}

fn stream_listener(stream: &StreamListener) -> engine::Listener {
    let port = stream::Port { proxy_protocol_to_upstream: stream.proxy_protocol_to_upstream };
    engine::Listener {
        tls: stream.tls,
        proxy_protocol: stream.proxy_protocol,
        stream: Some(port),
        ..engine::Listener::at(stream.listener.address)
    }
}

fn stream_config(settings: &StreamSettings) -> stream::Settings {
    /// APISIX writes this log with `buffer=16384`.
    const BLOCK: usize = 16 * 1024;
    let given = settings.nginx.access_log_format.as_deref();
    let escape = settings.nginx.access_log_format_escape;
    let format = log_format(given, stream::DEFAULT_LOG_FORMAT, escape, BLOCK);
    stream::Settings {
        udp: settings.udp.clone(),
        trusted: settings.nginx.real_ip_from.iter().map(|net| net.0).collect(),
        access_log: settings.access_log.is_some().then(|| Arc::new(format)),
        access_log_file: settings.access_log.clone(),
    }
}

/// The format that is written, or the default.
fn log_format(given: Option<&str>, default: &str, escape: Escape, block: usize) -> access_log::Format {
    let escape = match escape {
        Escape::Default => access_log::Escape::Default,
        Escape::Json => access_log::Escape::Json,
        Escape::None => access_log::Escape::None,
    };
    let text = given.map_or(Cow::Borrowed(default), |given| Cow::Owned(as_nginx_reads(given)));
    access_log::Format::new(&text, escape, block)
}

/// APISIX puts a format between single quotes into `nginx.conf` (`cli/ngx_tpl.lua`), where nginx reads `\"` as `"` and
/// its like. One pair of quotes around the whole, as in APISIX's `config.yaml.example`, is not part of the lines.
fn as_nginx_reads(text: &str) -> String {
    let text = text.trim();
    let mut read = String::with_capacity(text.len());
    let mut bare_quotes = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '"' {
            bare_quotes.push(read.len());
        }
        if char != '\\' {
            read.push(char);
            continue;
        }
        match chars.next() {
            Some(quoted @ ('"' | '\'' | '\\')) => read.push(quoted),
            Some('t') => read.push('\t'),
            Some('r') => read.push('\r'),
            Some('n') => read.push('\n'),
            other => read.extend(['\\'].into_iter().chain(other)),
        }
    }
    match bare_quotes[..] {
        [0, last] if last + 1 == read.len() => read[1..last].to_owned(),
        _ => read,
    }
}

/// Whether a default address can be had; where a neighbour has it, or there is no IPv6, we go on without.
fn is_free(listener: &Listener) -> bool {
    match engine::can_listen(listener.address) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!("{} is taken; going on without it", listener.address);
            false
        }
        Err(error) if listener.address.is_ipv6() => {
            tracing::debug!(%error, address = %listener.address, "going on without it");
            false
        }
        // It is told with its reason when the engine tries.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_default_listener_gives_way_to_neighbours_and_not_to_ourselves() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let loaded = crate::settings::parse("", Path::new("/srv/conf/config.yaml"), &|_| None).unwrap();
        let mut proxy = loaded.settings.proxy.unwrap();
        proxy.tls_listen = vec![Listener { address, explicit: false }];
        let tls = |held: bool| engine_config(&proxy, &|_| held).listeners.iter().any(|one| one.tls);
        assert!(!tls(false), "another process has it");
        assert!(tls(true), "a reload keeps what the engine has");
    }

    #[test]
    fn a_log_format_is_read_as_nginx_reads_it() {
        for (written, read) in [
            // The Helm chart's, in a YAML text of single quotes.
            (
                r#"[$time_local] \"$request\" \"$upstream_uri\""#,
                r#"[$time_local] "$request" "$upstream_uri""#,
            ),
            // That of APISIX's `config.yaml.example`.
            ("\"$host \\\"$request\\\"\"\n", r#"$host "$request""#),
            (r#""$uri" "$status""#, r#""$uri" "$status""#),
            (r#"$uri "$status""#, r#"$uri "$status""#),
            (r#"{"a": "$uri"}"#, r#"{"a": "$uri"}"#),
            (r"$uri\t\'$status\' \\ \d\", "$uri\t'$status' \\ \\d\\"),
            (r#"""#, r#"""#),
            ("", ""),
        ] {
            assert_eq!(as_nginx_reads(written), read, "{written}");
        }
    }

    #[test]
    fn the_default_log_format_is_whole() {
        let format = log_format(None, access_log::DEFAULT_FORMAT, Escape::Default, 0);
        let same = access_log::Format::new(access_log::DEFAULT_FORMAT, access_log::Escape::Default, 0);
        assert_eq!(format!("{format:?}"), format!("{same:?}"));
    }
}
