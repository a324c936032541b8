//! Where TCP and UDP sessions come in.

use std::{net::SocketAddr, path::Path};

use super::{
    super::{
        Listener, Problem, StreamListener, StreamSettings,
        file::{File, ProxyMode},
        values::Ports,
    },
    ANY, Below,
};

pub(super) fn stream(file: &File, below: Below<'_>, problems: &mut Vec<Problem>) -> StreamSettings {
    let (apisix, nginx) = (&file.apisix, file.nginx_config.stream.clone());
    let access_log = nginx.enable_access_log.then(|| nginx.access_log.clone()).filter(|path| path != "off");
    let mut settings = StreamSettings {
        tcp: Vec::new(),
        udp: Vec::new(),
        access_log: access_log.map(|path| below(Path::new(&path))),
        nginx,
    };
    if apisix.proxy_mode == ProxyMode::Http {
        return settings;
    }
    let protocol = &apisix.proxy_protocol;
    for listen in &apisix.stream_proxy.tcp {
        settings.tcp.extend(addresses(&listen.ports).map(|address| StreamListener {
            listener: Listener { address, explicit: true },
            tls: listen.tls,
            proxy_protocol: listen.proxy_protocol.unwrap_or(protocol.enable_tcp_pp),
            proxy_protocol_to_upstream:
                listen.proxy_protocol_to_upstream.unwrap_or(protocol.enable_tcp_pp_to_upstream),
        }));
    }
    for address in apisix.stream_proxy.udp.iter().flat_map(addresses) {
        let taken = |other: &SocketAddr| {
            let anyone = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && (anyone || other.ip() == address.ip())
        };
        if settings.udp.iter().any(taken) {
            let text = format!("{address} is there twice");
            problems.push(Problem::new("apisix.stream_proxy.udp", text));
        }
        settings.udp.push(address);
    }
    settings
}

fn addresses(ports: &Ports) -> impl Iterator<Item = SocketAddr> {
    let ip = ports.ip.unwrap_or(ANY);
    ports.ports.clone().map(move |port| SocketAddr::new(ip, port))
}
