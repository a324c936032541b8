//! Manifests as bytes: written and signed, read and believed.

use bytes::Bytes;
use model::{Manifest, manifest::FORMAT};
use serde::Deserialize;

use super::{ReadError, Trust, read::malformed};

/// The key manifests are signed with.
#[derive(Clone, Debug)]
pub enum Signing {}

/// What is looked at before anything else: a newer format may have changed the rest.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// Reads a manifest and checks that it is of this group and signed as `trust` wants.
pub(super) fn open(bytes: &[u8], group: &str, trust: &Trust) -> Result<Manifest, ReadError> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if head.format > FORMAT {
        return Err(ReadError::NewerFormat { found: head.format, newest: FORMAT });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if manifest.group != group {
        return Err(ReadError::WrongGroup { found: manifest.group, wanted: group.to_owned() });
    }
    if manifest.signature.is_none() && trust.require_signature {
        return Err(ReadError::Unsigned);
    }
    Ok(manifest)
}

/// Signs a manifest if there is a key, and writes it.
pub(super) fn close(manifest: &mut Manifest, signing: Option<&Signing>) -> Result<Bytes, serde_json::Error> {
    manifest.signature = None;
    if let Some(signing) = signing {
        match *signing {}
    }
    bytes(manifest)
}

/// Writes a manifest.
pub(super) fn bytes(manifest: &Manifest) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec_pretty(manifest).map(Bytes::from)
}
