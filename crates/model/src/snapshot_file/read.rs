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
    /// Reads an `apisix.json`. Entries without an id get APISIX's: `arr_` and their place in the list.
    pub fn from_json(
        bytes: &[u8],
        store_id: &str,
        revision: u64,
    ) -> Result<(Self, Vec<Rejected>), FileError> {
        let file: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes)?;
        let mut reading = Reading::new(store_id, revision);
        for (kind, list) in lists(&file) {
            match serde_json::from_str::<Vec<&RawValue>>(list.get()) {
                Ok(entries) => {
                    entries.iter().enumerate().for_each(|(at, raw)| reading.entry(kind, at, raw.get()));
                }
                // An empty Lua table is written as an object.
                Err(_) if matches!(&*compact(list.get()), "{}" | "null") => {}
                Err(_) => reading.not_a_list(kind),
            }
        }
        Ok(reading.finish())
    }

    /// Reads an `apisix.yaml`, which must end with `#END`, with its variables filled in by `lookup`.
    pub fn from_yaml(
        text: &str,
        lookup: Lookup<'_>,
        store_id: &str,
        revision: u64,
    ) -> Result<(Self, Vec<Rejected>), FileError> {
        if !text.trim_end().ends_with("#END") {
            return Err(FileError::NoEndMark);
        }
        let file = yaml(&substitute::in_text(text, lookup)?)?;
        let mut reading = Reading::new(store_id, revision);
        for (kind, list) in lists(&file) {
            match list {
                Value::Array(entries) => {
                    entries
                        .iter()
                        .enumerate()
                        .for_each(|(at, entry)| reading.entry(kind, at, &entry.to_string()));
                }
                Value::Object(members) if members.is_empty() => {}
                _ => reading.not_a_list(kind),
            }
        }
        Ok(reading.finish())
    }
}

/// The lists of a file by kind. Everything else in it (`routes_conf_version`, `plugins`) is passed over.
fn lists<'a, M, V: 'a>(file: &'a M) -> impl Iterator<Item = (Kind, &'a V)>
where
    &'a M: IntoIterator<Item = (&'a String, &'a V)>,
{
    let kinds = |name: &str| Kind::from_name(name).filter(|kind| *kind != Kind::Credentials);
    file.into_iter().filter_map(move |(name, list)| Some((kinds(name)?, list)))
}

/// Parses YAML into plain values, as APISIX does. The file is in memory already, so its own size is all the limit it needs; aliases,
/// which could make it grow, keep the parser's limits.
pub fn yaml(text: &str) -> Result<Map<String, Value>, FileError> {
    let limit = 4 * text.len() + 1000;
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_events: limit, max_nodes: limit, max_total_scalar_bytes: limit },
    };
    serde_saphyr::from_str_with_options::<Option<Map<String, Value>>>(text, options)
        .map(|file| {
            let mut file = file.unwrap_or_default();
            file.values_mut().for_each(nothing_is_empty);
            file
        })
        .map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            let reason = error.to_string();
            // The place is told once.
            let reason = reason.trim_end_matches(&format!(" at line {line}, column {column}")).to_owned();
            FileError::Yaml { line, column, reason }
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

/// A snapshot on its way in.
struct Reading {
    snapshot: Snapshot,
    rejected: Vec<Rejected>,
}

impl Reading {
    fn new(store_id: &str, revision: u64) -> Self {
        Self { snapshot: Snapshot::new(store_id, revision), rejected: Vec::new() }
    }

    fn entry(&mut self, kind: Kind, at: usize, text: &str) {
        let place = format!("arr_{}", at + 1);
        match resource(kind, &place, &compact(text)) {
            Ok(resource) => self.snapshot.put(resource),
            Err((id, reason)) => self.rejected.push(Rejected { kind, id: id.unwrap_or(place), reason }),
        }
    }

    fn not_a_list(&mut self, kind: Kind) {
        let reason = format!("`{kind}` should be a list");
        self.rejected.push(Rejected { kind, id: String::new(), reason });
    }

    fn finish(self) -> (Snapshot, Vec<Rejected>) {
        (self.snapshot, self.rejected)
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
