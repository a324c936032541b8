//! What `proxy-rewrite` does to headers: add, then set, then remove.

use http::{HeaderMap, HeaderName, HeaderValue, header::HOST};
use proxy::{ctx::Ctx, vars::Template};
use serde_json::{Map, Value};

use crate::shared::header;

/// What `regex_uri` captured, for the headers of this and later plugins. The first is the whole match.
pub struct Captures(pub Vec<String>);

#[derive(Default)]
pub struct Headers {
    add: Vec<(HeaderName, Vec<Text>)>,
    set: Vec<(HeaderName, Vec<Text>)>,
    remove: Vec<HeaderName>,
    names_host: bool,
}

/// A header's value.
enum Text {
    Plain(HeaderValue),
    Made(Vec<Piece>),
}

enum Piece {
    Template(Template),
    /// `$1`, or `${1}`.
    Capture(usize),
}

impl Headers {
    /// Reads both forms: `{"add": …, "set": …, "remove": …}` and `{"name": "value"}`.
    pub fn new(conf: Map<String, Value>) -> Result<Self, String> {
        let mut headers = Self::default();
        if header::is_short(&conf) {
            check(&conf)?;
            headers.set = texts(conf)?;
            headers.names_host = headers.set.iter().any(|(name, _)| *name == HOST);
            return Ok(headers);
        }
        for (key, value) in conf {
            match (&*key, value) {
                ("add", Value::Object(named)) => headers.add = texts(named)?,
                ("set", Value::Object(named)) => headers.set = texts(named)?,
                ("remove", Value::Array(names)) => {
                    headers.remove =
                        names.iter().filter_map(Value::as_str).map(header::name).collect::<Result<_, _>>()?;
                }
                _ => {}
            }
        }
        let changed = headers.add.iter().chain(&headers.set).map(|(name, _)| name);
        headers.names_host = changed.chain(&headers.remove).any(|name| *name == HOST);
        Ok(headers)
    }

    pub fn apply(&self, ctx: &mut Ctx) {
        if self.names_host && ctx.upstream_host.is_none() {
            // The upstream's is the client's, which was settled before: only `host` and `pass_host` change it.
            let host = ctx.request.headers.get(HOST).cloned();
            ctx.upstream_host = Some(host.unwrap_or(HeaderValue::from_static("")));
        }
        for (name, texts) in &self.add {
            for text in texts {
                let value = text.render(ctx);
                ctx.request.headers.append(name, value);
            }
        }
        for (name, texts) in &self.set {
            let values: Vec<HeaderValue> = texts.iter().map(|text| text.render(ctx)).collect();
            replace(&mut ctx.request.headers, name, values);
        }
        for name in &self.remove {
            ctx.request.headers.remove(name);
        }
    }
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, values: Vec<HeaderValue>) {
    headers.remove(name);
    for value in values.into_iter().filter(|value| !value.is_empty()) {
        headers.append(name, value);
    }
}

/// The short form is checked more strictly than the long one.
fn check(headers: &Map<String, Value>) -> Result<(), String> {
    header::check(headers)?;
    for (field, value) in headers {
        if !field.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err("invalid field character in header".into());
        }
        let text = value.as_str().unwrap_or_default();
        if !text.bytes().all(|byte| (b' '..127).contains(&byte)) {
            return Err("invalid value character in header".into());
        }
    }
    Ok(())
}

fn texts(headers: Map<String, Value>) -> Result<Vec<(HeaderName, Vec<Text>)>, String> {
    let values = |value: Value| match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    let text = |value: Value| Ok(Text::new(&header::text(value)?));
    headers
        .into_iter()
        .map(|(field, value)| {
            let texts = values(value).into_iter().map(text).collect::<Result<_, String>>()?;
            Ok((header::name(&field)?, texts))
        })
        .collect()
}

impl Text {
    fn new(text: &str) -> Self {
        let pieces = pieces(text);
        if pieces.iter().all(|piece| matches!(piece, Piece::Template(template) if template.is_plain())) {
            return Self::Plain(header::value(text));
        }
        Self::Made(pieces)
    }

    fn render(&self, ctx: &Ctx) -> HeaderValue {
        let pieces = match self {
            Self::Plain(value) => return value.clone(),
            Self::Made(pieces) => pieces,
        };
        let captures = ctx.kept::<Captures>();
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Template(template) => out.push_str(&template.render(ctx)),
                Piece::Capture(group) => {
                    out.push_str(
                        captures.and_then(|captures| captures.0.get(*group)).map_or("", |text| text),
                    );
                }
            }
        }
        header::value(&out)
    }
}

/// Splits `$1` and `${1}` from a text. What a group captured is never looked through for variables.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut from, mut looked) = (0, 0);
    while let Some(at) = text[looked..].find('$').map(|at| looked + at) {
        looked = at + 1;
        let after = &text[at + 1..];
        let digits = after.strip_prefix('{').unwrap_or(after);
        let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
        let Ok(group) = digits[..end].parse() else { continue };
        if text[..at].ends_with('\\') {
            continue;
        }
        pieces.push(Piece::Template(Template::new(&text[from..at])));
        pieces.push(Piece::Capture(group));
        let rest = &digits[end..];
        from = text.len() - rest.strip_prefix('}').unwrap_or(rest).len();
        looked = from;
    }
    pieces.push(Piece::Template(Template::new(&text[from..])));
    pieces
}
