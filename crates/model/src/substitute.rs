//! `${{VAR}}` and `${{VAR:=default}}` in files people write.
//!
//! The rule to know: in YAML the raw text is substituted before it is parsed, so that quotes decide whether a value
//! is a text; in values parsed already, and in `config.yaml`, one that becomes a number or a boolean turns into one.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// Where the values of variables come from.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable is not set and has no default.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't find environment variable {name}")]
pub struct Unset {
    pub name: String,
    /// Counted from 1 in the text that was searched.
    pub line: usize,
}

/// Substitutes every variable in `text`. What is put in is not searched again.
pub fn in_text<'a>(text: &'a str, lookup: Lookup<'_>) -> Result<Cow<'a, str>, Unset> {
    let (text, unset) = replace(text, lookup, false);
    unset.into_iter().next().map_or(Ok(text), Err)
}

/// The same for `config.yaml`, with what could not be replaced and stays: it does no harm in a comment. In quotes too a
/// value becomes a number or a boolean, as in APISIX, which substitutes there once it is parsed.
pub fn in_settings<'a>(text: &'a str, lookup: Lookup<'_>) -> (Cow<'a, str>, Vec<Unset>) {
    replace(text, lookup, true)
}

fn replace<'a>(text: &'a str, lookup: Lookup<'_>, unquotes: bool) -> (Cow<'a, str>, Vec<Unset>) {
    let mut out = String::new();
    let mut unset = Vec::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(start) = text[from..].find("${{").map(|at| from + at) {
        let Some(variable) = variable(&text[start + 3..]) else {
            from = start + 1;
            continue;
        };
        let Some(value) = lookup(variable.name).or_else(|| variable.default.map(str::to_owned)) else {
            let line = 1 + text[..start].matches('\n').count();
            unset.push(Unset { name: variable.name.to_owned(), line });
            from = start + 3 + variable.len;
            continue;
        };
        let end = start + 3 + variable.len;
        let quoted = |quote: char| text[..start].ends_with(quote) && text[end..].starts_with(quote);
        let bare = unquotes && (quoted('"') || quoted('\'')) && !infer(value.clone()).is_string();
        let quote = usize::from(bare);
        out.push_str(&text[copied..start - quote]);
        out.push_str(&value);
        copied = end + quote;
        from = copied;
    }
    if copied == 0 {
        return (Cow::Borrowed(text), unset);
    }
    out.push_str(&text[copied..]);
    (Cow::Owned(out), unset)
}

struct Variable<'a> {
    name: &'a str,
    default: Option<&'a str>,
    /// Up to and including `}}`.
    len: usize,
}

fn variable(text: &str) -> Option<Variable<'_>> {
    let end = text.find("}}")?;
    let inner = text[..end].trim();
    if !inner.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') {
        return None;
    }
    let (name, default) = match inner.split_once(":=") {
        Some((name, default)) => (name, Some(default.trim())),
        None => (inner, None),
    };
    Some(Variable { name, default, len: end + 2 })
}

/// Substitutes every variable in the texts and member names of `value`.
pub fn in_value(value: &mut Value, lookup: Lookup<'_>) -> Result<(), Unset> {
    match value {
        Value::String(text) => {
            if let Cow::Owned(new) = in_text(text, lookup)? {
                *value = infer(new);
            }
        }
        Value::Array(items) => {
            for item in items {
                in_value(item, lookup)?;
            }
        }
        Value::Object(members) => {
            for member in members.values_mut() {
                in_value(member, lookup)?;
            }
            if members.keys().any(|name| name.contains("${{")) {
                for (name, member) in std::mem::take(members) {
                    members.insert(in_text(&name, lookup)?.into_owned(), member);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Substitutes every variable in a JSON text. One without any comes back untouched.
pub fn in_json<'a>(bytes: &'a [u8], lookup: Lookup<'_>) -> Result<Cow<'a, [u8]>, InJson> {
    if !bytes.windows(3).any(|window| window == b"${{") {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut value: Value = serde_json::from_slice(bytes)?;
    in_value(&mut value, lookup)?;
    Ok(Cow::Owned(value.to_string().into_bytes()))
}

/// Why [`in_json`] failed.
#[derive(Debug, thiserror::Error)]
pub enum InJson {
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    #[error(transparent)]
    Unset(#[from] Unset),
}

fn infer(text: String) -> Value {
    match text.trim() {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    let number = text.trim();
    let parsed = match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(Number::from),
        None => number
            .parse::<i64>()
            .map(Number::from)
            .ok()
            .or_else(|| number.parse::<u64>().map(Number::from).ok())
            .or_else(|| number.parse::<f64>().ok().and_then(Number::from_f64)),
    };
    parsed.map_or(Value::String(text), Value::Number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("a.com".into()),
            "PORT" => Some("8080".into()),
            "EMPTY" => Some(String::new()),
            "ON" => Some("true".into()),
            "TRICK" => Some("${{HOST}}".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_in_a_text_are_replaced_once() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${{HOST}}:${{ PORT }}", "a.com:8080"),
            ("${{NONE:= b.com }}", "b.com"),
            ("${{HOST:=b.com}}", "a.com"),
            ("${{EMPTY:=x}}|${{NONE:=}}", "|"),
            ("${{TRICK}}", "${{HOST}}"),
            ("${HOST} $HOST ${{}} ${{-}} ${{HOST", "${HOST} $HOST ${{}} ${{-}} ${{HOST"),
            ("${{NONE:=a:=b}}", "a:=b"),
        ] {
            assert_eq!(in_text(text, &lookup).unwrap(), expected, "{text}");
        }
        let unset = in_text("a\nb ${{NONE}}", &lookup).unwrap_err();
        assert_eq!(unset.to_string(), "can't find environment variable NONE");
    }

    #[test]
    fn in_settings_quotes_make_no_text_of_a_number() {
        for (text, expected) in [
            (r#"a: "${{PORT}}""#, "a: 8080"),
            ("a: '${{PORT}}'", "a: 8080"),
            (r#"a: "${{ON}}", b: "x${{PORT}}""#, r#"a: true, b: "x8080""#),
            (r#"a: "${{HOST}}""#, r#"a: "a.com""#),
            ("${{NONE}} ${{PORT}}", "${{NONE}} 8080"),
        ] {
            assert_eq!(in_settings(text, &lookup).0, expected, "{text}");
        }
        let (_, unset) = in_settings("# ${{NONE}}\na: ${{OTHER}}", &lookup);
        assert_eq!(
            unset.iter().map(|unset| (&*unset.name, unset.line)).collect::<Vec<_>>(),
            [("NONE", 1), ("OTHER", 2)]
        );
    }

    #[test]
    fn a_value_that_becomes_a_number_or_boolean_turns_into_one() {
        let mut value =
            json!({"${{HOST}}": ["${{PORT}}", "${{ON}}", "8080", "x${{PORT}}", {"a": "${{NONE:=1.5}}"}]});
        in_value(&mut value, &lookup).unwrap();
        assert_eq!(value, json!({"a.com": [8080, true, "8080", "x8080", {"a": 1.5}]}));
        assert_eq!(&*in_json(br#"{"a":"${{PORT}}"}"#, &lookup).unwrap(), br#"{"a":8080}"#);
        assert!(matches!(in_json(b"[1 ]", &lookup), Ok(Cow::Borrowed(b"[1 ]"))));
        assert!(matches!(in_json(br#"["${{NONE}}"]"#, &lookup), Err(InJson::Unset(_))));
    }

    proptest! {
        #[test]
        fn no_text_makes_anyone_panic(text in "(\\$|\\{|\\}|:=|HOST|\\PC){0,16}") {
            let _ = in_text(&text, &lookup);
            let _ = in_settings(&text, &lookup);
        }
    }
}
