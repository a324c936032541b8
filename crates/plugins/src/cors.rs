//! `cors`: tells browsers which other origins may use a route.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/cors/>.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
    },
};
use model::{byte_text, pattern::Pattern};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Reply, Step},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::header;

/// What an origin, a list of them, or a wildcard looks like.
const ORIGINS: &str = r"^(\*|\*\*|null|\w+://[^,]+(,\w+://[^,]+)*)$";
/// What `**` stands for among methods.
const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

#[derive(Debug, Deserialize)]
pub struct Conf {
    allow_origins: String,
    allow_methods: String,
    allow_headers: String,
    expose_headers: Option<String>,
    max_age: i64,
    allow_credential: bool,
    allow_origins_by_regex: Option<Vec<String>>,
    allow_origins_by_metadata: Option<Vec<String>>,
    timing_allow_origins: Option<String>,
    timing_allow_origins_by_regex: Option<Vec<String>>,
}

pub struct Cors {
    origins: Origins,
    origins_by_regex: Option<Pattern>,
    /// The origins of the metadata entries that are named; none where none is named.
    origins_by_metadata: Option<Vec<Origins>>,
    timing: Option<Origins>,
    timing_by_regex: Option<Pattern>,
    methods: HeaderValue,
    /// None: those the browser asks for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
}

/// Whom `allow_origins` lets in.
#[derive(Debug, PartialEq, Eq)]
enum Origins {
    /// `*`, or one origin.
    Fixed(String),
    /// `**`: whoever asks is told that it is let in.
    Echo,
    Listed(HashSet<String>),
}

impl Origins {
    fn new(text: &str) -> Self {
        match text {
            "**" => Self::Echo,
            list if list.contains(',') => {
                Self::Listed(list.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect())
            }
            one => Self::Fixed(one.to_owned()),
        }
    }

    /// What is told to a request from `origin`; none: nothing.
    fn answer<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Fixed(fixed) => Some(fixed),
            Self::Echo => Some(origin.unwrap_or("*")),
            Self::Listed(listed) => origin.filter(|origin| listed.contains(*origin)),
        }
    }

    fn is_any(&self) -> bool {
        matches!(self, Self::Fixed(fixed) if fixed == "*")
    }
}

/// Whether what is told lets `origin` in.
fn lets_in(origin: Option<&str>, told: Option<&str>) -> bool {
    told == origin || told == Some("*")
}

impl Plugin for Cors {
    const NAME: &'static str = "cors";
    const PRIORITY: i32 = 4000;
    const PHASES: &'static [Phase] = &[Phase::Rewrite, Phase::HeaderFilter];
    const METADATA_SCHEMA: Option<fn() -> Value> = Some(metadata_schema);

    type Conf = Conf;

    fn schema() -> Value {
        let names = json!({
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 4096},
            "minItems": 1,
            "uniqueItems": true
        });
        json!({
            "type": "object",
            "properties": {
                "allow_origins": {
                    "description": "`*`, `**`, or origins separated by commas",
                    "type": "string",
                    "pattern": ORIGINS,
                    "default": "*"
                },
                "allow_methods": {"type": "string", "default": "*"},
                "allow_headers": {"type": "string", "default": "*"},
                "expose_headers": {"type": "string"},
                "max_age": {"description": "seconds", "type": "integer", "default": 5},
                "allow_credential": {"type": "boolean", "default": false},
                "allow_origins_by_regex": names,
                "allow_origins_by_metadata": names,
                "timing_allow_origins": {"type": "string", "pattern": ORIGINS},
                "timing_allow_origins_by_regex": names
            }
        })
    }

    fn new(conf: Conf, env: &Env<'_>) -> Result<Self, String> {
        let any = |value: Option<&str>| value == Some("*");
        let wildcard = any(Some(&conf.allow_origins))
            || any(Some(&conf.allow_methods))
            || any(Some(&conf.allow_headers))
            || any(conf.expose_headers.as_deref())
            || any(conf.timing_allow_origins.as_deref());
        if conf.allow_credential && wildcard {
            return Err("you can not set '*' for other option when 'allow_credential' is true".into());
        }
        let methods = if conf.allow_methods == "**" { ALL_METHODS } else { &conf.allow_methods };
        let headers = (conf.allow_headers != "**").then_some(conf.allow_headers.as_str());
        let expose = conf.expose_headers.as_deref().filter(|headers| !headers.is_empty());
        Ok(Self {
            origins: Origins::new(&conf.allow_origins),
            origins_by_regex: regex(conf.allow_origins_by_regex.as_deref())?,
            origins_by_metadata: conf.allow_origins_by_metadata.map(|names| named(&names, env.metadata)),
            timing: conf.timing_allow_origins.as_deref().map(Origins::new),
            timing_by_regex: regex(conf.timing_allow_origins_by_regex.as_deref())?,
            methods: header_value(methods)?,
            headers: headers.map(header_value).transpose()?,
            expose: expose.map(header_value).transpose()?,
            max_age: HeaderValue::from(conf.max_age),
            credentials: conf.allow_credential,
        })
    }
}

fn metadata_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "allow_origins": {
                "type": "object",
                "additionalProperties": {"type": "string", "pattern": ORIGINS}
            }
        }
    })
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("`{text}` can't be the value of a header"))
}

/// One expression for all rules; each must be one by itself.
fn regex(rules: Option<&[String]>) -> Result<Option<Pattern>, String> {
    let Some(rules) = rules else { return Ok(None) };
    for rule in rules {
        Pattern::new(rule)?;
    }
    Pattern::new(&rules.join("|")).map(Some)
}

/// The entries of the plugin metadata that are there.
fn named(names: &[String], metadata: &Value) -> Vec<Origins> {
    let entries: HashMap<String, String> =
        serde_json::from_value(metadata["allow_origins"].clone()).unwrap_or_default();
    names.iter().filter_map(|name| entries.get(name)).map(|text| Origins::new(text)).collect()
}

/// The origin the client sent: other plugins may change the header.
struct Asked(Option<String>);

impl Cors {
    fn by_metadata<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        let named = self.origins_by_metadata.as_ref()?;
        named.iter().any(|origins| lets_in(origin, origins.answer(origin))).then_some(origin).flatten()
    }

    /// What is told in `Access-Control-Allow-Origin`.
    fn allowed<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        let by_metadata = self.by_metadata(origin);
        let own_counts = match &self.origins_by_metadata {
            None => true,
            Some(_) => !lets_in(origin, by_metadata) && !self.origins.is_any(),
        };
        let mut told = by_metadata;
        if own_counts {
            told = match &self.origins_by_regex {
                None => self.origins.answer(origin),
                Some(regex) => matching(regex, origin),
            };
        }
        if lets_in(origin, told) { told } else { by_metadata }
    }

    fn timing_allowed<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        let told = match (&self.timing_by_regex, &self.timing) {
            (Some(regex), _) => matching(regex, origin),
            (None, Some(origins)) => origins.answer(origin),
            (None, None) => None,
        };
        told.filter(|_| lets_in(origin, told))
    }
}

fn matching<'a>(regex: &Pattern, origin: Option<&'a str>) -> Option<&'a str> {
    origin.filter(|origin| regex.is_match(origin))
}

impl Hooks for Cors {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let origin = ctx.request.headers.get(ORIGIN).map(|origin| byte_text::read(origin.as_bytes()));
        let origin = origin.map(Cow::into_owned);
        ctx.keep(Asked(origin));
        if ctx.request.method == Method::OPTIONS {
            return Reply::empty(StatusCode::OK).into();
        }
        Flow::Next.into()
    }

    fn header_filter(&self, ctx: &mut Ctx) {
        let origin = ctx.kept::<Asked>().and_then(|asked| asked.0.clone());
        let requested = ctx.request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let headers = &mut ctx.response.headers;
        if !self.origins.is_any() {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let told = self.allowed(origin.as_deref()).map(header::value);
        if let Some(told) = told {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, told);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            if let Some(expose) = &self.expose {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
            match self.headers.clone().or(requested) {
                Some(allowed) => drop(headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed)),
                None => drop(headers.remove(ACCESS_CONTROL_ALLOW_HEADERS)),
            }
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        let told = self.timing_allowed(origin.as_deref()).map(header::value);
        if let Some(told) = told {
            headers.insert(TIMING_ALLOW_ORIGIN, told);
        }
    }
}

#[cfg(test)]
mod tests;
