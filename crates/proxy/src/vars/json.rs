//! JSON in request bodies, read as leniently as lua-cjson reads it.
//!
//! The rule to know: what APISIX reads must have a value here too, or a body could be written so that rules on it do
//! not see it. What lua-cjson refuses, such as half of a surrogate pair, is no JSON here either.

use model::byte_text;
use serde_json::{Map, Number, Value};

/// Lua-cjson's `decode_max_depth`.
const DEEPEST: usize = 1000;

/// The document; none where lua-cjson reads none. Texts stand for bytes as [`byte_text`] has it; a number too big for 64 bits
/// is the biggest there is; `NaN` is null.
pub fn read(text: &[u8]) -> Option<Value> {
    // Nearly every document is one in the narrow sense.
    serde_json::from_slice(text).ok().or_else(|| {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_space();
        match *self.rest.first()? {
            b'{' if depth < DEEPEST => self.object(depth + 1),
            b'[' if depth < DEEPEST => self.array(depth + 1),
            b'{' | b'[' => None,
            b'"' => self.string().map(Value::String),
            _ if self.eat(b"true") => Some(Value::Bool(true)),
            _ if self.eat(b"false") => Some(Value::Bool(false)),
            _ if self.eat(b"null") => Some(Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        self.take(1);
        self.skip_space();
        if self.eat(b"}") {
            return Some(Value::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.rest.starts_with(b"\"").then(|| self.string())??;
            self.skip_space();
            if !self.eat(b":") {
                return None;
            }
            members.insert(name, self.value(depth)?);
            self.skip_space();
            if self.eat(b"}") {
                return Some(Value::Object(members));
            }
            if !self.eat(b",") {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        self.take(1);
        self.skip_space();
        if self.eat(b"]") {
            return Some(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if self.eat(b"]") {
                return Some(Value::Array(items));
            }
            if !self.eat(b",") {
                return None;
            }
        }
    }

    /// From its first quote to its last.
    fn string(&mut self) -> Option<String> {
        let mut out = Vec::new();
        self.take(1);
        loop {
            let plain = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0))?;
            out.extend_from_slice(self.take(plain));
            match self.take(1) {
                b"\"" => break,
                b"\\" => self.escape(&mut out)?,
                _ => return None,
            }
        }
        Some(byte_text::from_vec(out))
    }

    /// What follows a backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let byte = match *self.rest.first()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let first = self.unit()?;
                // The second half of a pair must follow the first, and nothing else may be one.
                let second = if (0xD800..0xDC00).contains(&first) {
                    self.eat(b"\\").then(|| self.unit())??.into()
                } else {
                    None
                };
                let char = char::decode_utf16([first].into_iter().chain(second)).next()?.ok()?;
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        self.take(1);
        out.push(byte);
        Some(())
    }

    /// `uXXXX`.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.rest.strip_prefix(b"u")?.get(..4)?;
        let hex = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
        let unit = u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
        self.take(5);
        Some(unit)
    }

    /// What C's `strtod` reads: exponents of any size, hexadecimal digits, infinity. Lua-cjson takes no point in the
    /// first place.
    fn number(&mut self) -> Option<Value> {
        if self.rest.starts_with(b".") {
            return None;
        }
        let signed = self.eat(b"-");
        if !signed {
            self.eat(b"+");
        }
        let amount = if self.eat_word("infinity") || self.eat_word("inf") {
            f64::INFINITY
        } else if self.eat_word("nan") {
            return Some(Value::Null);
        } else {
            let hex = self.rest.get(2).is_some_and(u8::is_ascii_hexdigit) && self.eat_word("0x");
            let digits = if hex { self.take_while(u8::is_ascii_hexdigit) } else { self.decimal() };
            let digits = std::str::from_utf8(digits).ok()?;
            if let Ok(whole) = i64::from_str_radix(digits, if hex { 16 } else { 10 }) {
                return Some(Value::from(if signed { -whole } else { whole }));
            }
            match digits.parse() {
                Ok(amount) if !hex => amount,
                // More than 64 bits of them.
                _ if hex => f64::INFINITY,
                _ => return None,
            }
        };
        let amount = amount.min(f64::MAX);
        Number::from_f64(if signed { -amount } else { amount }).map(Value::Number)
    }

    /// Digits, a point, an exponent: as much as makes a number.
    fn decimal(&mut self) -> &'a [u8] {
        let all = self.rest;
        self.take_while(|byte| byte.is_ascii_digit() || *byte == b'.');
        let exponent = match self.rest {
            [b'e' | b'E', b'+' | b'-', digit, ..] if digit.is_ascii_digit() => 2,
            [b'e' | b'E', digit, ..] if digit.is_ascii_digit() => 1,
            _ => 0,
        };
        if exponent > 0 {
            self.take(exponent);
            self.take_while(u8::is_ascii_digit);
        }
        &all[..all.len() - self.rest.len()]
    }

    fn skip_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn take_while(&mut self, fits: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !fits(byte)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// The next bytes; there must be as many.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, text: &[u8]) -> bool {
        let is_next = self.rest.starts_with(text);
        if is_next {
            self.take(text.len());
        }
        is_next
    }

    /// The same whatever the case.
    fn eat_word(&mut self, word: &str) -> bool {
        let next = self.rest.get(..word.len());
        let is_next = next.is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        if is_next {
            self.take(word.len());
        }
        is_next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lua_cjson_reads_is_read() {
        for (text, value) in [
            (&b"{\"a\":\"\xff\",\"b\":1}"[..], json!({"a": "\u{10ffff}", "b": 1})),
            (b"[1e999,-1E+999, 1]", json!([f64::MAX, f64::MIN, 1])),
            (b"[0x1F, -0X10, 007, 1., -.5, +2, 1.5]", json!([31, -16, 7, 1.0, -0.5, 2, 1.5])),
            (b"[Infinity, -inf, NaN]", json!([f64::MAX, f64::MIN, null])),
            (b"{\"a\":\"line\nbreak\",\"a\":[ ],\"\":{}, \"b\":+0}", json!({"a": [], "": {}, "b": 0})),
            (
                br#"["\ud83d\ude00\u00e9\/", "\b\f\n\r\t\"\\", 1e999]"#,
                json!(["\u{1f600}é/", "\u{8}\u{c}\n\r\t\"\\", f64::MAX]),
            ),
        ] {
            assert_eq!(read(text), Some(value), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_lua_cjson_refuses_is_refused() {
        for text in [
            "",
            "{",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{1:2}",
            "{\"a\":1,}",
            "tru",
            "[1] 2",
            "1e",
            "-",
            "\"",
            "\"\\x\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\ud83d\\u0041\"",
            "\u{feff}{}",
            "\"a\0b\"",
            "[1e999",
            "1.2.3",
            "0x",
            ".5",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded_as_lua_cjson_bounds_it() {
        let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(read(deep(1000).as_bytes()).is_some());
        assert!(read(deep(1001).as_bytes()).is_none());
        assert!(read("[".repeat(1 << 20).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_json_reads_the_same(text in "[\\[\\]{}:,\"a\\\\u0-9dDeE.+ -]{0,24}") {
            let mut reader = Reader { rest: text.as_bytes() };
            let lenient = reader.value(0);
            reader.skip_space();
            if let Ok(strict) = serde_json::from_str::<Value>(&text) {
                prop_assert!(reader.rest.is_empty());
                let as_floats = |value: &Value| value.to_string().parse::<f64>().ok();
                match &strict {
                    Value::Number(_) => prop_assert_eq!(lenient.as_ref().and_then(as_floats), as_floats(&strict)),
                    Value::String(_) | Value::Bool(_) | Value::Null => prop_assert_eq!(lenient, Some(strict)),
                    _ => prop_assert!(lenient.is_some()),
                }
            }
        }

        #[test]
        fn nothing_makes_anyone_panic(text in prop::collection::vec(any::<u8>(), 0..32)) {
            read(&text);
        }
    }
}
