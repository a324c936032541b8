//! The nodes of an upstream, which may be written as a map of addresses or as a list.
//!
//! The rule to know: both forms read as the same list, in the order in which they are written.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess},
};
use serde_json::{Map, Value};

use super::{Scheme, lenient};

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Node {
    /// A name or an address; an IPv6 address keeps its brackets.
    pub host: Box<str>,
    /// Where none is given, the scheme's: see [`Node::port`].
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(deserialize_with = "lenient::count")]
    pub weight: u32,
    /// Nodes of a lower number are used only when all of a higher one have failed.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub priority: i64,
    #[serde(default, deserialize_with = "lenient::map")]
    pub metadata: Map<String, Value>,
}

impl Node {
    /// The node's port, or the one its scheme is known for.
    pub fn port(&self, scheme: Scheme) -> Option<u16> {
        self.port.or_else(|| scheme.default_port())
    }
}

/// Splits `host:port` as APISIX does: brackets stay around an IPv6 address, and one without brackets has no port.
/// A port that is no number from 0 to 65535 is an error.
pub fn split_address(address: &str) -> Result<(&str, Option<u16>), String> {
    let split = if address.starts_with('[') {
        match address.rsplit_once(':') {
            Some((host, port)) if host.ends_with(']') => Some((host, port)),
            _ => None,
        }
    } else {
        match address.split_once(':') {
            Some((_, rest)) if rest.contains(':') => None,
            split => split,
        }
    };
    let Some((host, port)) = split else { return Ok((address, None)) };
    match port.parse() {
        Ok(port) => Ok((host, Some(port))),
        Err(_) => Err(format!("invalid port {port}")),
    }
}

/// Reads the value of `nodes`.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Node>, D::Error> {
    from.deserialize_any(NodesVisitor)
}

struct NodesVisitor;

impl<'de> de::Visitor<'de> for NodesVisitor {
    type Value = Vec<Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes: a map of `host:port` to weight, or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Node>, A::Error> {
        let mut nodes = Vec::with_capacity(map.size_hint().unwrap_or(0));
        while let Some(address) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let (host, port) = split_address(&address).map_err(de::Error::custom)?;
            let lenient::Count(weight) = map.next_value()?;
            nodes.push(Node { host: host.into(), port, weight, priority: 0, metadata: Map::new() });
        }
        Ok(nodes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Node>, A::Error> {
        let mut nodes = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        while let Some(mut node) = seq.next_element::<Node>()? {
            // nginx reads a port in a host too, and so APISIX serves it.
            if node.port.is_none()
                && let Ok((host, Some(port))) = split_address(&node.host)
            {
                (node.host, node.port) = (host.into(), Some(port));
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// `null` is no nodes.
    fn visit_unit<E: de::Error>(self) -> Result<Vec<Node>, E> {
        Ok(Vec::new())
    }
}
