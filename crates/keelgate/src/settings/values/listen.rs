//! Addresses and ports to listen on.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::Scalar;

/// One listening address: a port, or a table with `ip`, `port` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Port(u16),
    Table { ip: Option<IpAddr>, port: u16, enable_http2: Option<bool>, enable_http3: Option<bool> },
}

impl Listen {
    fn read(given: &Value) -> Result<Self, String> {
        const EXPECTED: &str = "a port is expected, or a table with `port` and perhaps `ip`";
        match given {
            Value::Number(_) | Value::String(_) => port(given).map(Self::Port),
            Value::Object(table) => {
                let switch = |name: &str| match table.get(name) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::Bool(on)) => Ok(Some(*on)),
                    Some(_) => Err(format!("`{name}` is true or false")),
                };
                let ip = match table.get("ip") {
                    None | Some(Value::Null) => None,
                    Some(ip) => {
                        let text = ip.as_str().map_or_else(|| ip.to_string(), str::to_owned);
                        Some(text.parse().map_err(|_| format!("`{text}` is not an IP address"))?)
                    }
                };
                Ok(Self::Table {
                    ip,
                    port: port(table.get("port").ok_or(EXPECTED)?)?,
                    enable_http2: switch("enable_http2")?,
                    enable_http3: switch("enable_http3")?,
                })
            }
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

fn port(given: &Value) -> Result<u16, String> {
    let number = given.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    number.ok_or_else(|| match given.as_str() {
        Some(text) if text.parse::<u16>().is_ok() => {
            format!("the port is a text: write {text} without quotes")
        }
        Some(text) => format!("`{text}` is not a port: 1 to 65535"),
        None => format!("{given} is not a port: 1 to 65535"),
    })
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(&Value::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// `apisix.node_listen`: one listening address or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens(pub Vec<Listen>);

impl<'de> Deserialize<'de> for Listens {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let listens = match Value::deserialize(from)? {
            Value::Array(all) => all.iter().map(Listen::read).collect(),
            one => Listen::read(&one).map(|one| vec![one]),
        };
        listens.map(Self).map_err(de::Error::custom)
    }
}

/// Ports of one address, as `stream_proxy` has them: `9100`, `127.0.0.1:9100`, `[::1]:9100`, `2000-2100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub ip: Option<IpAddr>,
    pub ports: std::ops::RangeInclusive<u16>,
}

/// Reads `stream_proxy`'s notation of ports.
fn parse_ports(text: &str) -> Result<Ports, String> {
    let text = text.trim();
    let (ip, ports) = match text.rsplit_once(':') {
        Some((host, ports)) if host != "*" => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            (Some(bare.parse().map_err(|_| format!("`{host}` is not an address"))?), ports)
        }
        Some((_, ports)) => (None, ports),
        None => (None, text),
    };
    let port = |digits: &str| match digits.parse::<u64>() {
        Ok(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("port out of range (1-65535): {digits}")),
        Err(_) => Err(format!("invalid port format: {text}")),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("invalid port range (start > end): {text}"));
    }
    Ok(Ports { ip, ports: first..=last })
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(Scalar("a port, `address:port` or a range such as `2000-2100`"))?;
        parse_ports(&text).map_err(de::Error::custom)
    }
}

/// Where TCP sessions come in: the ports alone, or a table with `addr` and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamListen {
    pub ports: Ports,
    pub tls: bool,
    pub proxy_protocol: Option<bool>,
    pub proxy_protocol_to_upstream: Option<bool>,
}

impl<'de> Deserialize<'de> for StreamListen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a port, an address, or a table with `addr`")]
        enum Either {
            Number(u64),
            Text(String),
            Table {
                addr: Ports,
                #[serde(default)]
                tls: bool,
                #[serde(default)]
                proxy_protocol: Option<bool>,
                #[serde(default)]
                proxy_protocol_to_upstream: Option<bool>,
            },
        }
        let bare = |text: &str| {
            let ports = parse_ports(text).map_err(de::Error::custom)?;
            Ok(Self { ports, tls: false, proxy_protocol: None, proxy_protocol_to_upstream: None })
        };
        match Either::deserialize(from)? {
            Either::Number(port) => bare(&port.to_string()),
            Either::Text(text) => bare(&text),
            Either::Table { addr, tls, proxy_protocol, proxy_protocol_to_upstream } => {
                Ok(Self { ports: addr, tls, proxy_protocol, proxy_protocol_to_upstream })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_streams_are_read_as_apisix_reads_them() {
        let read = |text: &str| {
            parse_ports(text).map(|Ports { ip, ports }| {
                (ip.map(|ip| ip.to_string()).unwrap_or_default(), *ports.start(), *ports.end())
            })
        };
        assert_eq!(read("9100"), Ok((String::new(), 9100, 9100)));
        assert_eq!(read("127.0.0.1:4000-4100"), Ok(("127.0.0.1".into(), 4000, 4100)));
        assert_eq!(read("[::1]:80"), Ok(("::1".into(), 80, 80)));
        for (text, error) in [
            ("0", "port out of range (1-65535): 0"),
            ("100-70000", "port out of range (1-65535): 70000"),
            ("3000-2000", "invalid port range (start > end): 3000-2000"),
            ("80.5", "invalid port format: 80.5"),
            ("1e3", "invalid port format: 1e3"),
            ("here:80", "`here` is not an address"),
        ] {
            assert_eq!(read(text), Err(error.to_owned()));
        }
    }
}
