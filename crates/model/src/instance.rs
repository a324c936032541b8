//! Instance configuration: what data planes of a group share that is not a resource (keyring, discovery, plugin
//! attributes). Taken from the control plane's `config.yaml`, delivered to data planes, backed up to the config
//! bucket.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The envelope API7 uses in its heartbeat answer and its config bucket: `{"config":{…}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceEnvelope {
    pub config: Instance,
}

/// Instance configuration of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Grows with every change of the payload.
    pub config_version: u64,
    pub config_payload: InstancePayload,
}

/// What is shared. Unknown fields are kept, so that an older data plane passes on what a newer one needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstancePayload {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apisix: Option<InstanceApisix>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub discovery: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub plugin_attr: Map<String, Value>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceApisix {
    #[serde(default)]
    pub data_encryption: DataEncryption,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `apisix.data_encryption` of `config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataEncryption {
    /// Default: true.
    #[serde(default = "yes")]
    pub enable_encrypt_fields: bool,
    /// The first key encrypts, all decrypt.
    #[serde(default)]
    pub keyring: Vec<String>,
}

fn yes() -> bool {
    true
}
