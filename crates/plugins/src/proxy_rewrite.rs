//! `proxy-rewrite`: changes a request on its way to the upstream: URI, method, host, headers.
//!
//! The rule to know: the new URI begins with the path in its normal form and is encoded again; the client's query is
//! added at the end. Only `use_real_request_uri_unsafe` passes on what the client wrote.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/proxy-rewrite/>.

mod conf;
mod headers;

use http::{HeaderValue, Method};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Step},
    vars::Template,
};
use serde_json::Value;

use crate::shared::{escape, is_reference, substitution::Substitution};
use conf::Conf;
use headers::{Captures, Headers};

pub struct ProxyRewrite {
    uri: Uri,
    method: Option<Method>,
    host: Option<HeaderValue>,
    headers: Headers,
    /// Begins with the URI as the client wrote it.
    real_uri: bool,
}

/// Where the new URI comes from.
enum Uri {
    Same,
    Template(Template),
    /// The first that matches.
    Regex(Vec<Substitution>),
}

impl Plugin for ProxyRewrite {
    const NAME: &'static str = "proxy-rewrite";
    const PRIORITY: i32 = 1008;
    const PHASES: &'static [Phase] = &[Phase::Rewrite];

    type Conf = Conf;

    fn schema() -> Value {
        conf::schema()
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        let substitutions = conf.regex_uri.as_deref().map(substitutions).transpose()?;
        let method = conf.method.map(|name| Method::from_bytes(name.as_bytes())).transpose();
        let host = conf.host.map(|host| HeaderValue::from_str(&host)).transpose();
        Ok(Self {
            uri: match (conf.uri, substitutions) {
                (Some(uri), _) => Uri::Template(Template::new(&uri)),
                (None, Some(substitutions)) => Uri::Regex(substitutions),
                (None, None) => Uri::Same,
            },
            method: method.map_err(|error| error.to_string())?,
            host: host.map_err(|error| error.to_string())?,
            headers: conf.headers.map(Headers::new).transpose()?.unwrap_or_default(),
            real_uri: conf.use_real_request_uri_unsafe,
        })
    }
}

fn substitutions(regex_uri: &[String]) -> Result<Vec<Substitution>, String> {
    let (pairs, rest) = regex_uri.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("The length of regex_uri should be an even number".into());
    }
    let one = |[pattern, replacement]: &[String; 2]| {
        let known = if is_reference(replacement) { "" } else { replacement };
        Substitution::new(pattern, known)
            .map_err(|error| format!("invalid regex_uri({pattern}, {replacement}): {error}"))
    };
    pairs.iter().filter(|[pattern, _]| !is_reference(pattern)).map(one).collect()
}

/// A URI in the making.
struct Made {
    uri: String,
    /// Whether its first `?` begins a query. One that the client's path had, decoded, does not.
    has_query: bool,
    captures: Option<Captures>,
}

impl ProxyRewrite {
    fn make(&self, ctx: &Ctx) -> Made {
        let from = if self.real_uri { ctx.request.target() } else { ctx.request.path() };
        match &self.uri {
            Uri::Same => Made { uri: from.to_owned(), has_query: false, captures: None },
            Uri::Template(template) => {
                let mut uri = String::with_capacity(from.len() + 32);
                template.render_with(ctx, &mut uri, |uri, value| {
                    uri.push_str(&value.unwrap_or_default().replacen('?', "%3F", 1));
                });
                Made { uri, has_query: true, captures: None }
            }
            Uri::Regex(substitutions) => {
                let has_query = !from.contains('?');
                match substitutions.iter().find_map(|substitution| substitution.first(from)) {
                    Some((uri, captures)) => Made { uri, has_query, captures: Some(Captures(captures)) },
                    None => Made { uri: from.to_owned(), has_query, captures: None },
                }
            }
        }
    }

    /// The new URI with the client's query, encoded.
    fn finish(&self, ctx: &Ctx, made: &Made) -> String {
        if self.real_uri {
            let query = ctx.request.target().split_once('?').map(|(_, query)| query);
            let added = query.filter(|_| matches!(self.uri, Uri::Template(_)));
            return escape::uri(&with_query(&made.uri, made.uri.contains('?'), added)).into_owned();
        }
        let query_at = made.uri.find('?').filter(|_| made.has_query);
        let (path, query) = made.uri.split_at(query_at.unwrap_or(made.uri.len()));
        let uri = format!("{}{}", escape::path(path), escape::uri(query));
        let added = Some(ctx.request.query()).filter(|query| !query.is_empty());
        with_query(&uri, query_at.is_some(), added)
    }
}

fn with_query(uri: &str, has_query: bool, added: Option<&str>) -> String {
    match added {
        Some(query) => format!("{uri}{}{query}", if has_query { '&' } else { '?' }),
        None => uri.to_owned(),
    }
}

impl Hooks for ProxyRewrite {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        if let Some(host) = &self.host {
            ctx.upstream_host = Some(host.clone());
        }
        let made = self.make(ctx);
        let mut target = self.finish(ctx, &made);
        if !target.starts_with('/') {
            // A target is a path, whatever an expression made of it.
            target.insert(0, '/');
        }
        ctx.request.upstream_target = Some(target);
        if let Some(captures) = made.captures {
            ctx.keep(captures);
        }
        self.headers.apply(ctx);
        if let Some(method) = &self.method {
            ctx.request.method = method.clone();
        }
        Flow::Next.into()
    }
}

#[cfg(test)]
mod tests;
