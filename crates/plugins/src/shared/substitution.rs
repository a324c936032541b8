//! A regular expression and what its matches are replaced by, as `ngx.re.sub` and `ngx.re.gsub` have it.
//!
//! The rule to know: texts are bytes, as they are to nginx. An expression without look-around and back references
//! reads any bytes in linear time; one that has them reads UTF-8 and may backtrack, within a limit past which it does
//! not match.

use std::{borrow::Cow, ops::Range};

use model::pattern::translate;

/// A regular expression and its replacement.
#[derive(Debug)]
pub struct Substitution {
    regex: Regex,
    replacement: Vec<Piece>,
}

#[derive(Debug)]
enum Regex {
    Linear(regex::bytes::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A captured group; 0 is the whole match.
    Group(usize),
}

/// Where a match and its groups are. The first is the whole match.
type Groups = Vec<Option<Range<usize>>>;

impl Substitution {
    /// For texts of one line, such as paths. The error is the regular expression's, or the replacement's.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, String> {
        Self::compile(&translate(pattern), replacement)
    }

    /// For texts of any length, with nginx's options: `jo`, `i`, `s`.
    pub fn with_options(pattern: &str, options: &str, replacement: &str) -> Result<Self, String> {
        let flags = flags(options)?;
        let mut pattern = translate(pattern);
        if !flags.contains('m') {
            pattern = before_last_newline(&pattern);
        }
        if options.contains('a') {
            pattern = format!("\\A(?:{pattern})");
        }
        if !flags.is_empty() {
            pattern = format!("(?{flags}){pattern}");
        }
        Self::compile(&pattern, replacement)
    }

    fn compile(pattern: &str, replacement: &str) -> Result<Self, String> {
        let regex = match regex::bytes::Regex::new(pattern) {
            Ok(regex) => Regex::Linear(regex),
            Err(_) => {
                let regex = fancy_regex::Regex::new(pattern).map_err(|error| error.to_string())?;
                Regex::Backtracking(Box::new(regex))
            }
        };
        Ok(Self { regex, replacement: pieces(replacement)? })
    }

    /// The text with its first match replaced, and the groups of that match; none where nothing matches.
    pub fn first(&self, text: &str) -> Option<(String, Vec<String>)> {
        let groups = self.regex.find(text.as_bytes(), 0)?;
        let mut replaced = Vec::with_capacity(text.len());
        let whole = groups.first().cloned().flatten()?;
        replaced.extend_from_slice(&text.as_bytes()[..whole.start]);
        self.expand(text.as_bytes(), &groups, &mut replaced);
        replaced.extend_from_slice(&text.as_bytes()[whole.end..]);
        let group = |range: &Option<Range<usize>>| {
            range.clone().map_or_else(String::new, |range| lossy(&text.as_bytes()[range]).into_owned())
        };
        Some((lossy(&replaced).into_owned(), groups.iter().map(group).collect()))
    }

    /// The text with its first match replaced, or with all of them; none where nothing matches.
    pub fn replace(&self, text: &[u8], all: bool) -> Option<Vec<u8>> {
        let mut replaced = Vec::new();
        let (mut from, mut copied) = (0, 0);
        while let Some(groups) = self.regex.find(text, from) {
            let Some(whole) = groups.first().cloned().flatten() else { break };
            replaced.reserve(text.len() - copied);
            replaced.extend_from_slice(&text[copied..whole.start]);
            self.expand(text, &groups, &mut replaced);
            copied = whole.end;
            // A match of nothing is not found again.
            from = if whole.is_empty() { after_char(text, whole.end) } else { whole.end };
            if !all || from > text.len() {
                break;
            }
        }
        if from == 0 {
            return None;
        }
        replaced.extend_from_slice(&text[copied..]);
        Some(replaced)
    }

    fn expand(&self, text: &[u8], groups: &Groups, into: &mut Vec<u8>) {
        for piece in &self.replacement {
            match piece {
                Piece::Text(text) => into.extend_from_slice(text.as_bytes()),
                Piece::Group(group) => {
                    if let Some(range) = groups.get(*group).cloned().flatten() {
                        into.extend_from_slice(&text[range]);
                    }
                }
            }
        }
    }
}

impl Regex {
    fn find(&self, text: &[u8], from: usize) -> Option<Groups> {
        match self {
            Self::Linear(regex) => {
                let found = regex.captures_at(text, from)?;
                Some(found.iter().map(|group| group.map(|group| group.range())).collect())
            }
            Self::Backtracking(regex) => {
                let text = std::str::from_utf8(text).ok()?;
                let found = regex.captures_from_pos(text, from).ok()??;
                Some(found.iter().map(|group| group.map(|group| group.range())).collect())
            }
        }
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Where the character at `at` ends.
fn after_char(text: &[u8], at: usize) -> usize {
    let rest = text.get(at + 1..).unwrap_or_default();
    at + 1 + rest.iter().take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count()
}

/// Those of nginx's options that change what matches. The others say how it is compiled.
fn flags(options: &str) -> Result<String, String> {
    match options.chars().find(|option| !"adDijJmosuUx".contains(*option)) {
        Some(unknown) => Err(format!("unknown flag \"{unknown}\" (flags \"{options}\")")),
        None => Ok("imsx".chars().filter(|flag| options.contains(*flag)).collect()),
    }
}

/// PCRE's `$` also matches before a newline that ends the text.
fn before_last_newline(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let (mut escaped, mut in_class) = (false, false);
    for char in pattern.chars() {
        match char {
            '$' if !escaped && !in_class => {
                out.push_str("(?=\\n?\\z)");
                continue;
            }
            '[' if !escaped => in_class = true,
            ']' if !escaped => in_class = false,
            _ => {}
        }
        escaped = char == '\\' && !escaped;
        out.push(char);
    }
    out
}

/// Splits `$1`, `${1}` and `$$` from text.
fn pieces(replacement: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (group, after) = group(after)
            .ok_or_else(|| format!("invalid capturing variable name found in \"{replacement}\""))?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Group(group));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// The number of a group behind its `$`, and what comes after it.
fn group(text: &str) -> Option<(usize, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (number, after) = braced.split_once('}')?;
        return Some((number.parse().ok()?, after));
    }
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_makes_anyone_panic(
            pattern in "(\\PC|[$.*()?|é]){0,8}",
            replacement in "([$0-9{}é]|\\PC){0,6}",
            text in prop::collection::vec(any::<u8>(), 0..12),
            options in "[imsxajo]{0,3}",
        ) {
            if let Ok(substitution) = Substitution::with_options(&pattern, &options, &replacement) {
                substitution.replace(&text, true);
                substitution.replace(&text, false);
                substitution.first(&String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn what_a_match_is_replaced_by_itself_is_the_same(text in "[aé$\n]{0,12}", all in any::<bool>()) {
            for pattern in ["a", "é*", "a(?=é)", "", "a$"] {
                let substitution = Substitution::with_options(pattern, "", "$0").unwrap();
                let replaced = substitution.replace(text.as_bytes(), all);
                prop_assert!(replaced.is_none_or(|replaced| replaced == text.as_bytes()), "{pattern}");
            }
        }
    }

    #[test]
    fn the_first_match_is_replaced_with_its_groups() {
        let substitution = Substitution::new("^/iresty/(.*)/(x)?(.*)", "/$1-${3}0$$x").unwrap();
        let (replaced, groups) = substitution.first("/iresty/a/b").unwrap();
        assert_eq!(replaced, "/a-b0$x");
        assert_eq!(groups, ["/iresty/a/b", "a", "", "b"]);
        assert_eq!(substitution.first("/other"), None);
        let once = |pattern| Substitution::new(pattern, "b").unwrap().first("xaxa").map(|found| found.0);
        assert_eq!(once("a").as_deref(), Some("xbxa"));
        assert_eq!(once("a(?!x)").as_deref(), Some("xaxb"));
    }

    #[test]
    fn what_can_not_be_compiled_is_refused() {
        assert!(Substitution::new("(", "").is_err());
        for replacement in ["/$`1", "$", "${1", "${a}", "$a"] {
            let error = Substitution::new("a", replacement).unwrap_err();
            assert!(error.starts_with("invalid capturing variable name found in"), "{error}");
        }
        let error = Substitution::with_options("a", "jh", "").unwrap_err();
        assert_eq!(error, "unknown flag \"h\" (flags \"jh\")");
    }

    #[test]
    fn options_are_those_of_nginx() {
        let replace = |pattern: &str, options: &str, all: bool, text: &str| {
            let substitution = Substitution::with_options(pattern, options, "*").unwrap();
            substitution.replace(text.as_bytes(), all).map(|replaced| String::from_utf8(replaced).unwrap())
        };
        for (pattern, options, all, text, replaced) in [
            ("l", "jo", false, "hello", Some("he*lo")),
            ("l", "jo", true, "hello", Some("he**o")),
            ("L", "jo", true, "hello", None),
            ("L", "i", true, "hello", Some("he**o")),
            ("a.b", "", false, "a\nb", None),
            ("a.b", "s", false, "a\nb", Some("*")),
            ("^b", "m", false, "a\nb", Some("a\n*")),
            (" b # b", "x", false, "ab", Some("a*")),
            ("b", "a", false, "ab", None),
            (r"\w\S+$", "jo", false, "hello world\n", Some("hello *\n")),
            (r"[$]\$", "jo", false, "a$$", Some("a*")),
            ("x*", "", true, "aé", Some("*a*é*")),
            ("hello", "jo", true, "hello", Some("*")),
        ] {
            assert_eq!(replace(pattern, options, all, text).as_deref(), replaced, "{pattern} {options}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_passed_by() {
        let linear = Substitution::with_options("a", "", "b").unwrap();
        assert_eq!(linear.replace(b"\xff a \xfe", true).unwrap(), b"\xff b \xfe");
        let backtracking = Substitution::with_options("a(?! )", "", "b").unwrap();
        assert_eq!(backtracking.replace(b"\xff a", true), None);
    }
}
