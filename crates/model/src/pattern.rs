//! Regular expressions as APISIX's users write them: PCRE.
//!
//! The rule to know: an expression without look-around and back references runs in linear time; the others may
//! backtrack, within a limit past which they do not match.

use std::fmt::Write;

/// A compiled expression.
#[derive(Clone, Debug)]
pub enum Pattern {
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        Self::compile(&translate(pattern))
    }

    pub fn ignoring_case(pattern: &str) -> Result<Self, String> {
        Self::compile(&format!("(?i){}", translate(pattern)))
    }

    fn compile(pattern: &str) -> Result<Self, String> {
        if let Ok(regex) = regex::Regex::new(pattern) {
            return Ok(Self::Linear(regex));
        }
        match fancy_regex::Regex::new(pattern) {
            Ok(regex) => Ok(Self::Backtracking(Box::new(regex))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether it matches anywhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Linear(regex) => regex.is_match(text),
            Self::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }
}

/// Where in a pattern a character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// Right behind `[`.
    First,
    /// Right behind `[^`.
    Negated,
    Inside,
}

/// What PCRE reads otherwise than our engines: inside `[…]` an opening bracket, `&&`, `--` and `~~` are plain
/// characters, and so is a closing bracket in the first place; `\%` and the like are the character itself.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut place = Place::Outside;
    while let Some(char) = chars.next() {
        let next = match (char, place) {
            (_, Place::Outside) => Place::Outside,
            ('^', Place::First) => Place::Negated,
            _ => Place::Inside,
        };
        match (char, place) {
            ('\\', _) => escape(&mut out, chars.next()),
            ('[', Place::Outside) => out.push('['),
            (']', Place::Inside) => out.push(']'),
            ('[', _) if chars.peek() == Some(&':') => {
                out.push('[');
                copy_named_class(&mut out, &mut chars);
            }
            ('[' | ']' | '&' | '~', Place::First | Place::Negated | Place::Inside) => {
                out.extend(['\\', char]);
            }
            ('-', Place::First | Place::Negated | Place::Inside) if chars.peek() == Some(&'-') => {
                out.push_str("\\-");
            }
            _ => out.push(char),
        }
        place = match (char, place) {
            ('[', Place::Outside) => Place::First,
            (']', Place::Inside) => Place::Outside,
            _ => next,
        };
    }
    out
}

fn escape(out: &mut String, escaped: Option<char>) {
    match escaped {
        Some(char) if char.is_alphanumeric() || regex_syntax_knows(char) => out.extend(['\\', char]),
        Some(char) if char.is_ascii() => {
            let _ = write!(out, "\\x{:02X}", char as u32);
        }
        Some(char) => out.push(char),
        None => out.push('\\'),
    }
}

/// Punctuation that may stand behind a backslash in every engine.
fn regex_syntax_knows(char: char) -> bool {
    "\\.+*?()|[]{}^$#&-~/".contains(char)
}

/// `[:alpha:]` and its like, from the colon on.
fn copy_named_class(out: &mut String, chars: &mut impl Iterator<Item = char>) {
    for char in chars {
        out.push(char);
        if char == ']' {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_pattern_makes_anyone_panic(pattern in "(\\PC|[\\[\\]\\\\^:&~-]){0,12}", text in "\\PC{0,8}") {
            let _ = Pattern::new(&pattern).map(|compiled| compiled.is_match(&text));
        }

        #[test]
        fn what_both_read_alike_stays_as_it_is(pattern in "[a-z0-9.*+?|()]{0,12}") {
            prop_assert_eq!(translate(&pattern), pattern);
        }
    }

    #[test]
    fn pcre_reads_as_pcre() {
        for (pattern, yes, no) in [
            (r"^[a-zA-Z0-9-_.]+$", "a-b_.", "a b"),
            (r"^\*$|^\*?[0-9a-zA-Z-._\[\]:]+$", "*.a.com", "a/b"),
            (r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?", "http://[::1]:80", "a"),
            (r"[[]", "[", "]"),
            (r"^[]a]+$", "]a", "b"),
            (r"^[^]a]+$", "b", "]"),
            (r"^[^^]$", "b", "^"),
            (r"^[[:alpha:]&&x]+$", "ab&", "1"),
            (r"^[a~~b--c]+$", "~-", "d"),
            (r"^(?!admin)\w+$", "user", "admin1"),
            (r"^(a|b)\1$", "aa", "ab"),
            (r"\-\/\%\@", "-/%@", "x"),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert!(compiled.is_match(yes), "{pattern} {yes}");
            assert!(!compiled.is_match(no), "{pattern} {no}");
        }
        assert!(Pattern::ignoring_case("^ABC$").unwrap().is_match("abc"));
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new("\\").is_err());
    }

    #[test]
    fn linear_where_possible() {
        assert!(matches!(Pattern::new("^a+$"), Ok(Pattern::Linear(_))));
        assert!(matches!(Pattern::new("^(?=a)"), Ok(Pattern::Backtracking(_))));
    }
}
