//! The two parts of a publication as bytes.
//!
//! The rule to know: nothing is parsed before its size and digest are those of the manifest, and nothing is
//! unpacked beyond the size the manifest announces.

use std::io::Read;

use bytes::Bytes;
use model::{Instance, InstanceEnvelope, Manifest, Snapshot, manifest::Part};
use sha2::{Digest, Sha256};

use super::{Layout, ReadError, Rejected, What};
use crate::bucket::{self, Bucket};

/// No snapshot is unpacked beyond this.
pub const LARGEST_SNAPSHOT: u64 = 512 << 20;
/// No instance configuration is read beyond this.
pub const LARGEST_INSTANCE: u64 = 16 << 20;

/// A snapshot and an instance configuration, ready to be written.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The snapshot as `apisix.json`.
    pub plain: Bytes,
    /// The same, compressed.
    pub packed: Bytes,
    /// The instance configuration in API7's envelope.
    pub instance: Bytes,
}

impl Parts {
    /// Writes both. The same contents give the same bytes.
    pub fn encode(snapshot: &Snapshot, instance: &Instance) -> std::io::Result<Self> {
        let mut plain = Vec::with_capacity(snapshot.len() * 256);
        // What is left out is not a JSON object; reading back and comparing finds it.
        snapshot.write_json(&mut plain)?;
        let envelope = InstanceEnvelope { config: instance.clone() };
        let instance = serde_json::to_vec(&envelope).map_err(std::io::Error::other)?;
        let packed = pack(&plain)?;
        Ok(Self { plain: plain.into(), packed, instance: instance.into() })
    }

    /// The manifest's entry for the snapshot.
    pub fn resource_part(&self, layout: &Layout, sequence: u64, bucket: &Bucket) -> Part {
        let sha256 = sha256(&self.packed);
        Part {
            bucket: bucket.name().to_owned(),
            key: layout.snapshot(sequence, &sha256),
            sha256,
            size: self.packed.len() as u64,
            plain_size: self.plain.len() as u64,
            counts: std::collections::BTreeMap::default(),
        }
    }

    /// The manifest's entry for the instance configuration.
    pub fn instance_part(&self, layout: &Layout, sequence: u64, bucket: &Bucket) -> Part {
        let sha256 = sha256(&self.instance);
        Part {
            bucket: bucket.name().to_owned(),
            key: layout.instance(sequence, &sha256),
            sha256,
            size: self.instance.len() as u64,
            plain_size: self.instance.len() as u64,
            counts: std::collections::BTreeMap::default(),
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What identifies the contents a manifest names.
pub fn digest(manifest: &Manifest) -> String {
    digest_of(&manifest.resource.sha256, &manifest.instance.sha256)
}

pub(super) fn digest_of(resource: &str, instance: &str) -> String {
    sha256(format!("{resource}\n{instance}").as_bytes())
}

/// The stored bytes of a part, if they are what the manifest says.
pub(super) async fn fetch(bucket: &Bucket, part: &Part, what: What) -> Result<Bytes, ReadError> {
    let limit = if what == What::Instance { LARGEST_INSTANCE } else { LARGEST_SNAPSHOT };
    if part.size > limit || part.plain_size > limit {
        return Err(ReadError::TooLarge { what, limit });
    }
    let object = match bucket.get(&part.key, part.size).await {
        Ok(Some(object)) => object,
        Ok(None) => return Err(ReadError::Missing { what, key: part.key.clone() }),
        Err(error) if error.kind == bucket::Kind::TooLarge => {
            return Err(ReadError::TooLarge { what, limit: part.size });
        }
        Err(error) => return Err(error.into()),
    };
    let found = object.bytes.len() as u64;
    if found != part.size {
        return Err(ReadError::WrongSize { what, expected: part.size, found });
    }
    let found = sha256(&object.bytes);
    if found != part.sha256 {
        return Err(ReadError::WrongDigest { what, expected: part.sha256.clone(), found });
    }
    Ok(object.bytes)
}

pub(super) fn pack(plain: &[u8]) -> std::io::Result<Bytes> {
    zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL).map(Bytes::from)
}

/// Unpacks a snapshot to exactly `plain_size` bytes.
pub(super) fn unpack(packed: &[u8], plain_size: u64) -> Result<Vec<u8>, ReadError> {
    let what = What::Snapshot;
    let malformed = |error: std::io::Error| ReadError::Malformed { what, reason: error.to_string() };
    let mut plain = Vec::new();
    let unpacked = zstd::Decoder::with_buffer(packed).map_err(malformed)?;
    // One byte more than announced is enough to know that it is a bomb.
    unpacked.take(plain_size + 1).read_to_end(&mut plain).map_err(malformed)?;
    match plain.len() as u64 {
        found if found > plain_size => Err(ReadError::TooLarge { what, limit: plain_size }),
        found if found < plain_size => Err(ReadError::WrongSize { what, expected: plain_size, found }),
        _ => Ok(plain),
    }
}

/// Reads a snapshot, as JSON or as the YAML that API7 wrote at first.
pub(super) fn snapshot(
    plain: &[u8],
    store_id: &str,
    revision: u64,
) -> Result<(Snapshot, Vec<Rejected>), ReadError> {
    let malformed = |reason: String| ReadError::Malformed { what: What::Snapshot, reason };
    if is_json(plain) {
        return Snapshot::from_json(plain, store_id, revision).map_err(|error| malformed(error.to_string()));
    }
    let text = std::str::from_utf8(plain).map_err(|error| malformed(error.to_string()))?;
    // The mark guards files written in place; objects are written whole, and may come without.
    let marked = format!("{}\n#END\n", text.trim_end().trim_end_matches("#END"));
    let lookup = |name: &str| std::env::var(name).ok();
    Snapshot::from_yaml(&marked, &lookup, store_id, revision).map_err(|error| malformed(error.to_string()))
}

/// Reads an instance configuration: in API7's envelope, or bare, as JSON or YAML.
pub(super) fn instance(bytes: &[u8]) -> Result<Instance, ReadError> {
    let malformed = |reason: String| ReadError::Malformed { what: What::Instance, reason };
    let value: serde_json::Value = if is_json(bytes) {
        serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?
    } else {
        let text = std::str::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
        serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?
    };
    let inner = value.get("config").unwrap_or(&value);
    let read = if inner.get("config_payload").is_some() {
        serde_json::from_value(inner.clone())
    } else {
        serde_json::from_value(inner.clone())
            .map(|config_payload| Instance { config_version: 0, config_payload })
    };
    read.map_err(|error| malformed(error.to_string()))
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}
