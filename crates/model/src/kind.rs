//! The one list of resource kinds, and the key of a resource.
//!
//! The rule to know: everything that differs by kind is asked of [`Kind`]; nobody else matches on kind names.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// What a resource is: a route, a service, … In the order in which a declarative client creates them, so that
/// every reference points backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Secrets,
    Protos,
    PluginMetadata,
    Ssls,
    Upstreams,
    PluginConfigs,
    ConsumerGroups,
    Consumers,
    Credentials,
    GlobalRules,
    Services,
    Routes,
    StreamRoutes,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 13] = [
        Self::Secrets,
        Self::Protos,
        Self::PluginMetadata,
        Self::Ssls,
        Self::Upstreams,
        Self::PluginConfigs,
        Self::ConsumerGroups,
        Self::Consumers,
        Self::Credentials,
        Self::GlobalRules,
        Self::Services,
        Self::Routes,
        Self::StreamRoutes,
    ];

    /// The plural used in keys, files and the Admin API: `routes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Protos => "protos",
            Self::PluginMetadata => "plugin_metadata",
            Self::Ssls => "ssls",
            Self::Upstreams => "upstreams",
            Self::PluginConfigs => "plugin_configs",
            Self::ConsumerGroups => "consumer_groups",
            Self::Consumers => "consumers",
            Self::Credentials => "credentials",
            Self::GlobalRules => "global_rules",
            Self::Services => "services",
            Self::Routes => "routes",
            Self::StreamRoutes => "stream_routes",
        }
    }

    /// The singular used in APISIX's error messages: `route`.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Secrets => "secret",
            Self::Protos => "proto",
            Self::PluginMetadata => "plugin_metadata",
            Self::Ssls => "ssl",
            Self::Upstreams => "upstream",
            Self::PluginConfigs => "plugin config",
            Self::ConsumerGroups => "consumer group",
            Self::Consumers => "consumer",
            Self::Credentials => "credential",
            Self::GlobalRules => "global rule",
            Self::Services => "service",
            Self::Routes => "route",
            Self::StreamRoutes => "stream route",
        }
    }

    /// The folder its keys live in; credentials live below their consumer.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Credentials => "consumers",
            other => other.name(),
        }
    }

    /// The field of a resource that holds its id: `username` for consumers, `id` otherwise.
    pub const fn id_field(self) -> &'static str {
        match self {
            Self::Consumers => "username",
            _ => "id",
        }
    }

    /// Finds a kind by its plural.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a resource is kept: `routes/1`, `consumers/jack`, `consumers/jack/credentials/c1`, `secrets/vault/1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    /// The part after the folder: `1`, `jack`, `jack/credentials/c1`, `vault/1`.
    pub id: Arc<str>,
}

impl Key {
    pub fn new(kind: Kind, id: impl Into<Arc<str>>) -> Self {
        Self { kind, id: id.into() }
    }

    /// For a credential the consumer it belongs to.
    pub fn owner(&self) -> Option<&str> {
        match self.kind {
            Kind::Credentials => self.id.split_once('/').map(|(owner, _)| owner),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.folder(), self.id)
    }
}

/// The text is not a resource's key.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not the key of a resource, such as `routes/1`")]
pub struct NotAKey(pub String);

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let not_a_key = || NotAKey(text.to_owned());
        let (folder, id) = text.split_once('/').ok_or_else(not_a_key)?;
        let kind = Kind::from_name(folder).ok_or_else(not_a_key)?;
        if id.is_empty() || kind == Kind::Credentials {
            return Err(not_a_key());
        }
        match (kind, id.split_once('/')) {
            (Kind::Consumers, Some((owner, rest))) => match rest.strip_prefix("credentials/") {
                Some(last) if !owner.is_empty() && !last.is_empty() && !last.contains('/') => {
                    Ok(Self::new(Kind::Credentials, id))
                }
                _ => Err(not_a_key()),
            },
            (Kind::Secrets, Some((manager, last))) if !manager.is_empty() && !last.is_empty() => {
                Ok(Self::new(kind, id))
            }
            (Kind::Secrets, None) | (_, Some(_)) => Err(not_a_key()),
            (_, None) => Ok(Self::new(kind, id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_as_written() {
        for text in
            ["routes/1", "consumers/jack", "consumers/jack/credentials/c1", "secrets/vault/1", "protos/a.b"]
        {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "routes",
            "routes/",
            "nothing/1",
            "routes/1/2",
            "credentials/1",
            "consumers/j/x/1",
            "secrets/1",
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        let key: Key = "consumers/jack/credentials/c1".parse().unwrap();
        assert_eq!((key.kind, key.owner()), (Kind::Credentials, Some("jack")));
    }
}
