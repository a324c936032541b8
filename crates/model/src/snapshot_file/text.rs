//! The id inside a resource's text: read, set and taken out without touching anything else.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::resource::Id;

/// The members that say which resource a text is. Borrowed from the text, so that their place in it is known.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    username: Option<&'a RawValue>,
    /// APISIX's name for the revision of an entry.
    #[serde(borrow, default, rename = "modifiedIndex")]
    pub modified: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads the head and, on the way, makes sure that the text is one JSON object.
    pub fn of(text: &'a str) -> Result<Self, String> {
        if !text.starts_with('{') {
            return Err("it should be an object".to_owned());
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// What APISIX takes for the id: `id`, or else `username`.
    pub fn implied(&self) -> Result<Option<Id>, String> {
        match self.id.or(self.username) {
            Some(raw) => serde_json::from_str(raw.get())
                .map(Some)
                .map_err(|_| "its id should be a text or a whole number".to_owned()),
            None => Ok(None),
        }
    }
}

/// The text without white space between its tokens.
pub(super) fn compact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut kept, mut at, mut quoted) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\n' | b'\r' if !quoted => {
                out.push_str(&text[kept..at]);
                kept = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

/// The compact object `text` with this id, in the place of the one that `head` found, or first.
pub(super) fn with_id(text: &str, head: &Head<'_>, id: &str) -> String {
    let id = serde_json::Value::from(id);
    match head.id {
        Some(old) => {
            let start = offset(text, old);
            format!("{}{id}{}", &text[..start], &text[start + old.get().len()..])
        }
        None if text == "{}" => format!("{{\"id\":{id}}}"),
        None => format!("{{\"id\":{id},{}", &text[1..]),
    }
}

/// The compact object `text` without the member `name`, whose value is `member`.
pub(super) fn without(text: &str, name: &str, member: &RawValue) -> String {
    let start = offset(text, member);
    let end = start + member.get().len();
    let quoted = format!("\"{name}\":");
    // A name written with escapes stays: it is not worth a parser.
    let Some(before) = text[..start].strip_suffix(&quoted) else { return text.to_owned() };
    let after = &text[end..];
    // The comma goes with the member: the one behind it or, behind the last member, the one before.
    match after.strip_prefix(',') {
        Some(after) => format!("{before}{after}"),
        None => format!("{}{after}", before.strip_suffix(',').unwrap_or(before)),
    }
}

/// Where in `text` a value borrowed from it begins.
fn offset(text: &str, value: &RawValue) -> usize {
    value.get().as_ptr().addr() - text.as_ptr().addr()
}
