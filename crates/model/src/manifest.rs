//! The manifest: what a backup is made of, and the proof that it is whole. See the ADR on the snapshot format.
//!
//! The rule to know: a manifest is written last and names everything by digest; whoever reads one checks both
//! digests before anything is used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The newest format this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]. A reader refuses a higher one.
    pub format: u32,
    pub group: String,
    /// The lineage of the store.
    pub store_id: String,
    /// The store's revision.
    pub revision: u64,
    /// Grows by one at each publication.
    pub sequence: u64,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC: the last time the store was seen to hold just this.
    pub verified_at: String,
    /// Who wrote it: instance id and host name.
    pub writer: String,
    pub resource: Part,
    pub instance: Part,
    /// SHA-256 of the previous manifest's bytes in the history, hexadecimal; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Set by `backup restore` and `backup publish`: what an operator did by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// One immutable thing in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub bucket: String,
    pub key: String,
    /// Of the stored bytes, hexadecimal.
    pub sha256: String,
    /// Of the stored bytes.
    pub size: u64,
    /// Size after decompression, in bytes: the reader's limit against a bomb.
    pub plain_size: u64,
    /// Resources of each kind; kinds that only a newer writer knows are passed over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "known_kinds")]
    pub counts: BTreeMap<Kind, usize>,
}

fn known_kinds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<Kind, usize>, D::Error> {
    let counts = BTreeMap::<String, usize>::deserialize(from)?;
    Ok(counts.into_iter().filter_map(|(name, count)| Some((Kind::from_name(&name)?, count))).collect())
}

/// Over the manifest's JSON without the field `signature`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub key_id: String,
    /// `ed25519`.
    pub alg: String,
    /// Base64.
    pub sig: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_a_newer_writer_are_passed_over() {
        let part =
            r#"{"bucket":"b","key":"k","sha256":"","size":1,"plain_size":1,"counts":{"routes":2,"moons":1}}"#;
        let part: Part = serde_json::from_str(part).unwrap();
        assert_eq!(part.counts, BTreeMap::from([(Kind::Routes, 2)]));
    }
}
