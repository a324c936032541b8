//! The resources that are little more than plugins or a text.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Id, Plugins, lenient};

/// Plugins that run for every request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GlobalRule {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
}

/// Plugins that routes share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PluginConfig {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub labels: Map<String, Value>,
    #[serde(default, deserialize_with = "lenient::map")]
    pub plugins: Plugins,
}

/// What all instances of one plugin share; its id is the plugin's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct PluginMetadata(pub Map<String, Value>);

/// A protobuf definition.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Proto {
    #[serde(default)]
    pub id: Option<Id>,
    #[serde(default)]
    pub name: Option<Box<str>>,
    /// The `.proto` text, or a descriptor set in base64.
    pub content: Box<str>,
}

/// How a secret manager is reached; which manager says the first part of its id.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Map<String, Value>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
