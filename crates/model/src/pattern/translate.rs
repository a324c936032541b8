//! PCRE's language in our engines' words.
//!
//! What PCRE reads otherwise: inside `[…]` an opening bracket, `&&`, `--` and `~~` are plain characters, and so is a
//! closing bracket in the first place; `\%` and the like are the character itself; a character beyond ASCII is its
//! bytes; `$` is also before a newline that ends the text; and there are `\h`, `\v`, `\R`, `\N`, `\Q…\E`, `\e`, `\0`,
//! `\101`, `\cA`, `\g{1}`.

use std::{fmt::Write as _, iter::Peekable, str::Chars};

use crate::byte_text;

/// What a text is, and for which engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Bytes, for the linear engine.
    Bytes,
    /// Bytes, each beyond ASCII as a character of its own, for the other: see [`byte_text::widen`].
    Wide,
    /// Characters, for the linear engine.
    Chars,
    /// Characters, for the other.
    WideChars,
}

pub(super) struct Translated {
    pub text: String,
    /// Whether `$` became the end of the text alone, so that a text with a newline at its end is to be asked without
    /// it too.
    pub asks_for_end: bool,
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

/// `lines`: whether `$` is at the end of every line.
pub(super) fn translate(pattern: &str, alphabet: Alphabet, lines: bool) -> Translated {
    let mut work = Work {
        out: String::with_capacity(pattern.len() + 8),
        chars: pattern.chars().peekable(),
        place: Place::Outside,
        alphabet,
        lines: lines || asks_for_lines(pattern),
        ends: false,
        last_ends: false,
    };
    work.run();
    Translated { text: work.out, asks_for_end: work.ends && !work.last_ends }
}

/// Whether the flag `m` is switched on somewhere within.
fn asks_for_lines(pattern: &str) -> bool {
    pattern.split("(?").skip(1).any(|after| {
        let flags = after.bytes().take_while(u8::is_ascii_lowercase);
        flags.clone().any(|flag| flag == b'm')
            && matches!(after.as_bytes().get(flags.count()), Some(b')' | b':' | b'-'))
    })
}

struct Work<'p> {
    out: String,
    chars: Peekable<Chars<'p>>,
    place: Place,
    alphabet: Alphabet,
    lines: bool,
    /// Whether there is a `$` or `\Z`, and whether there is a `\z`.
    ends: bool,
    last_ends: bool,
}

impl Work<'_> {
    fn run(&mut self) {
        while let Some(char) = self.chars.next() {
            let place = self.place;
            let next = match (char, place) {
                ('[', Place::Outside) => Place::First,
                (_, Place::Outside) | (']', Place::Inside) => Place::Outside,
                ('^', Place::First) => Place::Negated,
                _ => Place::Inside,
            };
            let following = self.chars.peek().copied();
            self.char(char, following);
            self.place = next;
        }
    }

    fn char(&mut self, char: char, following: Option<char>) {
        match (char, self.place) {
            ('\\', _) => self.escape(),
            ('$', Place::Outside) if !self.lines => self.end(),
            ('[', Place::Outside) => self.out.push('['),
            (']', Place::Inside) => self.out.push(']'),
            ('[', Place::First | Place::Negated | Place::Inside) if following == Some(':') => {
                self.out.push('[');
                self.named_class();
            }
            ('[' | ']' | '&' | '~', Place::First | Place::Negated | Place::Inside) => {
                self.out.extend(['\\', char]);
            }
            ('-', Place::First | Place::Negated | Place::Inside) if following == Some('-') => {
                self.out.push_str("\\-");
            }
            _ if char.is_ascii() => self.out.push(char),
            _ => self.literal(char),
        }
    }

    /// The end of the text, and before a newline there. Where more follows, which could take that newline, only a
    /// look-ahead says so, and only one of the engines has it.
    fn end(&mut self) {
        self.ends = true;
        let is_last = matches!(self.chars.peek(), None | Some(')' | '|'));
        self.out.push_str(match self.alphabet {
            Alphabet::Bytes | Alphabet::Chars if is_last => "\\z",
            _ => "(?=\\n?\\z)",
        });
    }

    fn escape(&mut self) {
        let in_class = self.place != Place::Outside;
        let Some(char) = self.chars.next() else { return self.out.push('\\') };
        match char {
            'Q' => self.quoted(),
            'E' => {}
            'h' => self.class(in_class, false, &[(b'\t', b'\t'), (b' ', b' '), (0xA0, 0xA0)]),
            'H' => self.class(in_class, true, &[(b'\t', b'\t'), (b' ', b' '), (0xA0, 0xA0)]),
            'v' => self.class(in_class, false, &[(b'\n', b'\r'), (0x85, 0x85)]),
            'V' => self.class(in_class, true, &[(b'\n', b'\r'), (0x85, 0x85)]),
            'N' if !in_class => self.out.push_str("[^\\n]"),
            'R' if !in_class => {
                self.out.push_str("(?:\\r\\n|");
                self.class(false, false, &[(b'\n', b'\r'), (0x85, 0x85)]);
                self.out.push(')');
            }
            'b' if in_class => self.byte(8),
            'e' => self.byte(0x1B),
            'x' => self.hexadecimal(),
            '0' => {
                let byte = self.digits(8, 2).0;
                self.byte(byte);
            }
            '1'..='7' if self.octal_follows() => {
                let (rest, first) = (self.digits(8, 2).0, char.to_digit(8).unwrap_or(0));
                self.byte(u8::try_from(first * 64).unwrap_or(0) | rest);
            }
            'c' => {
                let control =
                    self.chars.next_if(char::is_ascii).map_or(0, |char| char.to_ascii_uppercase() as u8);
                self.byte(control ^ 0x40);
            }
            'g' if !in_class && self.chars.peek() == Some(&'{') => self.group(),
            'Z' if !in_class => self.end(),
            'z' => {
                self.last_ends = true;
                self.out.push_str("\\z");
            }
            // Letters without a meaning are letters.
            'F' | 'I' | 'J' | 'M' | 'T' | 'Y' | 'i' | 'j' | 'm' | 'q' | 'y' => self.out.push(char),
            _ if char.is_ascii_alphanumeric() || is_known_to_all(char) => self.out.extend(['\\', char]),
            _ => self.literal(char),
        }
    }

    /// A character that stands for itself, by its bytes.
    fn literal(&mut self, char: char) {
        if !char.is_ascii() && matches!(self.alphabet, Alphabet::Chars | Alphabet::WideChars) {
            return self.out.push(char);
        }
        match byte_text::byte(char) {
            Some(byte) => self.byte(byte),
            None => char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| self.byte(byte)),
        }
    }

    fn byte(&mut self, byte: u8) {
        let _ = match self.alphabet {
            Alphabet::Wide => write!(self.out, "\\x{{{:X}}}", u32::from(byte_text::char(byte))),
            _ => write!(self.out, "\\x{byte:02X}"),
        };
    }

    /// Up to `\E` nothing has a meaning.
    fn quoted(&mut self) {
        while let Some(char) = self.chars.next() {
            match char {
                '\\' if self.chars.peek() == Some(&'E') => {
                    self.chars.next();
                    return;
                }
                _ => self.literal(char),
            }
        }
    }

    /// Bytes of these ranges, or all others: a class of its own, or a part of the one it stands in.
    fn class(&mut self, in_class: bool, others: bool, ranges: &[(u8, u8)]) {
        if !in_class {
            self.out.push('[');
        }
        let mut from = 0;
        for &(first, last) in ranges {
            if others {
                self.range(from, first - 1);
                from = last + 1;
            } else {
                self.range(first, last);
            }
        }
        if others {
            self.range(from, u8::MAX);
        }
        if !in_class {
            self.out.push(']');
        }
    }

    fn range(&mut self, first: u8, last: u8) {
        self.byte(first);
        self.out.push('-');
        self.byte(last);
    }

    /// `\xH`, `\xHH`, `\x{H…}`.
    fn hexadecimal(&mut self) {
        if self.chars.peek() != Some(&'{') {
            let byte = self.digits(16, 2).0;
            return self.byte(byte);
        }
        self.chars.next();
        let (byte, fits) = self.digits(16, usize::MAX);
        if fits && self.chars.next_if_eq(&'}').is_some() {
            self.byte(byte);
        } else {
            // No engine takes this.
            self.out.push_str("\\x{}");
        }
    }

    /// Whether two more digits make an octal number, which is no group's.
    fn octal_follows(&self) -> bool {
        let mut next = self.chars.clone();
        next.by_ref().take(2).filter(|char| char.is_digit(8)).count() == 2
    }

    /// `\g{1}`, which is `\1`. What is no number stays as it is.
    fn group(&mut self) {
        let inner: String = self.chars.clone().skip(1).take_while(|char| *char != '}').collect();
        if inner.is_empty() || !inner.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.out.push_str("\\g");
        }
        self.out.extend(["(?:\\", &inner, ")"]);
        self.chars.nth(inner.len() + 1);
    }

    /// The number that the next digits make, and whether it is a byte.
    fn digits(&mut self, radix: u32, most: usize) -> (u8, bool) {
        let mut number = 0_u32;
        for _ in 0..most {
            let Some(digit) = self.chars.peek().and_then(|char| char.to_digit(radix)) else { break };
            number = number.saturating_mul(radix).saturating_add(digit);
            self.chars.next();
        }
        u8::try_from(number).map_or((0, false), |byte| (byte, true))
    }

    /// `[:alpha:]` and its like, from the colon on.
    fn named_class(&mut self) {
        for char in self.chars.by_ref() {
            self.out.push(char);
            if char == ']' {
                return;
            }
        }
    }
}

/// Punctuation that may stand behind a backslash in every engine.
fn is_known_to_all(char: char) -> bool {
    "\\.+*?()|[]{}^$#&-~/".contains(char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_all_read_alike_stays_as_it_is(pattern in "[a-z0-9.*+?|()]{0,12}") {
            for alphabet in [Alphabet::Bytes, Alphabet::Wide] {
                prop_assert_eq!(&*translate(&pattern, alphabet, false).text, &*pattern);
            }
        }
    }

    #[test]
    fn lines_are_asked_for_by_a_flag() {
        for (pattern, lines) in
            [("(?m)a$", true), ("(?im:a$)", true), ("(?s)a$", false), ("(?<m>a)$", false), ("(?-m)$", false)]
        {
            assert_eq!(asks_for_lines(pattern), lines, "{pattern}");
        }
    }
}
