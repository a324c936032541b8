//! `key-auth`: a consumer is known by a key in a header or in the query.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/key-auth/>.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use proxy::{
    ctx::{Consumer, Ctx},
    plugin::{ConsumerSide, Env, Flow, Hooks, Phase, Plugin, Reply, Step},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shared::query;

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
    header: HeaderName,
    challenge: HeaderValue,
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
        let header = HeaderName::from_bytes(conf.header.as_bytes())
            .map_err(|_| format!("`{}` is not the name of a header", conf.header))?;
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
    fn authenticate(&self, ctx: &Ctx) -> Result<Arc<Consumer>, &'static str> {
        let from_header = ctx.request.headers.get(&self.header).and_then(|value| value.to_str().ok());
        let key = match from_header {
            Some(key) => key.into(),
            None => query::arg(&ctx.request, &self.conf.query).ok_or("Missing API key in request")?,
        };
        ctx.find_consumer(Self::NAME, &key).ok_or("Invalid API key in request")
    }

    fn refuse(&self, message: &str) -> Step<'static> {
        let mut reply = Reply::message(StatusCode::UNAUTHORIZED, message);
        reply.headers.insert(WWW_AUTHENTICATE, self.challenge.clone());
        reply.into()
    }

    fn hide(&self, ctx: &mut Ctx) {
        ctx.request.headers.remove(&self.header);
        query::remove_arg(&mut ctx.request, &self.conf.query);
    }
}

impl Hooks for KeyAuth {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let consumer = match (self.authenticate(ctx), &self.conf.anonymous_consumer) {
            (Ok(consumer), _) => consumer,
            (Err(message), None) => return self.refuse(message),
            (Err(_), Some(anonymous)) => match ctx.consumer_named(anonymous) {
                Some(consumer) => consumer,
                None => {
                    tracing::error!(consumer = anonymous, "key-auth: the anonymous consumer does not exist");
                    return self.refuse("Invalid user authorization");
                }
            },
        };
        if self.conf.hide_credentials {
            self.hide(ctx);
        }
        ctx.attach_consumer(consumer);
        Flow::Next.into()
    }
}
