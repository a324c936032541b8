//! The backup of one group in two buckets: how it is laid out, written, read and looked at.
//!
//! The rule to know: objects named by digest never change, a history entry is created exclusively and is the commit,
//! and the manifest is written last. A reader uses nothing whose digest it has not checked.

use std::fmt;

use model::{Instance, Manifest, Snapshot};

use crate::bucket;
pub use crate::bucket::Buckets;

mod api7;
#[cfg(fuzzing)]
pub mod fuzzing;
mod history;
mod layout;
mod part;
mod publish;
mod read;
mod seal;

pub use history::{
    Difference, Listed, Publish, Restored, Shown, diff, list, prune, publish_file, restore, show, verify,
};
pub use layout::{BadGroup, Layout};
pub use model::Rejected;
pub use part::digest;
pub use publish::{Head, Publication, PublishError, head, publish, renew};
pub use read::{look, read_latest, read_sequence};
pub use seal::{BadKey, Signing};

/// Whose signatures are believed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Ed25519 public keys: PEM, or 32 bytes in base64.
    pub public_keys: Vec<String>,
    /// Refuse what is not signed by one of them.
    pub require_signature: bool,
}

/// What a reader already has, so that it is neither read again nor replaced by something older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The sequence being served, or the highest ever seen.
    pub sequence: Option<u64>,
    /// [`Verified::digest`] of what has that sequence.
    pub digest: Option<String>,
    /// The entity tag at the last read: unchanged means nothing is transferred.
    pub etag: Option<String>,
}

/// What [`read_latest`] found.
#[derive(Clone, Debug)]
pub enum Latest {
    /// Still what is known, byte for byte.
    NotModified,
    /// Still the publication that is known; its writer has confirmed it since.
    Renewed { manifest: Box<Manifest>, etag: Option<String> },
    /// Something newer, whole and checked.
    New(Box<Verified>),
}

/// A publication whose every byte was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// None for the objects of API7, which have no manifest.
    pub manifest: Option<Manifest>,
    pub snapshot: Snapshot,
    pub instance: Instance,
    /// Resources that could not be read; the others are in `snapshot`.
    pub rejected: Vec<Rejected>,
    /// SHA-256 over both parts, hexadecimal: equal exactly when the contents are.
    pub digest: String,
    pub etag: Option<String>,
    /// Why the newest publication was refused, where this is an older one from the history.
    pub fallen_back: Option<String>,
}

impl Verified {
    /// What to pass to the next [`read_latest`] once this is served.
    pub fn known(&self) -> Known {
        Known {
            sequence: self.manifest.as_ref().map(|manifest| manifest.sequence),
            digest: Some(self.digest.clone()),
            etag: self.etag.clone(),
        }
    }
}

/// One of the things a publication consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Manifest,
    Snapshot,
    Instance,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Snapshot => "snapshot",
            Self::Instance => "instance configuration",
        })
    }
}

/// Why a backup was not taken. All but [`ReadError::Bucket`] mean: keep what is served, a person should look.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    #[error(transparent)]
    Group(#[from] BadGroup),
    #[error("there is no backup of group `{group}` in {bucket}")]
    Nothing { group: String, bucket: String },
    #[error("the manifest has format {found}, this version reads up to {newest}: upgrade this node")]
    NewerFormat { found: u32, newest: u32 },
    #[error("the backup is of group `{found}`, wanted is `{wanted}`")]
    WrongGroup { found: String, wanted: String },
    #[error("the manifest is not signed, and `trust.require_signature` is on")]
    Unsigned,
    #[error("the manifest is signed with key `{key_id}`, which is not in `trust.public_keys`")]
    UnknownKey { key_id: String },
    #[error("the manifest's signature is wrong: it was changed after it was signed")]
    BadSignature,
    #[error(
        "sequence {found} is older than {known}, which was already seen: refused as a replay; if the backup was begun \
         anew on purpose, stop this node, remove `last_good` from its data_dir and start it while its control plane \
         or that backup can be reached"
    )]
    Replayed { found: u64, known: u64 },
    #[error(
        "sequence {sequence} has other content than the one already seen: two writers do not share a history"
    )]
    Forked { sequence: u64 },
    #[error(
        "the manifest is gone; sequence {known} was already seen, so nothing unproven is taken instead: have the \
         control plane write the backup again (`keelgate backup now`)"
    )]
    Vanished { known: u64 },
    #[error("history entry {wanted} holds the manifest of sequence {found}")]
    WrongSequence { found: u64, wanted: u64 },
    #[error("the {what} can't be read: {reason}")]
    Malformed { what: What, reason: String },
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge { what: What, limit: u64 },
    #[error("the {what} `{key}`, which the manifest names, is missing")]
    Missing { what: What, key: String },
    #[error("the {what} is {found} bytes, the manifest says {expected}: it is torn")]
    WrongSize { what: What, expected: u64, found: u64 },
    #[error("the {what} has digest {found}, the manifest says {expected}: it was damaged or changed")]
    WrongDigest { what: What, expected: String, found: String },
}

#[cfg(test)]
mod tests;
