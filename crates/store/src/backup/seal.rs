//! Manifests as bytes: written and signed, read and believed.
//!
//! The rule to know: what is signed is the manifest as compact JSON, in the order in which it is written and with
//! every field there is, known or not, but `signature`.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use model::{
    Manifest,
    manifest::{FORMAT, Signature},
};
use serde::Deserialize;
use serde_json::Value;

use super::{ReadError, Trust, part::sha256, read::malformed};

/// The ed25519 key manifests are signed with.
#[derive(Debug)]
pub struct Signing {
    keys: Ed25519KeyPair,
}

/// The text is no key.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not an ed25519 {0}")]
pub struct BadKey(&'static str);

impl Signing {
    /// Reads a private key as `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let bad = || BadKey("private key in PEM (PKCS#8)");
        let der = decode(pem).ok_or_else(bad)?;
        let keys = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| bad())?;
        Ok(Self { keys })
    }

    /// The public half, as `trust.public_keys` takes it.
    pub fn public_key(&self) -> String {
        BASE64_STANDARD.encode(self.keys.public_key())
    }

    /// Names the key in manifests.
    pub fn key_id(&self) -> String {
        key_id(self.keys.public_key().as_ref())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        let sig = BASE64_STANDARD.encode(self.keys.sign(message));
        Signature { key_id: self.key_id(), alg: "ed25519".to_owned(), sig }
    }
}

impl Trust {
    /// Checks that every key is one. Settings do so before anything depends on it.
    pub fn check(&self) -> Result<(), BadKey> {
        self.public_keys.iter().try_for_each(|key| public_key(key).map(drop))
    }

    /// Checks a manifest's signature, if it must have one or keys to check it with are known.
    fn believe(&self, manifest: &Manifest, signed: &[u8]) -> Result<(), ReadError> {
        let Some(signature) = &manifest.signature else {
            return if self.require_signature { Err(ReadError::Unsigned) } else { Ok(()) };
        };
        if self.public_keys.is_empty() && !self.require_signature {
            return Ok(());
        }
        let keys = self.public_keys.iter().filter_map(|key| public_key(key).ok());
        let Some(key) = keys.into_iter().find(|key| key_id(key) == signature.key_id) else {
            return Err(ReadError::UnknownKey { key_id: signature.key_id.clone() });
        };
        let sig = BASE64_STANDARD.decode(&signature.sig).map_err(|_| ReadError::BadSignature)?;
        UnparsedPublicKey::new(&ED25519, key).verify(signed, &sig).map_err(|_| ReadError::BadSignature)
    }
}

/// What is looked at before anything else: a newer format may have changed the rest.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// Reads a manifest and checks that it is of this group and signed as `trust` wants.
pub(super) fn open(bytes: &[u8], group: &str, trust: &Trust) -> Result<Manifest, ReadError> {
    let bad = |error: serde_json::Error| malformed(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
    if head.format > FORMAT {
        return Err(ReadError::NewerFormat { found: head.format, newest: FORMAT });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(bad)?;
    if manifest.group != group {
        return Err(ReadError::WrongGroup { found: manifest.group, wanted: group.to_owned() });
    }
    let whole: Value = serde_json::from_slice(bytes).map_err(bad)?;
    trust.believe(&manifest, &signed(whole).map_err(bad)?)?;
    Ok(manifest)
}

/// Signs a manifest if there is a key, and writes it.
pub(super) fn close(manifest: &mut Manifest, signing: Option<&Signing>) -> Result<Bytes, serde_json::Error> {
    manifest.signature = None;
    if let Some(signing) = signing {
        let message = signed(serde_json::to_value(&*manifest)?)?;
        manifest.signature = Some(signing.sign(&message));
    }
    bytes(manifest)
}

/// Writes a manifest.
pub(super) fn bytes(manifest: &Manifest) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec_pretty(manifest).map(Bytes::from)
}

fn signed(mut manifest: Value) -> Result<Vec<u8>, serde_json::Error> {
    if let Some(fields) = manifest.as_object_mut() {
        fields.shift_remove("signature");
    }
    serde_json::to_vec(&manifest)
}

fn key_id(public_key: &[u8]) -> String {
    sha256(public_key)[..16].to_owned()
}

/// A public key as PEM, or its 32 bytes in base64.
fn public_key(text: &str) -> Result<[u8; 32], BadKey> {
    let bad = || BadKey("public key: PEM, or 32 bytes in base64");
    let bytes = decode(text).ok_or_else(bad)?;
    // In PEM, what goes before the last 32 bytes says that it is ed25519.
    let (prefix, key) = bytes.split_last_chunk::<32>().ok_or_else(bad)?;
    if prefix.is_empty() || prefix == SPKI { Ok(*key) } else { Err(bad()) }
}

/// `SubjectPublicKeyInfo` of an ed25519 key up to the key itself.
const SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Base64, with or without PEM's lines around it.
fn decode(text: &str) -> Option<Vec<u8>> {
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    BASE64_STANDARD.decode(body).ok()
}
