//! Writing `apisix.json`: one line for each resource, lists in the order of kinds, entries in the order of ids, so
//! that the same snapshot always gives the same bytes and two files are compared line by line.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use super::{
    Rejected,
    text::{Head, compact, with_id},
};
use crate::{
    kind::Kind,
    snapshot::{Resource, Snapshot},
};

impl Snapshot {
    /// Writes the snapshot as an `apisix.json`, needing memory for one resource at a time. What is not a JSON object
    /// is left out and returned.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        let mut lists = 0;
        out.write_all(b"{")?;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Credentials) {
            let credentials = (kind == Kind::Consumers).then(|| self.of(Kind::Credentials));
            let mut entries = 0;
            for resource in self.of(kind).chain(credentials.into_iter().flatten()) {
                let entry = match entry(resource) {
                    Ok(entry) => entry,
                    Err(reason) => {
                        rejected.push(Rejected {
                            kind: resource.key.kind,
                            id: resource.key.id.to_string(),
                            reason,
                        });
                        continue;
                    }
                };
                if entries > 0 {
                    out.write_all(b",\n")?;
                } else {
                    let comma = if lists > 0 { "," } else { "" };
                    write!(out, "{comma}\n\"{}\":[\n", kind.name())?;
                    lists += 1;
                }
                out.write_all(entry.as_bytes())?;
                entries += 1;
            }
            if entries > 0 {
                out.write_all(b"\n]")?;
            }
        }
        out.write_all(if lists > 0 { b"\n}\n" } else { b"}\n" })?;
        Ok(rejected)
    }

    /// The snapshot as an `apisix.json`. What is not a JSON object is left out.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len() * 256);
        // Writing to memory does not fail, and there is nobody here to tell what was left out.
        let _ = self.write_json(&mut bytes);
        bytes
    }
}

/// A resource's text with the id by which APISIX finds it.
fn entry(resource: &Resource) -> Result<Cow<'_, str>, String> {
    let text = compact(&resource.value);
    let head = Head::of(&text)?;
    let id = &*resource.key.id;
    if head.implied().is_ok_and(|implied| implied.as_deref() == Some(id)) {
        return Ok(text);
    }
    Ok(Cow::Owned(with_id(&text, &head, id)))
}
