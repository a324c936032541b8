//! Where a group's objects lie.
//!
//! The rule to know: a sequence stands in every key of its publication, so what a listing shows can be sorted and
//! cleaned up without being read.

use crate::bucket;

/// Keys of one group.
#[derive(Clone, Debug)]
pub struct Layout {
    group: String,
}

/// An object that belongs to one sequence: a history entry, a snapshot or an instance configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    pub sequence: u64,
    pub key: String,
}

impl Layout {
    /// A group's name becomes part of keys and of file names.
    pub fn new(group: &str) -> Result<Self, BadGroup> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // `keelgate` is the folder of everything but the mirrors.
        let good = !group.is_empty()
            && group.len() <= 128
            && group.chars().all(fits)
            && !group.starts_with('.')
            && group != "keelgate";
        if good { Ok(Self { group: group.to_owned() }) } else { Err(BadGroup(group.to_owned())) }
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    /// In both buckets: what readers other than ours take.
    pub fn mirror(&self) -> &str {
        &self.group
    }

    pub fn manifest(&self) -> String {
        format!("keelgate/{}/manifest.json", self.group)
    }

    pub fn history(&self) -> String {
        format!("keelgate/{}/history", self.group)
    }

    pub fn history_entry(&self, sequence: u64) -> String {
        format!("{}/{sequence}.json", self.history())
    }

    pub fn snapshots(&self) -> String {
        format!("keelgate/{}/snapshots", self.group)
    }

    pub fn snapshot(&self, sequence: u64, sha256: &str) -> String {
        format!("{}/{sequence}-{sha256}.json.zst", self.snapshots())
    }

    pub fn instances(&self) -> String {
        format!("keelgate/{}/instance", self.group)
    }

    pub fn instance(&self, sequence: u64, sha256: &str) -> String {
        format!("{}/{sequence}-{sha256}.json", self.instances())
    }
}

/// It can't be the name of a group.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "`{0}` can't be the name of a gateway group: letters, digits, `-`, `_` and `.` only, and not `keelgate`"
)]
pub struct BadGroup(pub String);

/// The listed objects that carry a sequence, highest first. Others are not ours.
pub fn numbered(entries: Vec<bucket::Entry>) -> Vec<Numbered> {
    let mut found: Vec<Numbered> = entries
        .into_iter()
        .filter_map(|entry| {
            let name = entry.key.rsplit('/').next()?;
            let digits = name.split(['.', '-']).next()?;
            Some(Numbered { sequence: digits.parse().ok()?, key: entry.key })
        })
        .collect();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
    found
}
