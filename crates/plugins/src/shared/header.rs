//! Values of headers, and how they are put on a message.

use http::{HeaderMap, HeaderName, HeaderValue};
use model::byte_text;
use serde_json::{Map, Value};

use super::escape;

/// Whether headers are configured as `{"name": "value"}`, not as `{"add": …, "set": …, "remove": …}`.
pub fn is_short(conf: &Map<String, Value>) -> bool {
    let is_table = |value: &Value| value.is_object() || value.is_array();
    !["add", "set", "remove"].iter().any(|key| conf.get(*key).is_some_and(is_table))
}

/// What every plugin with the short form asks of it.
pub fn check(headers: &Map<String, Value>) -> Result<(), String> {
    for (field, value) in headers {
        if !matches!(value, Value::String(_) | Value::Number(_)) {
            return Err("invalid type as header value".into());
        }
        if field.is_empty() {
            return Err("invalid field length in header".into());
        }
    }
    Ok(())
}

/// The name of a header.
pub fn name(field: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(field.as_bytes()).map_err(|_| "invalid field character in header".to_owned())
}

/// A configured value as Lua writes it: `3.0` is `3`.
pub fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        }),
        _ => Err("invalid type as header value".into()),
    }
}

/// The value of a header, of the bytes that a text stands for. What may not stand in one is percent-encoded, as nginx
/// has it.
pub fn value(text: &str) -> HeaderValue {
    if let Ok(value) = HeaderValue::from_bytes(&byte_text::write(text)) {
        return value;
    }
    let safe = escape::controls(text);
    HeaderValue::from_bytes(&byte_text::write(&safe)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Puts a value in the place of all there are. An empty one removes the header, as nginx has it.
pub fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if value.is_empty() {
        headers.remove(name);
    } else {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_can_be() {
        for (text, sent) in [("a\tb é", "a\tb é"), ("a\r\nb: c", "a%0D%0Ab: c"), ("\0", "%00")] {
            assert_eq!(value(text).as_bytes(), sent.as_bytes(), "{text:?}");
        }
        assert_eq!(value("a\u{10FFFF}\n").as_bytes(), b"a\xff%0A");
        for (json, written) in [("3", "3"), ("3.0", "3"), ("0.5", "0.5"), ("\"x\"", "x")] {
            assert_eq!(text(serde_json::from_str(json).unwrap()).unwrap(), written);
        }
    }

    #[test]
    fn an_empty_value_removes() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-a");
        headers.append(&name, value("1"));
        headers.append(&name, value("2"));
        set(&mut headers, &name, value("3"));
        assert_eq!(headers.get_all(&name).iter().count(), 1);
        set(&mut headers, &name, value(""));
        assert!(headers.is_empty());
    }
}
