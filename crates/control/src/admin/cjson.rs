//! What lua-cjson says of a text that is no JSON: APISIX's clients compare its words.
//!
//! The rule to know: it is asked only after a parser has refused the text, and may have nothing to say.

/// How deep lua-cjson follows a text.
const MAX_DEPTH: usize = 1000;

/// `Expected colon but found T_NUMBER at character 6`.
pub fn complaint(text: &[u8]) -> Option<String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    reader.document().err()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text,
    Number,
    Boolean,
    Null,
    Colon,
    Comma,
    End,
    Bad(&'static str),
}

impl Token {
    const fn name(self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text => "T_STRING",
            Self::Number => "T_NUMBER",
            Self::Boolean => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Bad(what) => what,
        }
    }
}

type Verdict = Result<(), String>;

impl Reader<'_> {
    fn document(&mut self) -> Verdict {
        let first = self.next();
        self.value(first)?;
        self.expect("the end", &[Token::End]).map(drop)
    }

    fn value(&mut self, (token, at): (Token, usize)) -> Verdict {
        match token {
            Token::Text | Token::Number | Token::Boolean | Token::Null => Ok(()),
            Token::ObjectBegin | Token::ArrayBegin => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    let (depth, at) = (self.depth, self.at);
                    return Err(format!("Found too many nested data structures ({depth}) at character {at}"));
                }
                let inside = if token == Token::ObjectBegin { self.object() } else { self.array() };
                self.depth -= 1;
                inside
            }
            _ => Err(expected("value", token, at)),
        }
    }

    fn object(&mut self) -> Verdict {
        let mut next = self.next();
        if next.0 == Token::ObjectEnd {
            return Ok(());
        }
        loop {
            if next.0 != Token::Text {
                return Err(expected("object key string", next.0, next.1));
            }
            self.expect("colon", &[Token::Colon])?;
            let value = self.next();
            self.value(value)?;
            if self.expect("comma or object end", &[Token::ObjectEnd, Token::Comma])? == Token::ObjectEnd {
                return Ok(());
            }
            next = self.next();
        }
    }

    fn array(&mut self) -> Verdict {
        let mut next = self.next();
        if next.0 == Token::ArrayEnd {
            return Ok(());
        }
        loop {
            self.value(next)?;
            if self.expect("comma or array end", &[Token::ArrayEnd, Token::Comma])? == Token::ArrayEnd {
                return Ok(());
            }
            next = self.next();
        }
    }

    fn expect(&mut self, what: &str, wanted: &[Token]) -> Result<Token, String> {
        let (token, at) = self.next();
        if wanted.contains(&token) { Ok(token) } else { Err(expected(what, token, at)) }
    }

    /// The next token and where it is.
    fn next(&mut self) -> (Token, usize) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        let at = self.at;
        let Some(byte) = self.text.get(at) else { return (Token::End, at) };
        let (token, length) = match byte {
            b'{' => (Token::ObjectBegin, 1),
            b'}' => (Token::ObjectEnd, 1),
            b'[' => (Token::ArrayBegin, 1),
            b']' => (Token::ArrayEnd, 1),
            b':' => (Token::Colon, 1),
            b',' => (Token::Comma, 1),
            b'"' => return self.text_token(),
            b'-' | b'0'..=b'9' => return self.number(),
            _ => match [("true", Token::Boolean), ("false", Token::Boolean), ("null", Token::Null)]
                .into_iter()
                .find(|(word, _)| self.text[at..].starts_with(word.as_bytes()))
            {
                Some((word, token)) => (token, word.len()),
                None => (Token::Bad("invalid token"), 0),
            },
        };
        self.at += length;
        (token, at)
    }

    fn number(&mut self) -> (Token, usize) {
        let at = self.at;
        let rest = &self.text[at..];
        let length = rest.iter().take_while(|byte| b"+-.0123456789eE".contains(byte)).count();
        self.at += length;
        let digits = rest[..length].iter().any(u8::is_ascii_digit);
        (if digits { Token::Number } else { Token::Bad("invalid number") }, at)
    }

    /// An error is told where it is, a text where it begins.
    fn text_token(&mut self) -> (Token, usize) {
        let begin = self.at;
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let length = match rest {
                [] => return (Token::Bad("unexpected end of string"), self.at),
                [b'"', ..] => {
                    self.at += 1;
                    return (Token::Text, begin);
                }
                [b'\\', b'u', digits @ ..] => {
                    if digits.len() < 4 || !digits[..4].iter().all(u8::is_ascii_hexdigit) {
                        return (Token::Bad("invalid unicode escape code"), self.at);
                    }
                    6
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                [b'\\', ..] => return (Token::Bad("invalid escape code"), self.at),
                _ => 1,
            };
            self.at += length;
        }
    }
}

fn expected(what: &str, found: Token, at: usize) -> String {
    format!("Expected {what} but found {} at character {}", found.name(), at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_its_words() {
        for (text, said) in [
            ("{abcd", "Expected object key string but found invalid token at character 2"),
            ("", "Expected value but found T_END at character 1"),
            ("nul", "Expected value but found invalid token at character 1"),
            ("[1,]", "Expected value but found T_ARR_END at character 4"),
            ("[1 2]", "Expected comma or array end but found T_NUMBER at character 4"),
            (r#"{"a" 1}"#, "Expected colon but found T_NUMBER at character 6"),
            (r#"{"a":1"#, "Expected comma or object end but found T_END at character 7"),
            (r#"{"a":1,}"#, "Expected object key string but found T_OBJ_END at character 8"),
            (r#"{} {}"#, "Expected the end but found T_OBJ_BEGIN at character 4"),
            (r#"["ab"#, "Expected value but found unexpected end of string at character 5"),
            (r#"["\x"]"#, "Expected value but found invalid escape code at character 3"),
            (r#"["\u12g4"]"#, "Expected value but found invalid unicode escape code at character 3"),
            ("[-]", "Expected value but found invalid number at character 2"),
        ] {
            assert_eq!(complaint(text.as_bytes()).as_deref(), Some(said), "{text}");
        }
        let deep = "[".repeat(1001);
        let said = "Found too many nested data structures (1001) at character 1001";
        assert_eq!(complaint(deep.as_bytes()).as_deref(), Some(said));
        assert_eq!(complaint(br#"{"a":[1,-2.5e3,"x\u00e9\n",true,null,{}]}"#), None);
    }
}
