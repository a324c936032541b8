//! Listeners that can't be at the same address.

use super::super::{Listener, Problem, Settings};

const PROXIED: &str = "apisix.proxy_protocol.listen_http_port";
const PROXIED_TLS: &str = "apisix.proxy_protocol.listen_https_port";

/// Two of our listeners on one address can't be.
pub(super) fn find(settings: &Settings, problems: &mut Vec<Problem>) {
    let all = written(settings);
    for (index, (key, listener)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..index].iter().find(|(_, other)| overlap(listener, other)) {
            let text = format!("{} is also the address of {other}", listener.address);
            problems.push(Problem::new(*key, text));
        }
    }
}

/// A default that another key of the file claims is gone without.
pub(super) fn give_way(settings: &mut Settings, warnings: &mut Vec<Problem>) {
    let all = written(settings);
    let mut gives_way = |key: &str, listener: &Listener| {
        let claimed = all.iter().find(|(_, other)| !listener.explicit && overlap(listener, other));
        // What a key says twice is there.
        if let Some((other, _)) = claimed.filter(|(other, _)| *other != key) {
            let text = format!("its default {} is the address of {other}", listener.address);
            warnings.push(Problem::new(key, text));
        }
        claimed.is_some()
    };
    settings.control_api = settings.control_api.filter(|listener| !gives_way("apisix.control", listener));
    settings.status = settings.status.filter(|listener| !gives_way("apisix.status", listener));
    settings.prometheus = settings
        .prometheus
        .take()
        .filter(|prometheus| !gives_way("plugin_attr.prometheus", &prometheus.listen));
    if let Some(proxy) = &mut settings.proxy {
        let listeners = [
            ("apisix.node_listen", &mut proxy.listen),
            ("apisix.ssl.listen", &mut proxy.tls_listen),
            (PROXIED, &mut proxy.proxied_listen),
            (PROXIED_TLS, &mut proxy.proxied_tls_listen),
        ];
        for (key, listeners) in listeners {
            listeners.retain(|listener| !gives_way(key, listener));
        }
    }
}

/// The listeners the file asks for; see [`Listener::explicit`]. Nobody can do without the Admin API's.
fn written(settings: &Settings) -> Vec<(&'static str, Listener)> {
    let mut all: Vec<(&str, Listener)> = Vec::new();
    if let Some(proxy) = &settings.proxy {
        all.extend(proxy.listen.iter().map(|listener| ("apisix.node_listen", *listener)));
        let streams = proxy.stream.tcp.iter().map(|stream| ("apisix.stream_proxy.tcp", stream.listener));
        all.extend(streams);
        all.extend(proxy.tls_listen.iter().map(|listener| ("apisix.ssl.listen", *listener)));
        all.extend(proxy.proxied_listen.iter().map(|listener| (PROXIED, *listener)));
        all.extend(proxy.proxied_tls_listen.iter().map(|listener| (PROXIED_TLS, *listener)));
    }
    let admin = settings.admin.iter().map(|admin| admin.listen.explicit_if(true));
    all.extend(admin.map(|listener| ("deployment.admin.admin_listen", listener)));
    if let Some(dp) = &settings.dp_listen {
        all.push(("keelgate.dp_listen", dp.plain));
        all.extend(dp.tls.iter().map(|(listener, _)| ("keelgate.dp_listen.tls_port", *listener)));
    }
    all.extend(settings.control_api.map(|listener| ("apisix.control", listener)));
    all.extend(settings.status.map(|listener| ("apisix.status", listener)));
    all.extend(settings.prometheus.iter().map(|p| ("plugin_attr.prometheus.export_addr", p.listen)));
    all.retain(|(_, listener)| listener.explicit);
    all
}

/// All of IPv6 has nothing of IPv4: the proxy's sockets are of one family.
fn overlap(a: &Listener, b: &Listener) -> bool {
    let (a, b) = (a.address, b.address);
    a.port() == b.port()
        && a.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}
