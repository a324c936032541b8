//! Instance configuration: what data planes of a group share that is not a resource (keyring, discovery, plugin
//! attributes). Taken from the control plane's `config.yaml`, delivered to data planes, backed up to the config
//! bucket.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
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
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DataEncryption {
    /// Default: true.
    #[serde(default = "yes")]
    pub enable_encrypt_fields: bool,
    /// The first key encrypts, all decrypt. One key may be written without a list.
    #[serde(default, deserialize_with = "one_or_many")]
    pub keyring: Vec<String>,
    /// How is encrypted; either is read.
    #[serde(default, skip_serializing_if = "Cipher::is_apisixs")]
    pub cipher: Cipher,
}

/// The keys are not printed.
impl fmt::Debug for DataEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataEncryption")
            .field("enable_encrypt_fields", &self.enable_encrypt_fields)
            .field("keyring", &format_args!("{} keys", self.keyring.len()))
            .field("cipher", &self.cipher)
            .finish()
    }
}

/// See the ADR on the keyring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// Apache APISIX's, which its data planes read.
    #[default]
    AesCbc,
    /// Authenticated and never the same twice; only our own data planes read it.
    AesGcm,
}

impl Cipher {
    fn is_apisixs(&self) -> bool {
        *self == Self::AesCbc
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a key or a list of keys")]
    enum Keys {
        One(String),
        Many(Vec<String>),
    }
    match Option::deserialize(from)? {
        None => Ok(Vec::new()),
        Some(Keys::One(key)) => Ok(vec![key]),
        Some(Keys::Many(keys)) => Ok(keys),
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_keyring_reads_in_every_form_and_is_passed_on_as_api7_writes_it() {
        for (text, keys) in
            [(json!({"keyring": "a"}), 1), (json!({"keyring": ["a", "b"]}), 2), (json!({}), 0)]
        {
            let read: DataEncryption = serde_json::from_value(text).unwrap();
            assert_eq!(
                (read.enable_encrypt_fields, read.keyring.len(), read.cipher),
                (true, keys, Cipher::AesCbc)
            );
            assert_eq!(serde_json::to_value(&read).unwrap().as_object().unwrap().len(), 2);
        }
        let gcm: DataEncryption =
            serde_json::from_value(json!({"cipher": "aes-gcm", "keyring": null})).unwrap();
        assert_eq!(gcm.cipher, Cipher::AesGcm);
        assert_eq!(serde_json::to_value(&gcm).unwrap()["cipher"], "aes-gcm");
    }
}
