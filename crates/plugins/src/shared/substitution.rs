//! A regular expression and what its matches are replaced by, as `ngx.re.sub` and `ngx.re.gsub` have it.
//!
//! The rule to know: texts are bytes, as they are to nginx.

use model::{
    byte_text,
    pattern::{Groups, Pattern},
};

/// A regular expression and its replacement.
#[derive(Debug)]
pub struct Substitution {
    pattern: Pattern,
    replacement: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A captured group; 0 is the whole match.
    Group(usize),
}

impl Substitution {
    /// For texts of one line, such as paths. The error is the regular expression's, or the replacement's.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, String> {
        Self::with_options(pattern, "", replacement)
    }

    /// For texts of any length, with nginx's options: `jo`, `i`, `s`.
    pub fn with_options(pattern: &str, options: &str, replacement: &str) -> Result<Self, String> {
        let pattern = Pattern::with_flags(pattern, &flags(options)?)?;
        Ok(Self { pattern, replacement: pieces(replacement)? })
    }

    /// The text with its first match replaced, and the groups of that match; none where nothing matches. Texts stand
    /// for bytes as [`byte_text`] has it.
    pub fn first(&self, text: &str) -> Option<(String, Vec<String>)> {
        let bytes = byte_text::write(text);
        let groups = self.pattern.find(&self.pattern.subject(&bytes), 0)?;
        let mut replaced = Vec::with_capacity(bytes.len());
        let whole = groups.first().cloned().flatten()?;
        replaced.extend_from_slice(&bytes[..whole.start]);
        self.expand(&bytes, &groups, &mut replaced);
        replaced.extend_from_slice(&bytes[whole.end..]);
        let captured = groups
            .into_iter()
            .map(|range| range.map_or_else(String::new, |range| byte_text::read(&bytes[range]).into_owned()));
        Some((byte_text::from_vec(replaced), captured.collect()))
    }

    /// The text with its first match replaced, or with all of them; none where nothing matches.
    pub fn replace(&self, text: &[u8], all: bool) -> Option<Vec<u8>> {
        let subject = self.pattern.subject(text);
        let mut replaced = Vec::new();
        let (mut from, mut copied) = (0, 0);
        while let Some(groups) = self.pattern.find(&subject, from) {
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
                Piece::Text(text) => into.extend_from_slice(&byte_text::write(text)),
                Piece::Group(group) => {
                    if let Some(range) = groups.get(*group).cloned().flatten() {
                        into.extend_from_slice(&text[range]);
                    }
                }
            }
        }
    }
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
        None => {
            let options = options.replace('U', "u");
            Ok("aimsux".chars().filter(|flag| options.contains(*flag)).collect())
        }
    }
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
        assert_eq!(backtracking.replace(b"\xff a", true).unwrap(), b"\xff b");
        let (replaced, groups) = linear.first("/\u{10FFFF}a").unwrap();
        assert_eq!((&*replaced, &*groups[0]), ("/\u{10FFFF}b", "a"));
    }
}
