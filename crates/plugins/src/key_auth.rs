//! `key-auth`: a consumer is known by a key in a header or in the query.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/key-auth/>.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use model::byte_text;
use proxy::{
    ctx::{Consumer, Ctx},
    plugin::{ConsumerSide, Env, Flow, Hooks, Phase, Plugin, Reply, Step},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::query::{self, Arg};

#[derive(Debug, Deserialize)]
pub struct Conf {
    header: String,
    query: String,
    realm: String,
    hide_credentials: bool,
    anonymous_consumer: Option<String>,
}

pub struct KeyAuth {
    conf: Conf,
    /// None where its name is none of a header's: no request has it.
    header: Option<HeaderName>,
    challenge: HeaderValue,
}

/// Where a request has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    InHeader,
    InQuery,
}

impl Plugin for KeyAuth {
    const NAME: &'static str = "key-auth";
    const PRIORITY: i32 = 2500;
    const PHASES: &'static [Phase] = &[Phase::Rewrite];
    const SECRETS: &'static [&'static str] = &["key"];
    const CONSUMER: Option<ConsumerSide> =
        Some(ConsumerSide { schema: consumer_schema, key: |conf| conf["key"].as_str() });

    type Conf = Conf;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "header": {"type": "string", "default": "apikey"},
                "query": {"type": "string", "default": "apikey"},
                "realm": {
                    "type": "string",
                    "pattern": "^[\\x20-\\x21\\x23-\\x5B\\]-\\x7E]+$",
                    "default": "key",
                    "minLength": 1,
                    "maxLength": 128
                },
                "hide_credentials": {"type": "boolean", "default": false},
                "anonymous_consumer": {"type": "string", "minLength": 1}
            }
        })
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        let header = HeaderName::from_bytes(conf.header.as_bytes()).ok();
        let challenge = HeaderValue::from_str(&format!("apikey realm=\"{}\"", conf.realm))
            .map_err(|_| format!("`{}` can't be a realm", conf.realm))?;
        Ok(Self { conf, header, challenge })
    }
}

fn consumer_schema() -> Value {
    json!({
        "type": "object",
        "properties": {"key": {"type": "string"}},
        "encrypt_fields": ["key"],
        "required": ["key"]
    })
}

impl KeyAuth {
    /// Who sent the request, by the key in it. One that is there, but not as one text, is nobody's.
    fn authenticate(&self, ctx: &Ctx) -> Result<(Arc<Consumer>, Found), &'static str> {
        const INVALID: &str = "Invalid API key in request";
        let header = self.header.as_ref().and_then(|name| ctx.request.headers.get(name));
        let (key, found) = match (header, query::arg(&ctx.request, &self.conf.query)) {
            (Some(value), _) => (byte_text::read(value.as_bytes()), Found::InHeader),
            (None, Arg::One(key)) => (key, Found::InQuery),
            (None, Arg::Other) => return Err(INVALID),
            (None, Arg::Absent) => return Err("Missing API key in request"),
        };
        ctx.find_consumer(Self::NAME, &key).map(|consumer| (consumer, found)).ok_or(INVALID)
    }

    fn refuse(&self, message: &str) -> Step<'static> {
        let mut reply = Reply::message(StatusCode::UNAUTHORIZED, message);
        reply.headers.insert(WWW_AUTHENTICATE, self.challenge.clone());
        reply.into()
    }

    /// Keeps the key from the upstream, wherever it is one.
    fn hide(&self, ctx: &mut Ctx, places: &[Found]) {
        if !self.conf.hide_credentials {
            return;
        }
        if let Some(name) = self.header.as_ref().filter(|_| places.contains(&Found::InHeader)) {
            ctx.request.headers.remove(name);
        }
        if places.contains(&Found::InQuery) {
            query::remove_arg(&mut ctx.request, &self.conf.query);
        }
    }
}

impl Hooks for KeyAuth {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let consumer = match (self.authenticate(ctx), &self.conf.anonymous_consumer) {
            (Ok((consumer, found)), _) => {
                self.hide(ctx, &[found]);
                consumer
            }
            (Err(message), None) => return self.refuse(message),
            (Err(_), Some(anonymous)) => {
                self.hide(ctx, &[Found::InHeader, Found::InQuery]);
                let Some(consumer) = ctx.consumer_named(anonymous) else {
                    tracing::error!(consumer = anonymous, "key-auth: the anonymous consumer does not exist");
                    return self.refuse("Invalid user authorization");
                };
                consumer
            }
        };
        ctx.attach_consumer(consumer);
        Flow::Next.into()
    }
}

#[cfg(test)]
mod tests;
