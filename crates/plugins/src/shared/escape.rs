//! Percent-encoding as nginx does it.

use std::{borrow::Cow, fmt::Write as _};

use model::byte_text;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode, utf8_percent_encode};

/// What nginx encodes in a URI. `%` is among it: a URI in its normal form has no escapes left.
const IN_URI: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path in its normal form, as it may stand in a request.
pub fn path(text: &str) -> Cow<'_, str> {
    match byte_text::write(text) {
        Cow::Borrowed(_) => utf8_percent_encode(text, IN_URI).into(),
        Cow::Owned(bytes) => percent_encode(&bytes, IN_URI).to_string().into(),
    }
}

/// The text with control characters encoded and nothing else: nobody can end a line in it.
pub fn controls(text: &str) -> Cow<'_, str> {
    encoded(text, |char| char.is_ascii_control())
}

/// What is meant to be a URI already, made sure that it is one word.
pub fn uri(text: &str) -> Cow<'_, str> {
    encoded(text, |char| char.is_ascii_control() || char == ' ')
}

fn encoded(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_bad(char) {
            let _ = write!(out, "%{:02X}", char as u32);
        } else {
            out.push(char);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_lines() {
        assert_eq!(path("/a b?c=%25&d=é\r\n"), "/a%20b%3Fc=%2525&d=%C3%A9%0D%0A");
        assert_eq!(path("/\u{10FFFF}é"), "/%FF%C3%A9");
        assert_eq!(path("/plain/~user;v=1:2@3"), "/plain/~user;v=1:2@3");
        assert_eq!(controls("a=1 b\r\n%20é\u{7f}"), "a=1 b%0D%0A%20é%7F");
        assert_eq!(uri("/a?b=1 2\n"), "/a?b=1%202%0A");
    }
}
