//! Consumers, their credentials, and the groups that share plugins among them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Id, Plugins, lenient};

/// Someone who uses routes; known by the user name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Consumer {
    pub username: Box<str>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default)]
    pub group_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
}

/// A further way for a consumer to say who it is. Whose it is says its key: see [`crate::Key::owner`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Credential {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    /// One authentication plugin.
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
}

/// Plugins that consumers share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ConsumerGroup {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
}
