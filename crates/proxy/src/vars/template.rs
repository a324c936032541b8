//! Texts with variables in them.

use std::borrow::Cow;

use super::Var;
use crate::ctx::Ctx;

/// A text with `$var`, `${var}` and `${var ?? default}` in it, understood once. After a backslash a `$` is a `$`,
/// and the backslash stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Var { var: Var, default: Option<Box<str>> },
}

impl Template {
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            plain.push_str(&rest[..dollar]);
            let escaped = plain.ends_with('\\');
            rest = &rest[dollar + 1..];
            match variable(rest).filter(|_| !escaped) {
                None => plain.push('$'),
                Some((part, after)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    }
                    parts.push(part);
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Self { parts: parts.into() }
    }

    /// Whether it is the same for every request.
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text for this request; variables without a value are left out.
    pub fn render<'a>(&'a self, ctx: &'a Ctx) -> Cow<'a, str> {
        match &*self.parts {
            [] => Cow::Borrowed(""),
            [Part::Text(text)] => Cow::Borrowed(text),
            [Part::Var { var, default }] => {
                var.read(ctx).or(default.as_deref().map(Cow::Borrowed)).unwrap_or_default()
            }
            _ => {
                let mut out = String::with_capacity(64);
                self.render_with(ctx, &mut out, |out, value| out.push_str(value.unwrap_or_default()));
                out.into()
            }
        }
    }

    /// The text for this request and how many of its variables have a value.
    pub fn render_counted<'a>(&'a self, ctx: &'a Ctx) -> (Cow<'a, str>, usize) {
        let mut out = String::new();
        let mut found = 0;
        self.render_with(ctx, &mut out, |out, value| {
            found += usize::from(value.is_some());
            out.push_str(value.unwrap_or_default());
        });
        (out.into(), found)
    }

    /// Appends the text for this request to `out`; `put` writes each variable, none where it has no value: for
    /// escaping, and for what stands in the place of nothing.
    pub fn render_with(&self, ctx: &Ctx, out: &mut String, mut put: impl FnMut(&mut String, Option<&str>)) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Var { var, default } => put(out, var.read(ctx).as_deref().or(default.as_deref())),
            }
        }
    }
}

/// The variable at the beginning of `text`, which follows a `$`, and what comes after it.
fn variable(text: &str) -> Option<(Part, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let end = inner.find('}')?;
        let (name, default) = match inner[..end].split_once("??") {
            Some((name, default)) => (name, Some(default.trim())),
            None => (&inner[..end], None),
        };
        let name = name.trim();
        return (!name.is_empty()).then(|| (part(name, default), &inner[end + 1..]));
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    (end > 0).then(|| (part(&text[..end], None), &text[end..]))
}

fn part(name: &str, default: Option<&str>) -> Part {
    Part::Var { var: Var::parse(name), default: default.map(Into::into) }
}
