//! Values as Lua sees and prints them, since error texts show it.

use serde_json::Value;

/// Whether a text stands for a secret or an environment variable that is looked up later.
pub(crate) fn is_reference(text: &str) -> bool {
    let is = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    text.starts_with("$secret://") || is("$env://")
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "userdata",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Object(_) => "table",
    }
}

/// Equal to Lua: all numbers are of one kind, and an empty list equals an empty object.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (Value::Array(_), Value::Object(_)) | (Value::Object(_), Value::Array(_)) => {
            is_empty(a) && is_empty(b)
        }
        _ => a == b,
    }
}

/// The places of two equal items of a list.
pub(super) fn first_pair_of_equals(list: &Value) -> Option<(usize, usize)> {
    let items = list.as_array()?;
    // Long lists are lists of texts: sorting finds out quickly that they are unique.
    if items.len() > 16 && items.iter().all(Value::is_string) {
        let mut texts: Vec<_> = items.iter().filter_map(Value::as_str).collect();
        texts.sort_unstable();
        if texts.windows(2).all(|pair| pair[0] != pair[1]) {
            return None;
        }
    }
    let pairs = (1..items.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.into_iter().find(|(a, b)| same(&items[*a], &items[*b]))
}

/// A number as Lua prints it: 14 significant digits, no point where there is nothing behind it.
pub(super) fn number(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 {
        return format!("{n:.0}");
    }
    let digits = format!("{n:.13e}");
    let Some((mantissa, exponent)) = digits.split_once('e') else { return digits };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..14).contains(&exponent) {
        let decimals = usize::try_from(13 - exponent).unwrap_or(0);
        let fixed = format!("{n:.decimals$}");
        return if fixed.contains('.') {
            fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            fixed
        };
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// A text in Lua's quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' | '\n' => out.extend(['\\', char]),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\{}", char as u32)),
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Whether `n` is a multiple, give or take what floating point loses.
pub(super) fn is_multiple(n: f64, of: f64) -> bool {
    if of.fract() == 0.0 {
        return n % of == 0.0;
    }
    let quotient = n / of;
    let rounded = (quotient + 0.5).floor();
    (quotient - rounded).abs() <= 1e-12 * rounded.abs().max(if rounded == 0.0 { 1.0 } else { 0.0 })
}
