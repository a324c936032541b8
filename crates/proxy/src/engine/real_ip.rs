//! Who the client is where proxies of ours stand before us: nginx's realip module.
//!
//! The rule to know: a header is believed only as far as whoever wrote it is. The peer must be one of ours, and of a
//! list only the last address counts, or, recursively, the last that is not one of ours too.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::proxy_protocol::Addresses;

/// Whom to believe, and where they say it.
#[derive(Clone, Debug)]
pub struct RealIp {
    /// `real_ip_from`: proxies of ours.
    pub from: Vec<IpNet>,
    /// `real_ip_header`.
    pub said_by: SaidBy,
    /// `real_ip_recursive`: whether addresses of `from` in a list are passed over too.
    pub recursive: bool,
}

/// Where a proxy says whom it speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaidBy {
    /// A header field; of `X-Forwarded-For` every line.
    Field(HeaderName),
    ProxyProtocol,
}

impl RealIp {
    /// The client, where it is another than the peer.
    pub fn client(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        announced: Option<&Addresses>,
    ) -> Option<SocketAddr> {
        if !self.is_ours(peer.ip()) {
            return None;
        }
        match &self.said_by {
            SaidBy::ProxyProtocol => announced.map(|addresses| addresses.source),
            SaidBy::Field(name) if name == "x-forwarded-for" => {
                let lines = headers.get_all(name).iter().rev();
                self.follow(lines.flat_map(|line| words(line).rev()))
            }
            SaidBy::Field(name) => {
                self.follow(headers.get(name).into_iter().flat_map(|line| words(line).rev()))
            }
        }
    }

    /// Goes from hop to hop, away from us. What is not an address ends the way.
    fn follow<'a>(&self, hops: impl Iterator<Item = &'a [u8]>) -> Option<SocketAddr> {
        let mut client = None;
        for hop in hops {
            let Some(address) = address(hop) else { break };
            client = Some(address);
            if !self.recursive || !self.is_ours(address.ip()) {
                break;
            }
        }
        client
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.from.iter().any(|net| net.contains(&ip))
    }
}

fn words(line: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    let words = line.as_bytes().split(|byte| matches!(byte, b' ' | b','));
    words.filter(|word| !word.is_empty())
}

/// An address with or without a port; without one it is 0, which stands for none.
fn address(word: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(word).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some(SocketAddr::new(IpAddr::V6(ip.parse().ok()?), 0));
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(real_ip: &RealIp, peer: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let found = real_ip.client(format!("{peer}:9").parse().unwrap(), &headers, None);
        found.map(|client| client.to_string())
    }

    fn of(field: &'static str, recursive: bool) -> RealIp {
        let from = vec!["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        RealIp { from, said_by: SaidBy::Field(HeaderName::from_static(field)), recursive }
    }

    #[test]
    fn only_a_proxy_of_ours_is_believed() {
        let real_ip = of("x-real-ip", false);
        let said = [("x-real-ip", "1.2.3.4")];
        assert_eq!(client(&real_ip, "127.0.0.1", &said).as_deref(), Some("1.2.3.4:0"));
        assert_eq!(client(&real_ip, "127.0.0.2", &said), None);
        assert_eq!(client(&real_ip, "127.0.0.1", &[]), None);
        for (text, address) in [
            ("1.2.3.4:56", Some("1.2.3.4:56")),
            ("::1", Some("[::1]:0")),
            ("[::1]", Some("[::1]:0")),
            ("[::1]:5", Some("[::1]:5")),
            ("9.9.9.9, 1.2.3.4", Some("1.2.3.4:0")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(client(&real_ip, "127.0.0.1", &[("x-real-ip", text)]).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn a_list_is_read_from_its_end() {
        let lines = [("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-for", "10.1.1.1,10.2.2.2")];
        let last = of("x-forwarded-for", false);
        assert_eq!(client(&last, "127.0.0.1", &lines).as_deref(), Some("10.2.2.2:0"));
        let recursive = of("x-forwarded-for", true);
        assert_eq!(client(&recursive, "127.0.0.1", &lines).as_deref(), Some("1.2.3.4:0"));
        // What is not an address ends the way; so does the list.
        let odd = [("x-forwarded-for", "1.2.3.4, nobody, 10.1.1.1")];
        assert_eq!(client(&recursive, "127.0.0.1", &odd).as_deref(), Some("10.1.1.1:0"));
        // Bytes that are no text are no address, and hide none of those behind them.
        for bytes in [&b"\xc3\xa9, 9.9.9.9"[..], b"\xff 9.9.9.9, 10.1.1.1"] {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", HeaderValue::from_bytes(bytes).unwrap());
            let found = recursive.client("127.0.0.1:9".parse().unwrap(), &headers, None);
            assert_eq!(found, Some("9.9.9.9:0".parse().unwrap()));
        }
        let ours = [("x-forwarded-for", "10.3.3.3, 10.1.1.1")];
        assert_eq!(client(&recursive, "127.0.0.1", &ours).as_deref(), Some("10.3.3.3:0"));
    }

    #[test]
    fn the_proxy_protocol_is_believed_in_the_same_way() {
        let real_ip = RealIp { said_by: SaidBy::ProxyProtocol, ..of("x", false) };
        let source = "1.2.3.4:5".parse().unwrap();
        let announced = Addresses { source, destination: "6.7.8.9:80".parse().unwrap() };
        let headers = HeaderMap::new();
        let client = |peer: &str| real_ip.client(peer.parse().unwrap(), &headers, Some(&announced));
        assert_eq!(client("10.0.0.1:9"), Some(source));
        assert_eq!(client("11.0.0.1:9"), None);
    }
}
