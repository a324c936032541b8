//! Numbers as Lua and JSON Schema have them: one kind, and `1.0`, `1e0` and `1` are the same one.
//!
//! The rule to know: whatever is read from outside passes [`settle`] before it is read as a type. Nobody behind it
//! meets a whole number that is written as a float.

use serde_json::{Number, Value};

/// Writes whole numbers as such: `1.0` as 1, `1e3` as 1000, `-0` as 0. What no 64 bits can hold stays as it is.
pub fn settle(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(members) => members.values_mut().for_each(settle),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The whole number that a float is.
fn whole(number: &Number) -> Option<Number> {
    /// 2⁶³ and 2⁶⁴: the first that do not fit.
    const SIGNED: f64 = 9_223_372_036_854_775_808.0;
    const UNSIGNED: f64 = 2.0 * SIGNED;
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    if (0.0..UNSIGNED).contains(&float) {
        Some((float as u64).into())
    } else if (-SIGNED..0.0).contains(&float) {
        Some((float as i64).into())
    } else {
        None
    }
}

/// Whether a JSON text may have a number for [`settle`] to settle: one with a point, an exponent, or `-0`.
pub fn has_floats(json: &str) -> bool {
    let (mut in_string, mut escaped, mut before) = (false, false, b' ');
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'.' | b'e' | b'E' if before.is_ascii_digit() => return true,
            b'0' if before == b'-' => return true,
            _ => {}
        }
        before = byte;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        for (written, settled) in [
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("-2.0E2", "-200"),
            ("9007199254740992.0", "9007199254740992"),
            ("1.8e19", "18000000000000000000"),
            ("[{\"a\":[2.0,\"3.0\"]}]", "[{\"a\":[2,\"3.0\"]}]"),
            ("1.5", "1.5"),
            ("1e300", "1e+300"),
            ("-1e19", "-1e+19"),
            ("18446744073709551616", "1.8446744073709552e+19"),
        ] {
            let mut value: Value = serde_json::from_str(written).unwrap();
            settle(&mut value);
            assert_eq!(value.to_string(), settled, "{written}");
        }
    }

    #[test]
    fn floats_are_seen_outside_of_texts_only() {
        for (json, has) in [
            (r#"{"host": "1.0", "e": "\"1.0", "n": 10, "m": -10, "t": true, "f": false}"#, false),
            (r#"{"a\\": 1.0}"#, true),
            ("[1E3]", true),
            ("[-0]", true),
            ("", false),
        ] {
            assert_eq!(has_floats(json), has, "{json}");
        }
    }
}
