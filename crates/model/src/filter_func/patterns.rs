//! Lua's patterns with an end to their patience: `string.find`, `match`, `gmatch` and `gsub` of Lua 5.1.
//!
//! The rule to know: a pattern tries again and again, without an instruction of Lua's that could be counted. So it is
//! matched here, step by step, and its steps have a limit as instructions have.

use std::{cell::Cell, rc::Rc};

use mlua::{Error, Function, IntoLuaMulti as _, Lua, LuaString as Text, MultiValue, Table, Value};

/// Steps that the patterns of one call may take.
const MOST_STEPS: u32 = 2_000_000;
/// How deep a pattern may go: Lua's own limit.
const DEEPEST: u32 = 200;
const MOST_CAPTURES: usize = 32;
/// Bytes of a text that `gsub` makes, which is not made in the memory of Lua's that is counted.
const LONGEST: usize = 8 * 1024 * 1024;
const SPECIAL: &[u8] = b"^$*+?.([%-";

/// Steps taken.
pub(super) type Steps = Rc<Cell<u32>>;

/// Puts the functions into the library of strings.
pub(super) fn install(lua: &Lua, steps: &Steps) -> Result<(), Error> {
    type Search = (Text, Text, Option<i64>, Option<bool>);
    let strings: Table = lua.globals().get("string")?;
    let counted = Rc::clone(steps);
    let find = move |lua: &Lua, (text, pattern, init, plain): Search| {
        search(lua, &counted, (&text, &pattern), init, Some(plain.unwrap_or(false)))
    };
    strings.set("find", lua.create_function(find)?)?;
    let counted = Rc::clone(steps);
    let one = move |lua: &Lua, (text, pattern, init): (Text, Text, Option<i64>)| {
        search(lua, &counted, (&text, &pattern), init, None)
    };
    strings.set("match", lua.create_function(one)?)?;
    let counted = Rc::clone(steps);
    let every = move |lua: &Lua, (text, pattern): (Text, Text)| every(lua, &counted, text, pattern);
    let every = lua.create_function(every)?;
    // Its old name.
    strings.set("gfind", every.clone())?;
    strings.set("gmatch", every)?;
    let counted = Rc::clone(steps);
    let replace = move |lua: &Lua, (text, pattern, by, most): (Text, Text, Value, Option<i64>)| {
        replace(lua, &counted, (&text, &pattern), &by, most)
    };
    strings.set("gsub", lua.create_function(replace)?)
}

/// `find`, with whether the pattern is a plain text, or `match`.
fn search(
    lua: &Lua,
    steps: &Steps,
    (text, pattern): (&Text, &Text),
    init: Option<i64>,
    find: Option<bool>,
) -> Result<MultiValue, Error> {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let start = begin(init.unwrap_or(1), text.len());
    if let Some(plain) = find
        && (plain || !pattern.iter().any(|byte| SPECIAL.contains(byte)))
    {
        return match plainly(&text[start..], &pattern, steps)? {
            Some(at) => (start + at + 1, start + at + pattern.len()).into_lua_multi(lua),
            None => Value::Nil.into_lua_multi(lua),
        };
    }
    let anchored = pattern.first() == Some(&b'^');
    let mut matcher = Matcher::new(&text, &pattern, steps);
    for from in start..=text.len() {
        if let Some(end) = matcher.run(from, usize::from(anchored))? {
            let mut values = matcher.captures(lua, from, end, find.is_none())?;
            if find.is_some() {
                values.push_front(Value::Number(whole(end)));
                values.push_front(Value::Number(whole(from + 1)));
            }
            return Ok(values);
        }
        if anchored {
            break;
        }
    }
    Value::Nil.into_lua_multi(lua)
}

/// Where to begin: 1 is the first byte, -1 the last.
fn begin(init: i64, length: usize) -> usize {
    let from_end = usize::try_from(init.unsigned_abs()).unwrap_or(usize::MAX);
    if init < 0 { length.saturating_sub(from_end) } else { from_end.saturating_sub(1).min(length) }
}

#[expect(clippy::cast_precision_loss, reason = "Lua has no other numbers")]
fn whole(number: usize) -> f64 {
    number as f64
}

fn plainly(text: &[u8], wanted: &[u8], steps: &Steps) -> Result<Option<usize>, Error> {
    let Some(first) = wanted.first() else { return Ok(Some(0)) };
    for at in 0..(text.len() + 1).saturating_sub(wanted.len()) {
        if text[at] == *first {
            take(steps, 1 + u32::try_from(wanted.len() / 8).unwrap_or(u32::MAX))?;
            if text[at..].starts_with(wanted) {
                return Ok(Some(at));
            }
        }
    }
    take(steps, u32::try_from(text.len() / 8).unwrap_or(u32::MAX))?;
    Ok(None)
}

fn take(steps: &Steps, count: u32) -> Result<(), Error> {
    steps.set(steps.get().saturating_add(count));
    if steps.get() > MOST_STEPS {
        return Err(Error::runtime(format!("its patterns take more than {MOST_STEPS} steps")));
    }
    Ok(())
}

/// `gmatch`.
fn every(lua: &Lua, steps: &Steps, text: Text, pattern: Text) -> Result<Function, Error> {
    let (steps, at) = (Rc::clone(steps), Cell::new(0));
    lua.create_function(move |lua, ()| {
        let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
        let mut matcher = Matcher::new(&text, &pattern, &steps);
        for from in at.get()..=text.len() {
            if let Some(end) = matcher.run(from, 0)? {
                at.set(if end == from { end + 1 } else { end });
                return matcher.captures(lua, from, end, true);
            }
        }
        at.set(text.len() + 1);
        Value::Nil.into_lua_multi(lua)
    })
}

/// `gsub`: the text, and how many were replaced.
fn replace(
    lua: &Lua,
    steps: &Steps,
    (text, pattern): (&Text, &Text),
    by: &Value,
    most: Option<i64>,
) -> Result<(Text, f64), Error> {
    if !matches!(
        by,
        Value::String(_) | Value::Number(_) | Value::Integer(_) | Value::Table(_) | Value::Function(_)
    ) {
        let got = by.type_name();
        let text = format!("bad argument #3 to 'gsub' (string/function/table expected, got {got})");
        return Err(Error::runtime(text));
    }
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let anchored = pattern.first() == Some(&b'^');
    let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(0));
    let (mut out, mut at, mut count) = (Vec::with_capacity(text.len()), 0, 0);
    let mut matcher = Matcher::new(&text, &pattern, steps);
    while count < most {
        let end = matcher.run(at, usize::from(anchored))?;
        if let Some(end) = end {
            count += 1;
            matcher.replaced(lua, (at, end), by, &mut out)?;
            if out.len() > LONGEST {
                return Err(Error::runtime("not enough memory"));
            }
        }
        match (end.filter(|end| *end > at), text.get(at)) {
            (Some(end), _) => at = end,
            (None, Some(byte)) => {
                out.push(*byte);
                at += 1;
            }
            (None, None) => break,
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    Ok((lua.create_string(out)?, whole(count)))
}

/// A pattern on its way through a text.
struct Matcher<'a> {
    text: &'a [u8],
    pattern: &'a [u8],
    steps: &'a Steps,
    depth: u32,
    captures: Vec<Capture>,
}

#[derive(Clone, Copy)]
struct Capture {
    start: usize,
    is: Is,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Open,
    /// `()`: where it is.
    Position,
    Long(usize),
}

type Found = Result<Option<usize>, Error>;

impl<'a> Matcher<'a> {
    fn new(text: &'a [u8], pattern: &'a [u8], steps: &'a Steps) -> Self {
        Self { text, pattern, steps, depth: 0, captures: Vec::new() }
    }

    /// Where a match that begins at `from` ends.
    fn run(&mut self, from: usize, pattern: usize) -> Found {
        self.captures.clear();
        self.depth = 0;
        self.matches(from, pattern)
    }

    /// The same for the pattern from `p` on, without forgetting what was captured before.
    fn matches(&mut self, s: usize, p: usize) -> Found {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::runtime("pattern too complex"));
        }
        let found = self.items(s, p);
        self.depth -= 1;
        found
    }

    fn items(&mut self, mut s: usize, mut p: usize) -> Found {
        loop {
            take(self.steps, 1)?;
            let Some(&item) = self.pattern.get(p) else { return Ok(Some(s)) };
            match (item, self.pattern.get(p + 1)) {
                (b'(', Some(b')')) => return self.open(s, p + 2, Is::Position),
                (b'(', _) => return self.open(s, p + 1, Is::Open),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.text.len()).then_some(s)),
                (b'%', Some(b'b')) => {
                    let Some(end) = self.balanced(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                    continue;
                }
                (b'%', Some(b'f')) => {
                    let Some(next) = self.frontier(s, p + 2)? else { return Ok(None) };
                    p = next;
                    continue;
                }
                (b'%', Some(digit)) if digit.is_ascii_digit() => {
                    let Some(end) = self.again(s, *digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                    continue;
                }
                _ => {}
            }
            let end = self.class_end(p)?;
            let fits = self.fits(s, p, end);
            match self.pattern.get(end) {
                Some(b'?') => {
                    if fits && let Some(found) = self.matches(s + 1, end + 1)? {
                        return Ok(Some(found));
                    }
                    p = end + 1;
                }
                Some(b'*') => return self.most(s, p, end),
                Some(b'+') => return if fits { self.most(s + 1, p, end) } else { Ok(None) },
                Some(b'-') => return self.least(s, p, end),
                _ if fits => (s, p) = (s + 1, end),
                _ => return Ok(None),
            }
        }
    }

    /// As many as possible first.
    fn most(&mut self, s: usize, p: usize, end: usize) -> Found {
        let mut count = 0;
        while self.fits(s + count, p, end) {
            take(self.steps, 1)?;
            count += 1;
        }
        for count in (0..=count).rev() {
            if let Some(found) = self.matches(s + count, end + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// As few as possible first.
    fn least(&mut self, mut s: usize, p: usize, end: usize) -> Found {
        loop {
            if let Some(found) = self.matches(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.fits(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, is: Is) -> Found {
        if self.captures.len() >= MOST_CAPTURES {
            return Err(Error::runtime("too many captures"));
        }
        self.captures.push(Capture { start: s, is });
        let found = self.matches(s, p)?;
        if found.is_none() {
            self.captures.pop();
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Found {
        let last = self.captures.iter().rposition(|capture| capture.is == Is::Open);
        let at = last.ok_or_else(|| Error::runtime("invalid pattern capture"))?;
        self.captures[at].is = Is::Long(s - self.captures[at].start);
        let found = self.matches(s, p)?;
        if found.is_none() {
            self.captures[at].is = Is::Open;
        }
        Ok(found)
    }

    /// `%b()`.
    fn balanced(&self, s: usize, p: usize) -> Found {
        let (Some(open), Some(close)) = (self.pattern.get(p), self.pattern.get(p + 1)) else {
            return Err(Error::runtime("unbalanced pattern"));
        };
        if self.text.get(s) != Some(open) {
            return Ok(None);
        }
        let mut depth = 1;
        for (at, byte) in self.text.iter().enumerate().skip(s + 1) {
            take(self.steps, 1)?;
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: where in the pattern to go on.
    fn frontier(&self, s: usize, p: usize) -> Found {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(Error::runtime("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        let at = |index: Option<usize>| index.and_then(|index| self.text.get(index)).copied().unwrap_or(0);
        let (before, here) = (at(s.checked_sub(1)), at(Some(s)));
        Ok((!self.in_set(before, p, end - 1) && self.in_set(here, p, end - 1)).then_some(end))
    }

    /// `%1`: what was captured, once more.
    fn again(&self, s: usize, digit: u8) -> Found {
        let capture = digit.checked_sub(b'1').and_then(|at| self.captures.get(usize::from(at)));
        let (start, length) = match capture {
            Some(Capture { start, is: Is::Long(length) }) => (start, length),
            Some(Capture { is: Is::Position, .. }) => return Ok(None),
            _ => return Err(Error::runtime("invalid capture index")),
        };
        take(self.steps, u32::try_from(length / 8).unwrap_or(u32::MAX))?;
        let captured = &self.text[*start..start + length];
        Ok(self.text[s..].starts_with(captured).then_some(s + length))
    }

    /// Where the class that begins at `p` ends.
    fn class_end(&self, p: usize) -> Result<usize, Error> {
        let mut p = p + 1;
        match self.pattern[p - 1] {
            b'%' if p >= self.pattern.len() => Err(Error::runtime("malformed pattern (ends with '%')")),
            b'%' => Ok(p + 1),
            b'[' => {
                if self.pattern.get(p) == Some(&b'^') {
                    p += 1;
                }
                // A bracket in the first place is itself.
                loop {
                    let byte = self.pattern.get(p);
                    p += if byte == Some(&b'%') { 2 } else { 1 };
                    if byte.is_none() || p > self.pattern.len() {
                        return Err(Error::runtime("malformed pattern (missing ']')"));
                    }
                    if self.pattern.get(p) == Some(&b']') {
                        return Ok(p + 1);
                    }
                }
            }
            _ => Ok(p),
        }
    }

    fn fits(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.text.get(s) else { return false };
        match self.pattern[p] {
            b'.' => true,
            b'%' => is_of(byte, self.pattern[p + 1]),
            b'[' => self.in_set(byte, p, end - 1),
            item => item == byte,
        }
    }

    /// Whether a byte is in the set from `p`, its bracket, to `last`, its other one.
    fn in_set(&self, byte: u8, p: usize, last: usize) -> bool {
        let mut set = &self.pattern[p + 1..last];
        let negated = set.first() == Some(&b'^');
        if negated {
            set = &set[1..];
        }
        loop {
            let (found, rest) = match set {
                [] => return negated,
                [b'%', class, rest @ ..] => (is_of(byte, *class), rest),
                [first, b'-', last, rest @ ..] => ((*first..=*last).contains(&byte), rest),
                [one, rest @ ..] => (*one == byte, rest),
            };
            if found {
                return !negated;
            }
            set = rest;
        }
    }

    /// What was captured; the whole match where nothing is and `or_all`.
    fn captures(&self, lua: &Lua, from: usize, end: usize, or_all: bool) -> Result<MultiValue, Error> {
        if self.captures.is_empty() && or_all {
            return Ok([self.capture(lua, 0, from, end)?].into_iter().collect());
        }
        (0..self.captures.len()).map(|at| self.capture(lua, at, from, end)).collect()
    }

    fn capture(&self, lua: &Lua, at: usize, from: usize, end: usize) -> Result<Value, Error> {
        let text = |range: &[u8]| lua.create_string(range).map(Value::String);
        match self.captures.get(at) {
            None if at == 0 => text(&self.text[from..end]),
            None => Err(Error::runtime("invalid capture index")),
            Some(Capture { is: Is::Open, .. }) => Err(Error::runtime("unfinished capture")),
            Some(Capture { start, is: Is::Position }) => Ok(Value::Number(whole(start + 1))),
            Some(Capture { start, is: Is::Long(length) }) => text(&self.text[*start..start + length]),
        }
    }

    /// Writes what a match is replaced by.
    fn replaced(
        &self,
        lua: &Lua,
        (from, end): (usize, usize),
        by: &Value,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let value = match by {
            Value::Table(table) => table.get(self.capture(lua, 0, from, end)?)?,
            Value::Function(function) => function.call(self.captures(lua, from, end, true)?)?,
            text => {
                let Some(text) = lua.coerce_string(text.clone())? else { return Ok(()) };
                return self.expand(lua, (from, end), &text.as_bytes(), out);
            }
        };
        match value {
            Value::Nil | Value::Boolean(false) => out.extend_from_slice(&self.text[from..end]),
            value => {
                let name = value.type_name();
                let text = lua.coerce_string(value)?;
                let wrong = || Error::runtime(format!("invalid replacement value (a {name})"));
                out.extend_from_slice(&text.ok_or_else(wrong)?.as_bytes());
            }
        }
        Ok(())
    }

    /// Writes a text with `%1` and its like in it.
    fn expand(&self, lua: &Lua, range: (usize, usize), by: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let mut rest = by.iter();
        while let Some(&byte) = rest.next() {
            match (byte, if byte == b'%' { rest.next() } else { None }) {
                (b'%', Some(b'0')) => out.extend_from_slice(&self.text[range.0..range.1]),
                (b'%', Some(digit)) if digit.is_ascii_digit() => {
                    let value = self.capture(lua, usize::from(digit - b'1'), range.0, range.1)?;
                    let text = lua.coerce_string(value)?;
                    out.extend_from_slice(&text.map_or_else(Vec::new, |text| text.as_bytes().to_vec()));
                }
                (b'%', Some(&other)) => out.push(other),
                // Lua reads the end of its own text.
                (b'%', None) => out.push(0),
                (byte, _) => out.push(byte),
            }
        }
        Ok(())
    }
}

/// Whether a byte is of `%a` and its like.
fn is_of(byte: u8, class: u8) -> bool {
    let is = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b'\t'..=b'\r' | b' '),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use mlua::{LuaOptions, StdLib};
    use proptest::prelude::*;

    use super::*;

    /// Lua with its own functions, and with ours in `string`; its own are in `lua`.
    fn both() -> Lua {
        let lua = Lua::new_with(StdLib::STRING | StdLib::TABLE, LuaOptions::default()).unwrap();
        lua.load("lua = {} for name, f in pairs(string) do lua[name] = f end").exec().unwrap();
        install(&lua, &Rc::default()).unwrap();
        lua
    }

    /// What a call gives, or that it fails, as a text.
    const SHOWN: &str = r#"
        return function(f, ...)
            local all = {pcall(f, ...)}
            if not all[1] then return "error" end
            for i = 1, 8 do all[i] = tostring(all[i]) end
            return table.concat(all, "|")
        end"#;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn it_is_what_lua_does(
            text in "[ab(){} %1.-]{0,10}",
            pattern in "(\\^|[ab.()$]|%[awsbf%1AW.]|[*+?-]|\\[\\^?[a%-w\\]]{1,3}\\]|%b\\(\\)|%f\\[%w\\]|\\(\\)){0,6}",
            by in "([ab]|%[0-2%]){0,3}",
            init in -4..8_i64,
        ) {
            let lua = both();
            let shown: Function = lua.load(SHOWN).eval().unwrap();
            let call = |library: &str, name: &str| {
                let library: Table = lua.globals().get(library).unwrap();
                let function: Function = library.get(name).unwrap();
                match name {
                    "find" | "match" => shown.call::<String>((function, &*text, &*pattern, init)).unwrap(),
                    "gsub" => shown.call::<String>((function, &*text, &*pattern, &*by)).unwrap(),
                    _ => {
                        let all = lua.load(
                            "local f, s, p = ... local n, out = 0, {}
                             for a, b in f(s, p) do n = n + 1 out[n] = tostring(a) .. tostring(b)
                             if n > 20 then break end end return table.concat(out, '|')",
                        );
                        shown.call((all.into_function().unwrap(), function, &*text, &*pattern)).unwrap()
                    }
                }
            };
            for name in ["find", "match", "gsub", "gmatch"] {
                prop_assert_eq!(call("string", name), call("lua", name), "{} {:?} {:?}", name, &text, &pattern);
            }
        }
    }

    #[test]
    fn replacements_of_every_kind() {
        let lua = both();
        for (code, value) in [
            ("('a1b2'):gsub('%d', {['1'] = 'x'})", "axb2"),
            ("('a1b2'):gsub('(%a)(%d)', function(a, d) return d .. a end)", "1a2b"),
            ("('abc'):gsub('%w', '%0%0', 2)", "aabbc"),
            ("('abc'):gsub('b', 7)", "a7c"),
            ("('a.b'):find('.', 1, true)", "2"),
        ] {
            assert_eq!(
                lua.load(format!("return (tostring(({code})))")).eval::<String>().unwrap(),
                value,
                "{code}"
            );
        }
        for code in
            ["('a'):gsub('a', nil)", "('a'):gsub('a', function() return {} end)", "('a'):gsub('(', '%1')"]
        {
            lua.load(code).exec().unwrap_err();
        }
    }
}
