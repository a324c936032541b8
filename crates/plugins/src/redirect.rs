//! `redirect`: sends the client elsewhere.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/redirect/>.

use fancy_regex::Regex;
use http::{HeaderValue, Method, StatusCode, header::LOCATION};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Reply, Step},
    vars::Template,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::substitution::Substitution;

/// What nginx encodes in a URI.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

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

/// A URI with variables. `\$name` is text.
struct Uri(Vec<Piece>);

enum Piece {
    Text(String),
    Template(Template),
}

impl Uri {
    fn new(text: &str) -> Result<Self, String> {
        let escaped = Regex::new(r"\\\$[0-9a-zA-Z_]+").map_err(|error| error.to_string())?;
        let mut pieces = Vec::new();
        let mut from = 0;
        for found in escaped.find_iter(text).flatten() {
            pieces.push(Piece::Template(Template::new(&text[from..found.start()])));
            pieces.push(Piece::Text(found.as_str().to_owned()));
            from = found.end();
        }
        pieces.push(Piece::Template(Template::new(&text[from..])));
        Ok(Self(pieces))
    }

    fn render(&self, ctx: &Ctx) -> String {
        let mut uri = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => uri.push_str(text),
                Piece::Template(template) => uri.push_str(&template.render(ctx)),
            }
        }
        uri
    }
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
        if conf.http_to_https && conf.append_query_string {
            return Err("only one of `http_to_https` and `append_query_string` can be configured.".into());
        }
        let status = StatusCode::from_u16(conf.ret_code)
            .map_err(|_| format!("ret_code {} is not a status code", conf.ret_code))?;
        let to = match (&conf.uri, &conf.regex_uri) {
            (Some(uri), _) => Target::Uri(Uri::new(uri)?),
            (None, Some((pattern, replacement))) => Target::Regex(
                Substitution::new(pattern, replacement)
                    .map_err(|error| format!("invalid regex_uri ({pattern}, {replacement}), err:{error}"))?,
            ),
            (None, None) => Target::Nowhere,
        };
        let to_https = conf.http_to_https.then(|| https(env.attr["https_port"].as_u64())).transpose()?;
        Ok(Self { status, to, to_https, encode: conf.encode_uri, append_query: conf.append_query_string })
    }
}

fn https(port: Option<u64>) -> Result<Uri, String> {
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
            Target::Regex(substitution) => substitution.apply(ctx.request.path())?,
        };
        Some((self.status, uri))
    }

    fn finish(&self, ctx: &Ctx, uri: String) -> String {
        let mut uri = uri;
        let query_at = uri.find('?');
        if self.encode {
            let (path, query) = uri.split_at(query_at.unwrap_or(uri.len()));
            uri = format!("{}{query}", utf8_percent_encode(path, UNSAFE));
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
        let Ok(location) = HeaderValue::from_str(&self.finish(ctx, uri)) else {
            tracing::error!("redirect: the new URI can't be the value of a header");
            return Reply::empty(StatusCode::INTERNAL_SERVER_ERROR).into();
        };
        let mut reply = Reply::empty(status);
        reply.headers.insert(LOCATION, location);
        reply.into()
    }
}
