//! Regular expressions as APISIX's users write them: PCRE without the flag `u`, for which a text is bytes and a letter
//! is one of ASCII's.
//!
//! The rule to know: an expression without look-around and back references runs in linear time; the others may
//! backtrack, within a limit past which they do not match. Both see bytes: the linear engine as they are, the other,
//! which reads nothing but UTF-8, each byte beyond ASCII as a character of its own ([`byte_text::widen`]).

mod translate;

use std::{borrow::Cow, cell::Cell, ops::Range};

use crate::byte_text;
use translate::{Alphabet, translate};

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Pattern(Engine);

#[derive(Clone, Debug)]
enum Engine {
    Linear {
        regex: regex::bytes::Regex,
        /// Whether it asks for the end of the text, which PCRE also sees before a newline that ends it.
        asks_for_end: bool,
    },
    Backtracking {
        regex: Box<fancy_regex::Regex>,
        /// Whether it reads characters, not bytes.
        chars: bool,
    },
}

/// Where a match and its groups are, in bytes. The first is the whole match.
pub type Groups = Vec<Option<Range<usize>>>;

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        Self::with_flags(pattern, "")
    }

    pub fn ignoring_case(pattern: &str) -> Result<Self, String> {
        Self::with_flags(pattern, "i")
    }

    /// `flags` are any of `imsx`, with PCRE's meanings; with `a` it matches at the beginning of the text only, with
    /// `u` a text is characters, not bytes.
    pub fn with_flags(pattern: &str, flags: &str) -> Result<Self, String> {
        let (lines, chars) = (flags.contains('m'), flags.contains('u'));
        let inline: String = flags.chars().filter(|flag| !matches!(flag, 'a' | 'u')).collect();
        let whole = |text: &str| {
            let anchored = if flags.contains('a') { format!("\\A(?:{text})") } else { text.to_owned() };
            if inline.is_empty() { anchored } else { format!("(?{inline}){anchored}") }
        };
        let bytes = translate(pattern, if chars { Alphabet::Chars } else { Alphabet::Bytes }, lines);
        let linear = regex::bytes::RegexBuilder::new(&whole(&bytes.text)).unicode(chars).build();
        Ok(Self(match linear {
            Ok(regex) => Engine::Linear { regex, asks_for_end: bytes.asks_for_end },
            Err(_) => {
                let wide =
                    translate(pattern, if chars { Alphabet::WideChars } else { Alphabet::Wide }, lines);
                let regex = fancy_regex::Regex::new(&whole(&wide.text)).map_err(|error| error.to_string())?;
                Engine::Backtracking { regex: Box::new(regex), chars }
            }
        }))
    }

    /// Whether it matches anywhere in the text, which stands for bytes as [`byte_text`] has it.
    pub fn is_match(&self, text: &str) -> bool {
        let bytes = byte_text::write(text);
        match &self.0 {
            Engine::Linear { regex, asks_for_end } => {
                regex.is_match(&bytes)
                    || *asks_for_end && shorter(&bytes).is_some_and(|bytes| regex.is_match(bytes))
            }
            Engine::Backtracking { regex, chars: true } => regex.is_match(text).unwrap_or(false),
            Engine::Backtracking { regex, .. } => regex.is_match(&*byte_text::widen(&bytes)).unwrap_or(false),
        }
    }

    /// A text to be looked through for matches.
    pub fn subject<'t>(&self, text: &'t [u8]) -> Subject<'t> {
        let wide = match self.0 {
            Engine::Linear { .. } => None,
            Engine::Backtracking { chars: true, .. } => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            Engine::Backtracking { .. } => Some(byte_text::widen(text)),
        };
        Subject { bytes: text, wide, known: Cell::new((0, 0)) }
    }

    /// The first match from the byte `from` on.
    pub fn find(&self, subject: &Subject<'_>, from: usize) -> Option<Groups> {
        match &self.0 {
            Engine::Linear { regex, asks_for_end } => {
                let found = captures(regex, subject.bytes, from);
                let shorter = shorter(subject.bytes).filter(|text| *asks_for_end && from <= text.len());
                let other = shorter.and_then(|text| captures(regex, text, from));
                match (start(found.as_ref()), start(other.as_ref())) {
                    (Some(start), Some(before)) if before < start => other,
                    (None, Some(_)) => other,
                    _ => found,
                }
            }
            Engine::Backtracking { regex, chars } => {
                let wide = subject.wide.as_deref()?;
                let from = if *chars { from } else { subject.to_wide(from)? };
                let found = regex.captures_from_pos(wide, from).ok()??;
                let range = |group: fancy_regex::Match<'_>| match chars {
                    true => group.range(),
                    false => subject.to_bytes(group.start())..subject.to_bytes(group.end()),
                };
                Some(found.iter().map(|group| group.map(range)).collect())
            }
        }
    }
}

/// A text as its pattern reads it.
pub struct Subject<'t> {
    bytes: &'t [u8],
    wide: Option<Cow<'t, str>>,
    /// The last place that was looked from, in bytes and in the wide text.
    known: Cell<(usize, usize)>,
}

impl Subject<'_> {
    /// None beyond the end.
    fn to_wide(&self, at: usize) -> Option<usize> {
        let known = Some(self.known.get()).filter(|(bytes, _)| *bytes <= at);
        let (bytes, wide) = known.unwrap_or_default();
        let between = self.bytes.get(bytes..at)?;
        let width = |byte: &u8| if byte.is_ascii() { 1 } else { 4 };
        let wide = wide + between.iter().map(width).sum::<usize>();
        self.known.set((at, wide));
        Some(wide)
    }

    fn to_bytes(&self, at: usize) -> usize {
        let known = Some(self.known.get()).filter(|(_, wide)| *wide <= at);
        let (bytes, wide) = known.unwrap_or_default();
        let between = self.wide.as_deref().and_then(|text| text.get(wide..at));
        bytes + between.map_or(0, |text| text.chars().count())
    }
}

/// The text without the newline that ends it.
fn shorter(text: &[u8]) -> Option<&[u8]> {
    text.strip_suffix(b"\n")
}

fn captures(regex: &regex::bytes::Regex, text: &[u8], from: usize) -> Option<Groups> {
    let found = regex.captures_at(text, from)?;
    Some(found.iter().map(|group| group.map(|group| group.range())).collect())
}

fn start(groups: Option<&Groups>) -> Option<usize> {
    groups?.first()?.as_ref().map(|whole| whole.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_pattern_makes_anyone_panic(
            pattern in "(\\PC|[\\[\\]\\\\^:&~QEhHvVx0-]){0,12}",
            text in prop::collection::vec(any::<u8>(), 0..12),
            from in 0..12_usize,
        ) {
            if let Ok(compiled) = Pattern::new(&pattern) {
                compiled.is_match(&byte_text::read(&text));
                let subject = compiled.subject(&text);
                if from <= text.len() && let Some(found) = compiled.find(&subject, from) {
                    prop_assert!(found.iter().flatten().all(|range| range.end <= text.len()));
                }
            }
        }

        /// Both engines see the same text.
        #[test]
        fn the_engines_agree(
            pattern in "(a|é|[.]|\\\\w|\\\\W|\\\\s|\\\\b|\\[a-é\\]|\\[\\^é\\]|\\\\xC3|\\\\h|\\\\V|\\^|\\$){1,5}[*?]?",
            text in "[aé\u{a0} \n\u{212a}k_]{0,6}",
            ignoring_case in any::<bool>(),
        ) {
            let flags = if ignoring_case { "i" } else { "" };
            let Ok(linear) = Pattern::with_flags(&pattern, flags) else { return Ok(()) };
            let Ok(backtracking) = Pattern::with_flags(&format!("(?:{pattern})(?=|x)"), flags) else {
                return Ok(());
            };
            let backtracks = matches!(backtracking.0, Engine::Backtracking { .. });
            prop_assert!(backtracks);
            prop_assert_eq!(linear.is_match(&text), backtracking.is_match(&text));
            let find = |pattern: &Pattern| pattern.find(&pattern.subject(text.as_bytes()), 0);
            prop_assert_eq!(start(find(&linear).as_ref()), start(find(&backtracking).as_ref()));
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
            (r"^a\Q.*[\E+$", "a.*[[", "abc"),
            (r"^[\Q]^\E]+$", "^]", "a"),
            (r"^a\hb\vc$", "a\tb\u{b}c", "a\nb c"),
            (r"^[\h\v]+$", " \t\n", "a"),
            (r"^\H\V$", "ab", "a\n"),
            (r"^[\b\e]$", "\u{8}", "b"),
            (r"^\x41\x{42}\0103$", "AB\u{8}3", "ABC"),
            (r"^a$\W", "a\n", "a"),
            (r"^\101\cA\y$", "A\u{1}y", "A1y"),
            (r"^(a|b)\g{1}1$", "aa1", "ab1"),
            (r"^a\Z", "a\n", "a\n\n"),
            (r"^a\z", "a", "a\n"),
            (r"(?m)^a$", "b\na\nc", "ba"),
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
    fn texts_are_bytes_and_letters_are_ascii() {
        for (pattern, yes, no) in [
            (r"^\d+$", "12", "\u{661}"),
            (r"^\w+$", "a_1", "é"),
            (r"^\s+$", " \t", "\u{a0}"),
            (r"^k$", "K", "\u{212a}"),
            (r"\bfoo\b", "üfooü", "foob"),
            (r"^.{2}$", "é", "ab c"),
            (r"^[^a]{2}$", "é", "a"),
            ("^é+$", "é\u{10FFA9}", "éé"),
            (r"^\xC3\xA9$", "é", "e"),
            (r"^[\x80-\xff]+$", "é", "e"),
            (r"^a$", "a\n", "a\n\n"),
            ("^\u{10FFFF}$", "\u{10FFFF}", "a"),
        ] {
            // A look-ahead makes it the other engine's.
            for pattern in [pattern.to_owned(), format!("(?=|x){pattern}")] {
                if pattern.contains('\u{10FFFF}') {
                    continue;
                }
                let compiled = Pattern::ignoring_case(&pattern).unwrap();
                assert!(compiled.is_match(yes), "{pattern} {yes}");
                assert!(!compiled.is_match(no), "{pattern} {no}");
            }
        }
        for pattern in ["^.é[ü]$", "^.é[ü](?=)$"] {
            assert!(Pattern::with_flags(pattern, "u").unwrap().is_match("üéü"), "{pattern}");
        }
        assert!(Pattern::new(r"^/x/\xff$").unwrap().is_match(&byte_text::read(b"/x/\xff")));
    }

    #[test]
    fn matches_are_found_in_bytes() {
        for pattern in ["(.)b(\\xff)", "(?=)(.)b(\\xff)"] {
            let compiled = Pattern::new(pattern).unwrap();
            let subject = compiled.subject(b"\xc3\xa9b\xff\xc3\xa9b\xff");
            let first = compiled.find(&subject, 0).unwrap();
            assert_eq!(first, [Some(1..4), Some(1..2), Some(3..4)], "{pattern}");
            let second = compiled.find(&subject, 4).unwrap();
            assert_eq!(second, [Some(5..8), Some(5..6), Some(7..8)], "{pattern}");
            assert_eq!(compiled.find(&subject, 8), None);
        }
        let line = Pattern::new("^/(.*)$").unwrap();
        assert_eq!(line.find(&line.subject(b"/a\n"), 0).unwrap(), [Some(0..2), Some(1..2)]);
    }

    #[test]
    fn linear_where_possible() {
        assert!(matches!(Pattern::new("^a+$"), Ok(Pattern(Engine::Linear { .. }))));
        assert!(matches!(Pattern::new("^(?=a)"), Ok(Pattern(Engine::Backtracking { .. }))));
    }
}
