//! Snapshots as files: `apisix.json`, which we write and read, and `apisix.yaml`, which people write.
//!
//! The rule to know: the file is what Apache APISIX reads in standalone mode, one list for each kind, every entry
//! with its id. So a credential is an entry of `consumers` with the id `jack/credentials/c1`; reading undoes that,
//! and what the store keeps comes back letter for letter.

mod read;
mod text;
mod write;

use serde::Serialize;

use crate::{kind::Kind, substitute};

pub use read::{Reading, in_words, yaml};

/// An entry that could not be read or written. It costs no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    pub kind: Kind,
    /// Empty where the whole list is at fault.
    pub id: String,
    pub reason: String,
}

/// Nothing of the file can be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not valid YAML: {reason} (line {line} column {column})")]
    Yaml { line: u64, column: u64, reason: String },
    /// A YAML file must end with `#END`, so that one half written is not taken for a whole one.
    #[error("the end mark `#END` is missing: the file may not be written to its end yet")]
    NoEndMark,
    #[error("{0} (line {line})", line = .0.line)]
    Unset(#[from] substitute::Unset),
}

#[cfg(test)]
mod tests;
