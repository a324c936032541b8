//! `regex_uri` and its kind: a regular expression and what it is replaced by, as ngx.re.sub has it.

use fancy_regex::{Captures, Regex};

/// A regular expression and its replacement.
#[derive(Debug)]
pub struct Substitution {
    regex: Regex,
    replacement: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A captured group; 0 is the whole match.
    Group(usize),
}

impl Substitution {
    /// Compiles both; the error is the regular expression's.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, String> {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        Ok(Self { regex, replacement: pieces(replacement) })
    }

    /// The text with its first match replaced; none where nothing matches.
    pub fn apply(&self, text: &str) -> Option<String> {
        // A pattern that backtracks too long does not match.
        let found = self.regex.captures(text).ok()??;
        let whole = found.get(0)?;
        let mut replaced = String::with_capacity(text.len());
        replaced.push_str(&text[..whole.start()]);
        self.expand(&found, &mut replaced);
        replaced.push_str(&text[whole.end()..]);
        Some(replaced)
    }

    fn expand(&self, found: &Captures<'_, str>, into: &mut String) {
        for piece in &self.replacement {
            match piece {
                Piece::Text(text) => into.push_str(text),
                Piece::Group(group) => into.push_str(found.get(*group).map_or("", |group| group.as_str())),
            }
        }
    }
}

/// Splits `$1`, `${1}` and `$$` from text.
fn pieces(replacement: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (group, length) = if let Some(braced) = after.strip_prefix('{') {
            let digits = braced.split('}').next().unwrap_or_default();
            (digits.parse().ok(), digits.len() + 2)
        } else if after.starts_with('$') {
            text.push('$');
            rest = &after[1..];
            continue;
        } else {
            let length = after.bytes().take_while(u8::is_ascii_digit).count();
            (after[..length].parse().ok(), length)
        };
        match group.filter(|_| length <= after.len()) {
            Some(group) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Group(group));
                rest = &after[length..];
            }
            None => {
                text.push('$');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_is_replaced_with_its_groups() {
        let substitution = Substitution::new("^/iresty/(.*)/(.*)", "/$1-${2}0$$x$").unwrap();
        assert_eq!(substitution.apply("/iresty/a/b").as_deref(), Some("/a-b0$x$"));
        assert_eq!(substitution.apply("/other"), None);
        let twice = Substitution::new("a", "b").unwrap();
        assert_eq!(twice.apply("xaxa").as_deref(), Some("xbxa"));
        assert!(Substitution::new("(", "").is_err());
        assert_eq!(pieces("${1"), [Piece::Text("${1".into())]);
    }
}
