//! What a plugin is. A file in `plugins/` says one; `chain.rs` runs them.
//!
//! The rule to know: a plugin is built once for a route, when configuration changes, and shared by all requests.
//! What it keeps between configurations (counters) it asks of [`Env::lasting`]; what it keeps for one request it
//! puts into the [`Ctx`].

use std::{any::Any, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use model::PluginFacts;
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::Value;

use crate::{ctx::Ctx, lasting::Lasting};

/// When a hook runs. As in APISIX, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Of a TCP or UDP session, which has no other but this and log.
    Preread,
    Rewrite,
    Access,
    BeforeProxy,
    HeaderFilter,
    BodyFilter,
    Log,
}

impl Phase {
    /// APISIX's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preread => "preread",
            Self::Rewrite => "rewrite",
            Self::Access => "access",
            Self::BeforeProxy => "before_proxy",
            Self::HeaderFilter => "header_filter",
            Self::BodyFilter => "body_filter",
            Self::Log => "log",
        }
    }
}

/// What a plugin is called, what it takes, and how it is made.
pub trait Plugin: Hooks + Sized {
    /// APISIX's name.
    const NAME: &'static str;
    /// APISIX's number: higher runs first.
    const PRIORITY: i32;
    /// The hooks it implements; the others are never called.
    const PHASES: &'static [Phase];
    /// Fields kept encrypted in the store, dots between levels.
    const SECRETS: &'static [&'static str] = &[];
    /// Set by authentication plugins: what they keep on consumers.
    const CONSUMER: Option<ConsumerSide> = None;
    /// Set by plugins of which a global rule's is left out where the route has its own (APISIX's `prefer_route`).
    const PREFER_ROUTE: bool = false;
    /// Set by plugins that stream routes may have: they get TCP and UDP sessions in preread and log.
    const ON_STREAMS: bool = false;
    /// Set by plugins that have plugin metadata.
    const METADATA_SCHEMA: Option<fn() -> Value> = None;

    type Conf: DeserializeOwned;

    /// JSON Schema of the configuration as APISIX documents it, defaults included. A configuration is checked
    /// against it and filled with its defaults before [`Plugin::new`] sees it.
    fn schema() -> Value;

    /// Prepares it for one route. Runs when configuration changes, never per request; no I/O.
    fn new(conf: Self::Conf, env: &Env<'_>) -> Result<Self, String>;
}

/// What an authentication plugin keeps on a consumer.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerSide {
    /// JSON Schema of the plugin's part of a consumer or credential.
    pub schema: fn() -> Value,
    /// The value a request is recognised by: the key of key-auth, the user name of basic-auth.
    pub key: fn(&Value) -> Option<&str>,
}

/// The hooks of a plugin. Each gets the request on its way; none sees a socket.
///
/// A hook that never waits returns `Flow::Next.into()` and costs no allocation; one that does I/O returns
/// `Step::Wait(Box::pin(async move { … }))`.
pub trait Hooks: Send + Sync + 'static {
    /// A TCP or UDP session, before anything of it is passed on. What is answered ends it; the client gets none of
    /// that but the end.
    fn preread<'a>(&'a self, _ctx: &'a mut Ctx) -> Step<'a> {
        Flow::Next.into()
    }
    fn rewrite<'a>(&'a self, _ctx: &'a mut Ctx) -> Step<'a> {
        Flow::Next.into()
    }
    fn access<'a>(&'a self, _ctx: &'a mut Ctx) -> Step<'a> {
        Flow::Next.into()
    }
    /// After the upstream node is chosen, before the request is sent.
    fn before_proxy<'a>(&'a self, _ctx: &'a mut Ctx) -> Step<'a> {
        Flow::Next.into()
    }
    /// The response head, from the upstream or of our own making, before it is sent: `ctx.response`.
    fn header_filter(&self, _ctx: &mut Ctx) {}
    /// A piece of the response body; `last` with the final one, which may be empty. Called only where
    /// `header_filter` asked for it with [`Ctx::filter_body`].
    fn body_filter(&self, _ctx: &mut Ctx, _chunk: &mut Bytes, _last: bool) {}
    /// After the response has been sent, or the client has gone.
    fn log(&self, _ctx: &Ctx) {}
}

/// What a hook answers: now, or after waiting.
pub enum Step<'a> {
    Done(Flow),
    Wait(Pin<Box<dyn Future<Output = Flow> + 'a>>),
}

impl From<Flow> for Step<'_> {
    fn from(flow: Flow) -> Self {
        Step::Done(flow)
    }
}

impl From<Reply> for Step<'_> {
    fn from(reply: Reply) -> Self {
        Step::Done(Flow::Reply(reply))
    }
}

/// Whether the request goes on.
#[derive(Debug)]
pub enum Flow {
    Next,
    /// The gateway answers by itself; rewrite and access end here, header_filter and later still run.
    Reply(Reply),
}

/// An answer of the gateway's own.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        let mut reply = Self { status, headers: HeaderMap::new(), body: Bytes::from(format!("{body}\n")) };
        reply.headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        reply
    }

    /// APISIX's answer to what a plugin refuses: `{"message":"…"}`.
    pub fn message(status: StatusCode, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "message": message }))
    }
}

/// What a plugin may ask for while it is built.
pub struct Env<'a> {
    /// What outlives a plan: counters, shared tables.
    pub lasting: &'a Lasting,
    /// `plugin_attr.<name>` of `config.yaml` and instance configuration, or null.
    pub attr: &'a Value,
    /// The plugin metadata of this plugin, or null.
    pub metadata: &'a Value,
    /// The resource it is built for: `routes/1`; the key under which limits count.
    pub resource: &'a str,
}

/// A plugin built for one place, with `_meta` applied.
pub type Built = Arc<dyn Hooks>;

/// Everything there is to know of a plugin, as a constant.
#[derive(Clone, Copy)]
pub struct Spec {
    pub facts: PluginFacts,
    pub phases: &'static [Phase],
    pub consumer: Option<ConsumerSide>,
    pub prefer_route: bool,
    pub on_streams: bool,
    /// Builds from a configuration that has its defaults.
    pub build: fn(&Value, &Env<'_>) -> Result<Built, String>,
}

impl Spec {
    /// The constant that stands for plugin `P` in a list of plugins.
    pub const fn of<P: Plugin>() -> Self {
        Self {
            facts: PluginFacts {
                name: P::NAME,
                priority: P::PRIORITY,
                schema: P::schema,
                consumer_schema: match P::CONSUMER {
                    Some(side) => Some(side.schema),
                    None => None,
                },
                metadata_schema: P::METADATA_SCHEMA,
                secrets: P::SECRETS,
                check: check::<P>,
            },
            phases: P::PHASES,
            consumer: P::CONSUMER,
            prefer_route: P::PREFER_ROUTE,
            on_streams: P::ON_STREAMS,
            build: build::<P>,
        }
    }
}

fn build<P: Plugin>(conf: &Value, env: &Env<'_>) -> Result<Built, String> {
    let conf = P::Conf::deserialize(conf).map_err(|e| e.to_string())?;
    Ok(Arc::new(P::new(conf, env)?))
}

fn check<P: Plugin>(conf: &Value) -> Result<(), String> {
    let env =
        Env { lasting: &Lasting::default(), attr: &Value::Null, metadata: &Value::Null, resource: "check" };
    build::<P>(conf, &env).map(drop)
}

/// Something a plugin keeps for one request, found again by its type.
pub type Extension = Box<dyn Any + Send>;
