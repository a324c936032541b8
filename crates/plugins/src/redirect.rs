//! `redirect`: sends the client elsewhere.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/redirect/>.

use http::{Method, StatusCode, header::LOCATION};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Reply, Step},
    vars::Var,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::{escape, header, is_reference, substitution::Substitution};

#[derive(Debug, Deserialize)]
pub struct Conf {
    ret_code: u16,
    uri: Option<String>,
    regex_uri: Option<(String, String)>,
    #[serde(default)]
    http_to_https: bool,
    encode_uri: bool,
    append_query_string: bool,
}

pub struct Redirect {
    status: StatusCode,
    to: Target,
    /// `https://host[:port]request_uri`, where `http_to_https` is on.
    to_https: Option<Uri>,
    encode: bool,
    append_query: bool,
}

enum Target {
    Nowhere,
    Uri(Uri),
    Regex(Substitution),
}

/// A URI with variables: `$name`, `${name}`. `\$name` is text.
struct Uri(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Var(Var),
}

impl Uri {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(piece) = next(&mut rest) {
            pieces.push(piece);
        }
        Self(pieces)
    }

    fn render(&self, ctx: &Ctx) -> String {
        let mut uri = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => uri.push_str(text),
                Piece::Var(var) => uri.push_str(&var.read(ctx).unwrap_or_default()),
            }
        }
        uri
    }
}

/// Takes the next piece off a URI.
fn next(rest: &mut &str) -> Option<Piece> {
    let name = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let text = *rest;
    let (piece, length) = match text.as_bytes() {
        [] => return None,
        [b'\\', b'$', ..] if name(&text[2..]) > 0 => {
            let end = 2 + name(&text[2..]);
            (Piece::Text(text[..end].to_owned()), end)
        }
        // A backslash that escapes nothing is left out.
        [b'\\', ..] => (Piece::Text(String::new()), 1),
        [b'$', b'{', ..] if name(&text[2..]) > 0 && text[2 + name(&text[2..])..].starts_with('}') => {
            let end = 2 + name(&text[2..]);
            (Piece::Var(Var::parse(&text[2..end])), end + 1)
        }
        [b'$', ..] if name(&text[1..]) > 0 => {
            let end = 1 + name(&text[1..]);
            (Piece::Var(Var::parse(&text[1..end])), end)
        }
        [b'$', ..] => (Piece::Text("$".to_owned()), 1),
        _ => {
            let end = text.find(['$', '\\']).unwrap_or(text.len());
            (Piece::Text(text[..end].to_owned()), end)
        }
    };
    *rest = &text[length..];
    Some(piece)
}

impl Plugin for Redirect {
    const NAME: &'static str = "redirect";
    const PRIORITY: i32 = 900;
    const PHASES: &'static [Phase] = &[Phase::Rewrite];

    type Conf = Conf;

    fn schema() -> Value {
        let uri = r"(\\\$[0-9a-zA-Z_]+)|\$\{([0-9a-zA-Z_]+)\}|\$([0-9a-zA-Z_]+)|(\$|[^$\\]+)";
        json!({
            "type": "object",
            "properties": {
                "ret_code": {"type": "integer", "minimum": 200, "default": 302},
                "uri": {"type": "string", "minLength": 2, "pattern": uri},
                "regex_uri": {
                    "description": "a regular expression and what the part of the path it matches is replaced by",
                    "type": "array",
                    "maxItems": 2,
                    "minItems": 2,
                    "items": {"type": "string"}
                },
                "http_to_https": {"type": "boolean"},
                "encode_uri": {"type": "boolean", "default": false},
                "append_query_string": {"type": "boolean", "default": false}
            },
            "oneOf": [{"required": ["uri"]}, {"required": ["regex_uri"]}, {"required": ["http_to_https"]}]
        })
    }

    fn new(conf: Conf, env: &Env<'_>) -> Result<Self, String> {
        let status = StatusCode::from_u16(conf.ret_code)
            .map_err(|_| format!("ret_code {} is not a status code", conf.ret_code))?;
        let substitution = conf.regex_uri.as_ref().map(substitution).transpose()?.flatten();
        let to = match (&conf.uri, substitution) {
            (Some(uri), _) => Target::Uri(Uri::new(uri)),
            (None, Some(substitution)) => Target::Regex(substitution),
            (None, None) => Target::Nowhere,
        };
        if conf.http_to_https && conf.append_query_string {
            return Err("only one of `http_to_https` and `append_query_string` can be configured.".into());
        }
        let to_https = conf.http_to_https.then(|| https(env.attr["https_port"].as_u64()));
        Ok(Self { status, to, to_https, encode: conf.encode_uri, append_query: conf.append_query_string })
    }
}

fn substitution((pattern, replacement): &(String, String)) -> Result<Option<Substitution>, String> {
    if is_reference(pattern) {
        return Ok(None);
    }
    let known = if is_reference(replacement) { "" } else { replacement };
    match Substitution::new(pattern, known) {
        Ok(substitution) => Ok(Some(substitution)),
        Err(error) => Err(format!("invalid regex_uri ({pattern}, {replacement}), err:{error}")),
    }
}

fn https(port: Option<u64>) -> Uri {
    match port.filter(|port| *port != 443 && (1..=65_535).contains(port)) {
        Some(port) => Uri::new(&format!("https://$host:{port}$request_uri")),
        None => Uri::new("https://$host$request_uri"),
    }
}

impl Redirect {
    /// Where to, and with which status; none: on with the request.
    fn target(&self, ctx: &Ctx) -> Option<(StatusCode, String)> {
        if let Some(https) = &self.to_https
            && ctx.request.header("x-forwarded-proto").unwrap_or(ctx.request.scheme) != "https"
        {
            let status = match ctx.request.method {
                Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
                _ => StatusCode::PERMANENT_REDIRECT,
            };
            return Some((status, https.render(ctx)));
        }
        let uri = match &self.to {
            Target::Nowhere => return None,
            Target::Uri(uri) => uri.render(ctx),
            Target::Regex(substitution) => substitution.first(ctx.request.path())?.0,
        };
        Some((self.status, uri))
    }

    fn finish(&self, ctx: &Ctx, uri: String) -> String {
        let mut uri = uri;
        let query_at = uri.find('?');
        if self.encode {
            let (path, query) = uri.split_at(query_at.unwrap_or(uri.len()));
            uri = format!("{}{query}", escape::path(path));
        }
        if self.append_query && !ctx.request.query().is_empty() {
            uri.push(if query_at.is_some() { '&' } else { '?' });
            uri.push_str(ctx.request.query());
        }
        uri
    }
}

impl Hooks for Redirect {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let Some((status, uri)) = self.target(ctx) else { return Flow::Next.into() };
        let mut reply = Reply::empty(status);
        reply.headers.insert(LOCATION, header::value(&self.finish(ctx, uri)));
        reply.into()
    }
}

#[cfg(test)]
mod tests;
