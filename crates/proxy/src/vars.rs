//! Variables and templates.

use std::borrow::Cow;

use crate::ctx::Ctx;

/// A variable, its name resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    Uri,
}

impl Var {
    /// By its name in APISIX or nginx, without `$`.
    pub fn parse(_name: &str) -> Self {
        Self::Uri
    }

    /// Its value for this request; none where it has none.
    pub fn read<'a>(&self, ctx: &'a Ctx) -> Option<Cow<'a, str>> {
        Some(ctx.request.path().into())
    }
}

/// A text with `$var` and `${var}` in it, read once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Var(Var),
}

impl Template {
    pub fn new(text: &str) -> Self {
        Self { parts: Box::new([Part::Text(text.into())]) }
    }

    /// The text for this request; variables without a value are left out.
    pub fn render<'a>(&'a self, ctx: &'a Ctx) -> Cow<'a, str> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Var(var) => out.push_str(&var.read(ctx).unwrap_or_default()),
            }
        }
        out.into()
    }
}
