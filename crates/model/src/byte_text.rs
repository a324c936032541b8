//! Bytes as a text, and back, with nothing lost.
//!
//! The rule to know: to nginx a path or a header is bytes, to us it is a text. A byte that is no part of a character in
//! UTF-8 becomes a character that nobody uses (the last 128 of Unicode's last plane), and that byte again where the
//! text leaves us. A character of these that a client sends is taken for such bytes too, so that two inputs never
//! become one text.

use std::borrow::Cow;

/// What stands for byte 0x80; 0xFF is 127 further, the last character of all.
const FIRST: u32 = 0x10_FF80;
/// How all of them begin in UTF-8.
const LEAD: [u8; 2] = [0xF4, 0x8F];

/// The text that stands for these bytes.
pub fn read(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !may_hold(bytes) => Cow::Borrowed(text),
        _ => slowly(bytes).into(),
    }
}

/// The same, in the place of the bytes.
pub fn from_vec(bytes: Vec<u8>) -> String {
    if may_hold(&bytes) {
        return slowly(&bytes);
    }
    String::from_utf8(bytes).unwrap_or_else(|bad| slowly(bad.as_bytes()))
}

/// The bytes that a text stands for.
pub fn write(text: &str) -> Cow<'_, [u8]> {
    if !may_hold(text.as_bytes()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    for char in text.chars() {
        match byte(char) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.into()
}

/// The bytes as a text of as many characters: each that is not ASCII is taken alone.
pub fn widen(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.is_ascii() => Cow::Borrowed(text),
        _ => bytes.iter().map(|&byte| char(byte)).collect(),
    }
}

/// What stands for a byte.
pub fn char(byte: u8) -> char {
    if byte.is_ascii() {
        byte.into()
    } else {
        char::from_u32(FIRST + u32::from(byte) - 0x80).unwrap_or('\u{FFFD}')
    }
}

/// The byte that a character stands for.
pub fn byte(char: char) -> Option<u8> {
    u8::try_from(u32::from(char).checked_sub(FIRST)?).ok().map(|offset| offset + 0x80)
}

fn may_hold(bytes: &[u8]) -> bool {
    bytes.contains(&LEAD[0])
}

fn slowly(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match byte(char) {
                Some(_) => out.extend(char.encode_utf8(&mut [0; 4]).bytes().map(self::char)),
                None => out.push(char),
            }
        }
        out.extend(chunk.invalid().iter().map(|&byte| char(byte)));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_lost(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xF4), Just(0x8F), Just(0xBF)], 0..24)) {
            prop_assert_eq!(write(&read(&bytes)).into_owned(), &*bytes);
            prop_assert_eq!(from_vec(bytes.clone()), read(&bytes));
            prop_assert_eq!(write(&widen(&bytes)).into_owned(), &*bytes);
            prop_assert_eq!(widen(&bytes).chars().count(), bytes.len());
        }

        #[test]
        fn texts_stay_texts(text in "[a-zé你\u{10FF7F}]{0,12}") {
            prop_assert_eq!(read(text.as_bytes()), text.as_str());
            prop_assert_eq!(&*write(&text), text.as_bytes());
        }
    }

    #[test]
    fn two_inputs_are_two_texts() {
        assert_ne!(read(b"\xff"), read("\u{10FFFF}".as_bytes()));
        assert_eq!(read(b"a\xffb"), "a\u{10FFFF}b");
    }
}
