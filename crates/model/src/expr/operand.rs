//! What a variable is for one request.
//!
//! The rule to know: nearly all variables are texts. What comes out of a JSON body keeps its type, and compares as
//! Lua compares that type.

use std::borrow::Cow;

use serde_json::Value;

/// The value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'v> {
    Text(Cow<'v, str>),
    /// A number, a flag, a list, a table; a text too, which is the same as [`Operand::Text`].
    Json(Cow<'v, Value>),
}

impl<'v> Operand<'v> {
    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(json) => json.as_str(),
        }
    }

    pub fn json(&self) -> Option<&Value> {
        match self {
            Self::Text(_) => None,
            Self::Json(json) => Some(json),
        }
    }

    /// The text, or a number as one.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(json) => super::text(json),
        }
    }

    /// The number, or what Lua reads of a text as one.
    pub fn number(&self) -> Option<f64> {
        match self.json() {
            Some(Value::Number(n)) => n.as_f64(),
            _ => number(self.as_str()?),
        }
    }

    /// What is put into a text for it: lists and tables as JSON.
    pub fn into_text(self) -> Cow<'v, str> {
        match self {
            Self::Text(text) => text,
            Self::Json(Cow::Borrowed(Value::String(text))) => Cow::Borrowed(text),
            Self::Json(json) => json.as_str().map_or_else(|| json.to_string(), str::to_owned).into(),
        }
    }

    /// Lua's `==`: of the same type and equal, and no list or table.
    pub(super) fn is(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.as_str() == Some(text),
            Value::Number(n) => match self.json() {
                Some(Value::Number(own)) => own.as_f64() == n.as_f64(),
                _ => false,
            },
            Value::Null | Value::Bool(_) => self.json() == Some(value),
            Value::Array(_) | Value::Object(_) => false,
        }
    }
}

impl<'v> From<Cow<'v, str>> for Operand<'v> {
    fn from(text: Cow<'v, str>) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v str> for Operand<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'v> From<&'v Value> for Operand<'v> {
    fn from(json: &'v Value) -> Self {
        Self::Json(Cow::Borrowed(json))
    }
}

impl From<Value> for Operand<'_> {
    fn from(json: Value) -> Self {
        Self::Json(Cow::Owned(json))
    }
}

/// A number as Lua reads it from a text.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        #[expect(clippy::cast_precision_loss, reason = "Lua has no other numbers")]
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok().map(|n| sign * n as f64),
        Some(_) => None,
        None => text.parse().ok(),
    }
}
