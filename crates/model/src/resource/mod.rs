//! Resources as the data plane compiles them: typed, with Apache APISIX's defaults filled in.
//!
//! The rule to know: reading is lenient. Unknown fields are passed over, so that an older data plane reads what a
//! newer control plane writes, and nothing is judged here that the schema judges already; what only people read
//! (descriptions, times) is not read at all.

mod consumer;
mod lenient;
mod node;
mod other;
mod route;
mod ssl;
mod upstream;

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

pub use consumer::{Consumer, ConsumerGroup, Credential};
pub use node::{Node, split_address};
pub use other::{GlobalRule, PluginConfig, PluginMetadata, Proto, Secret};
pub use route::{Route, Service, StreamRoute};
pub use ssl::{ClientVerification, OcspStapling, Ssl, SslType};
pub use upstream::{Balance, HashOn, KeepalivePool, PassHost, Scheme, Upstream, UpstreamTls};

use crate::kind::Kind;

/// Plugin configurations by plugin name.
pub type Plugins = Map<String, Value>;

/// The id of a resource or a reference to one, which may be written as a text or as a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

impl Id {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: a text or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        Ok(Id(text.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Id, E> {
        Ok(Id(number.to_string().into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Id, E> {
        Ok(Id(number.to_string().into()))
    }

    /// Lua knows one kind of number: `1.0` is the id `1`.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Id, E> {
        if number.fract() == 0.0 {
            Ok(Id(format!("{number:.0}").into()))
        } else {
            Err(E::invalid_value(de::Unexpected::Float(number), &self))
        }
    }
}

/// A text that must not be seen: its debug form is dots.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(Box<str>);

impl Hidden {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Limits of one exchange with an upstream, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Timeout {
    pub connect: f64,
    pub send: f64,
    pub read: f64,
}

/// `status` of routes and certificates: 1, the default, is on; 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Status(u8);

impl Status {
    pub const fn is_on(self) -> bool {
        self.0 == 1
    }
}

impl Default for Status {
    fn default() -> Self {
        Self(1)
    }
}

/// Says why a data plane could not read a resource.
pub fn readable(kind: Kind, conf: &Value) -> Result<(), String> {
    fn read<'a, T: Deserialize<'a>>(conf: &'a Value) -> Result<(), String> {
        T::deserialize(conf).map(drop).map_err(|error| error.to_string())
    }
    match kind {
        Kind::Secrets => read::<Secret>(conf),
        Kind::Protos => read::<Proto>(conf),
        Kind::PluginMetadata => read::<PluginMetadata>(conf),
        Kind::Ssls => read::<Ssl>(conf),
        Kind::Upstreams => read::<Upstream>(conf),
        Kind::PluginConfigs => read::<PluginConfig>(conf),
        Kind::ConsumerGroups => read::<ConsumerGroup>(conf),
        Kind::Consumers => read::<Consumer>(conf),
        Kind::Credentials => read::<Credential>(conf),
        Kind::GlobalRules => read::<GlobalRule>(conf),
        Kind::Services => read::<Service>(conf),
        Kind::Routes => read::<Route>(conf),
        Kind::StreamRoutes => read::<StreamRoute>(conf),
    }
}

#[cfg(test)]
mod tests;
