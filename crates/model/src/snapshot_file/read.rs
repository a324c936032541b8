//! Reading `apisix.json` and `apisix.yaml`.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, value::RawValue};

use super::{
    FileError, Rejected,
    text::{Head, compact, with_id, without},
};
use crate::{
    kind::{Key, Kind},
    snapshot::{Resource, Snapshot},
    substitute::{self, Lookup},
};

impl Snapshot {
    /// Reads an `apisix.json`; see [`Reading::json`].
    pub fn from_json(
        bytes: &[u8],
        store_id: &str,
        revision: u64,
    ) -> Result<(Self, Vec<Rejected>), FileError> {
        let reading = Reading::json(bytes, store_id, revision)?;
        Ok((reading.snapshot, reading.rejected))
    }

    /// Reads an `apisix.yaml`; see [`Reading::yaml`].
    pub fn from_yaml(
        text: &str,
        lookup: Lookup<'_>,
        store_id: &str,
        revision: u64,
    ) -> Result<(Self, Vec<Rejected>), FileError> {
        let reading = Reading::yaml(text, lookup, store_id, revision)?;
        Ok((reading.snapshot, reading.rejected))
    }
}

/// The kind whose list has this name in a file: credentials stand among the consumers.
fn list_of(name: &str) -> Option<Kind> {
    Kind::from_name(name).filter(|kind| *kind != Kind::Credentials)
}

/// What a file may have besides its lists: `plugins`, `routes_conf_version`.
fn is_passed_over(name: &str) -> bool {
    let counted = name.strip_suffix("_conf_version").unwrap_or(name);
    counted == "plugins" || counted != name && list_of(counted).is_some()
}

/// Parses YAML into plain values, as APISIX does. The file is in memory already, so its own size is all the limit it needs; aliases,
/// which could make it grow, keep the parser's limits.
pub fn yaml(text: &str) -> Result<Map<String, Value>, FileError> {
    let mut file = parsed(text)?;
    file.values_mut().for_each(nothing_is_empty);
    Ok(file)
}

fn parsed(text: &str) -> Result<Map<String, Value>, FileError> {
    let limit = 4 * text.len() + 1000;
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_events: limit, max_nodes: limit, max_total_scalar_bytes: limit },
    };
    serde_saphyr::from_str_with_options::<Option<Map<String, Value>>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            FileError::Yaml { line, column, reason: in_words(&error) }
        })
}

/// A key without a value, as in `key-auth:`, has an empty table in APISIX.
pub(super) fn nothing_is_empty(value: &mut Value) {
    match value {
        Value::Null => *value = Value::Object(Map::new()),
        Value::Array(items) => items.iter_mut().for_each(nothing_is_empty),
        Value::Object(members) => members.values_mut().for_each(nothing_is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a parser of YAML found wrong, in words for whoever wrote it, without the place.
pub fn in_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::WithSnippet { error, .. } => in_words(error),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        Error::DuplicateMappingKey { .. } => "a key is there twice".to_owned(),
        Error::MultipleDocuments { .. } => "there is more than one document: remove the `---`".to_owned(),
        Error::Unexpected { expected, .. } if expected.contains("mapping") => {
            "keys with values are expected here, such as `key: value`".to_owned()
        }
        Error::Unexpected { expected, .. } if expected.contains("sequence") => {
            "a list is expected here, such as `[a, b]`".to_owned()
        }
        _ => {
            let told = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let first = told.lines().next().unwrap_or_default().trim().trim_start_matches("error: ");
            // The place is told once.
            let place = error
                .location()
                .map_or(String::new(), |at| format!(" at line {}, column {}", at.line(), at.column()));
            first.trim_end_matches(&place).to_owned()
        }
    }
}

/// A file as it was read.
#[derive(Debug)]
pub struct Reading {
    pub snapshot: Snapshot,
    /// Entries that are no resources, and lists that are none: those have no id.
    pub rejected: Vec<Rejected>,
    /// Keys that nothing is known of: `rotes`.
    pub unknown: Vec<String>,
}

impl Reading {
    fn new(store_id: &str, revision: u64) -> Self {
        Self { snapshot: Snapshot::new(store_id, revision), rejected: Vec::new(), unknown: Vec::new() }
    }

    /// Reads an `apisix.json`. Entries without an id get APISIX's: `arr_` and their place in the list. Of two with the
    /// same id the last counts, and the other is told.
    pub fn json(bytes: &[u8], store_id: &str, revision: u64) -> Result<Self, FileError> {
        let file: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes)?;
        let mut reading = Self::new(store_id, revision);
        for (name, list) in &file {
            let Some(kind) = reading.list(name) else { continue };
            match serde_json::from_str::<Vec<&RawValue>>(list.get()) {
                Ok(entries) => {
                    entries.iter().enumerate().for_each(|(at, raw)| reading.entry(kind, at, raw.get()));
                }
                // An empty Lua table is written as an object.
                Err(_) if matches!(&*compact(list.get()), "{}" | "null") => {}
                Err(_) => reading.not_a_list(kind),
            }
        }
        Ok(reading)
    }

    /// Reads an `apisix.yaml`, which must end with `#END`, with its variables filled in by `lookup`; otherwise as
    /// [`Self::json`]. A list without any entry, as it remains where all are commented out or a dash is missing, is none.
    pub fn yaml(text: &str, lookup: Lookup<'_>, store_id: &str, revision: u64) -> Result<Self, FileError> {
        if !text.trim_end().ends_with("#END") {
            return Err(FileError::NoEndMark);
        }
        let file = parsed(&substitute::in_text(text, lookup)?)?;
        let mut reading = Self::new(store_id, revision);
        for (name, list) in file {
            let Some(kind) = reading.list(&name) else { continue };
            match list {
                Value::Array(entries) => {
                    for (at, mut entry) in entries.into_iter().enumerate() {
                        // The file that comes with APISIX's image has one entry, which is empty.
                        if !entry.is_null() {
                            nothing_is_empty(&mut entry);
                            reading.entry(kind, at, &entry.to_string());
                        }
                    }
                }
                Value::Object(members) if members.is_empty() => {}
                _ => reading.not_a_list(kind),
            }
        }
        Ok(reading)
    }

    /// The kinds whose list could not be read as one.
    pub fn unlisted(&self) -> impl Iterator<Item = Kind> {
        self.rejected.iter().filter(|rejected| rejected.id.is_empty()).map(|rejected| rejected.kind)
    }

    fn list(&mut self, name: &str) -> Option<Kind> {
        let kind = list_of(name);
        if kind.is_none() && !is_passed_over(name) {
            self.unknown.push(name.to_owned());
        }
        kind
    }

    fn entry(&mut self, kind: Kind, at: usize, text: &str) {
        let place = format!("arr_{}", at + 1);
        match resource(kind, &place, &compact(text)) {
            Ok(resource) => {
                if self.snapshot.get(&resource.key).is_some() {
                    let reason = "it is there more than once: only the last counts".to_owned();
                    self.rejected.push(Rejected { kind, id: resource.key.id.to_string(), reason });
                }
                self.snapshot.put(resource);
            }
            Err((id, reason)) => self.rejected.push(Rejected { kind, id: id.unwrap_or(place), reason }),
        }
    }

    fn not_a_list(&mut self, kind: Kind) {
        let reason = format!("`{kind}` should be a list: what there was before stays (for none, write `[]`)");
        self.rejected.push(Rejected { kind, id: String::new(), reason });
    }
}

/// Makes a resource of an entry, or says of which id why not.
fn resource(kind: Kind, place: &str, text: &str) -> Result<Resource, (Option<String>, String)> {
    let head = Head::of(text).map_err(|reason| (None, reason))?;
    if let Some(raw) = head.modified {
        let modified = serde_json::from_str(raw.get()).unwrap_or(0);
        let resource = resource(kind, place, &without(text, "modifiedIndex", raw))?;
        return Ok(Resource { modified, ..resource });
    }
    let implied = head.implied().map_err(|reason| (None, reason))?;
    let id = implied.as_deref().unwrap_or(place);
    let key: Key = format!("{}/{id}", kind.folder())
        .parse()
        .map_err(|_| (Some(id.to_owned()), format!("`{id}` cannot be the id of a {}", kind.singular())))?;
    let value = match key.kind {
        Kind::PluginMetadata if implied.is_none() => {
            return Err((None, "the id is missing: it is the name of the plugin".to_owned()));
        }
        Kind::Credentials => {
            let last = key.id.rsplit('/').next().unwrap_or_default();
            Cow::Owned(with_id(text, &head, last))
        }
        _ if implied.is_none() => Cow::Owned(with_id(text, &head, id)),
        _ => Cow::Borrowed(text),
    };
    Ok(Resource { value: value.into(), key, created: 0, modified: 0 })
}
