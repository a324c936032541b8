//! `response-rewrite`: changes a response on its way to the client: status, headers, body.
//!
//! The rule to know: a body that is replaced is never waited for; one that is filtered is held until it is whole, or
//! as long as it may be, and what comes after that is thrown away.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/response-rewrite/>.

mod conf;
mod headers;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Bytes, BytesMut};
use http::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED},
};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Hooks, Phase, Plugin},
    vars::Condition,
};
use serde_json::Value;

use crate::shared::{decode::Encoding, is_reference, substitution::Substitution};
use conf::{Conf, FilterConf, Scope};
use headers::Headers;

pub struct ResponseRewrite {
    /// For which responses.
    vars: Option<Condition>,
    status: Option<StatusCode>,
    headers: Headers,
    change: Change,
}

/// What becomes of the body.
enum Change {
    Nothing,
    Replace(Bytes),
    Filter { filters: Vec<Filter>, limit: usize },
}

struct Filter {
    substitution: Substitution,
    all: bool,
}

impl Plugin for ResponseRewrite {
    const NAME: &'static str = "response-rewrite";
    const PRIORITY: i32 = 899;
    const PHASES: &'static [Phase] = &[Phase::HeaderFilter, Phase::BodyFilter];

    type Conf = Conf;

    fn schema() -> Value {
        conf::schema()
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        let headers = conf.headers.map(Headers::new).transpose()?.unwrap_or_default();
        let body = match (conf.body, conf.body_base64) {
            (None, true) => return Err("invalid base64 content".into()),
            (Some(body), true) => Some(decoded(&body)?),
            (body, false) => body.map(Bytes::from),
        };
        let vars = conf.vars.as_ref().map(Condition::compile).transpose()?;
        let filters = conf.filters.map(|filters| filters.iter().map(Filter::new).collect()).transpose()?;
        Ok(Self {
            vars,
            status: conf
                .status_code
                .map(StatusCode::from_u16)
                .transpose()
                .map_err(|error| error.to_string())?,
            headers,
            change: match (filters, body) {
                (Some(filters), _) => Change::Filter { filters, limit: conf.max_resp_body_size },
                (None, Some(body)) => Change::Replace(body),
                (None, None) => Change::Nothing,
            },
        })
    }
}

fn decoded(body: &str) -> Result<Bytes, String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if is_reference(body) {
        return Ok(Bytes::new());
    }
    match LENIENT.decode(body) {
        Ok(bytes) if !body.is_empty() => Ok(bytes.into()),
        _ => Err("invalid base64 content".into()),
    }
}

impl Filter {
    fn new(conf: &FilterConf) -> Result<Self, String> {
        let substitution = Substitution::with_options(&conf.regex, &conf.options, &conf.replace)
            .map_err(|error| format!("regex \"{}\" validation failed: {error}", conf.regex))?;
        Ok(Self { substitution, all: conf.scope == Scope::Global })
    }
}

/// The body of one response on its way through one plugin.
struct Held {
    /// Whose: a global rule's and a route's are not the same.
    by: usize,
    encoding: Option<Encoding>,
    body: BytesMut,
    /// Whether all is said.
    done: bool,
}

impl ResponseRewrite {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn held<'a>(&self, ctx: &'a mut Ctx) -> Option<&'a mut Held> {
        let all = ctx.extensions.iter_mut().filter_map(|extension| extension.downcast_mut::<Held>());
        all.into_iter().find(|held| held.by == self.address())
    }

    /// Takes the body over: what the headers say of it is no longer true.
    fn take_body(&self, ctx: &mut Ctx) {
        let headers = &mut ctx.response.headers;
        let named = headers.get(CONTENT_ENCODING);
        let encoding = named.and_then(|name| Encoding::named(name.as_bytes()));
        if let (Some(name), None, Change::Filter { .. }) = (named, encoding, &self.change) {
            tracing::warn!(encoding = ?name, "response-rewrite: no filters for a body in this encoding");
            return;
        }
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, LAST_MODIFIED, ETAG] {
            headers.remove(name);
        }
        ctx.filter_body();
        ctx.keep(Held { by: self.address(), encoding, body: BytesMut::new(), done: false });
    }
}

impl Hooks for ResponseRewrite {
    fn header_filter(&self, ctx: &mut Ctx) {
        if self.vars.as_ref().is_some_and(|vars| !vars.holds(ctx)) {
            return;
        }
        if let Some(status) = self.status {
            ctx.response.status = status;
        }
        if !matches!(self.change, Change::Nothing) {
            self.take_body(ctx);
        }
        self.headers.apply(ctx);
    }

    fn body_filter(&self, ctx: &mut Ctx, chunk: &mut Bytes, last: bool) {
        let Some(held) = self.held(ctx) else { return };
        let piece = std::mem::take(chunk);
        if held.done {
            return;
        }
        match &self.change {
            Change::Nothing => *chunk = piece,
            Change::Replace(body) => {
                held.done = true;
                *chunk = body.clone();
            }
            Change::Filter { filters, limit } => {
                held.body.extend_from_slice(&piece);
                if last || held.body.len() >= *limit {
                    held.done = true;
                    held.body.truncate(*limit);
                    *chunk =
                        filtered(filters, std::mem::take(&mut held.body).freeze(), held.encoding, *limit);
                }
            }
        }
    }
}

fn filtered(filters: &[Filter], body: Bytes, encoding: Option<Encoding>, limit: usize) -> Bytes {
    let mut body = match encoding.map(|encoding| encoding.decode(&body, limit)) {
        None => body,
        Some(Ok(decoded)) => decoded.into(),
        Some(Err(error)) => {
            tracing::error!(%error, "response-rewrite: the body is not in the encoding it is said to be in");
            return body;
        }
    };
    for filter in filters {
        if let Some(replaced) = filter.substitution.replace(&body, filter.all) {
            body = replaced.into();
        }
    }
    body
}

#[cfg(test)]
mod tests;
