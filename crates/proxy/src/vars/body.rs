//! What variables want of the request's body.
//!
//! The rule to know: a body is read only if a variable asked for it, and only as much as it may ask for. A variable
//! never waits: where the body is not there yet it has no value, and leaves a wish behind for the engine.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    convert::Infallible,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::ready, stream::once};
use http::{Method, header};
use model::byte_text;
use serde_json::{Map, Value};

use super::{
    graphql::{self, Operation},
    json,
};
use crate::ctx::Ctx;

/// What was asked about the body of one request, and answered.
#[derive(Default)]
pub struct Inquiry {
    /// Bytes wished for, at most.
    wish: Cell<u64>,
    /// The longest wish that was looked into.
    tried: u64,
    table: OnceCell<Option<Box<Value>>>,
    graphql: OnceCell<Option<Box<Operation>>>,
}

impl Inquiry {
    /// How much of the body to read before the question is put again.
    pub fn wanted(&self) -> Option<u64> {
        let wish = self.wish.get();
        (wish > self.tried).then_some(wish)
    }

    /// The body was read, or is longer than `limit`.
    pub fn tried(&mut self, limit: u64) {
        self.tried = limit;
    }
}

/// Wishes for the body, for conditions that will be looked at where nothing can be read any more.
pub fn wish(ctx: &Ctx) {
    let _ = text(ctx, ctx.plan.routing.most_body);
}

/// A field of a form, or what stands at a name or dotted path of a JSON document.
pub fn at<'a>(ctx: &'a Ctx, path: &str) -> Option<&'a Value> {
    let table = table(ctx)?;
    path.split('.').try_fold(table, |value, name| value.get(name))
}

/// A field of a form that is no document and has no files.
pub fn field<'a>(ctx: &'a Ctx, name: &str) -> Option<&'a Value> {
    if !kind(ctx)?.starts_with(FORM) {
        return None;
    }
    match table(ctx)?.get(name)? {
        Value::Array(several) => several.first(),
        one => Some(one),
    }
}

/// The body as a table, by its `Content-Type`.
pub fn table(ctx: &Ctx) -> Option<&Value> {
    let kind = kind(ctx)?;
    let known = [JSON, FORM, MULTIPART].into_iter().find(|known| kind.contains(known))?;
    let body = text(ctx, ctx.plan.routing.most_body)?;
    let read = || match known {
        JSON => json::read(body),
        FORM => Some(form(body)),
        _ => multipart(body, &kind),
    };
    ctx.inquiry.table.get_or_init(|| read().map(Box::new)).as_deref()
}

/// The GraphQL operation in the query or body.
pub fn operation(ctx: &Ctx) -> Option<&Operation> {
    let known = &ctx.inquiry.graphql;
    if known.get().is_none() {
        let document = document(ctx)?;
        return known.get_or_init(|| graphql::parse(&document).map(Box::new)).as_deref();
    }
    known.get()?.as_deref()
}

fn document(ctx: &Ctx) -> Option<Cow<'_, str>> {
    match ctx.request.method {
        Method::GET => Some(super::parameter(ctx.request.query(), "query")?.into_text()),
        Method::POST => {
            let body = text(ctx, ctx.plan.routing.most_graphql)?;
            if kind(ctx).is_none_or(|kind| kind != JSON) {
                return Some(String::from_utf8_lossy(body));
            }
            Some(json::read(body)?["query"].as_str()?.to_owned().into())
        }
        _ => None,
    }
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

/// The first `Content-Type`, whatever bytes it has beside those that we look for.
fn kind(ctx: &Ctx) -> Option<Cow<'_, str>> {
    let kind = ctx.request.headers.get(header::CONTENT_TYPE)?;
    Some(String::from_utf8_lossy(kind.as_bytes()))
}

/// The body, where it is there and no longer than `limit`.
fn text(ctx: &Ctx, limit: u64) -> Option<&Bytes> {
    if ctx.body.is_none() {
        let wish = &ctx.inquiry.wish;
        wish.set(wish.get().max(limit));
    }
    ctx.body.as_ref().filter(|body| body.len() as u64 <= limit)
}

/// Names with one value have it as a text, those with several as a list; one without `=` is `true`.
fn form(body: &[u8]) -> Value {
    let mut all = Map::new();
    for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (&pair[..at], Value::from(super::decoded(&pair[at + 1..]))),
            None => (pair, Value::Bool(true)),
        };
        match all.get_mut(&*super::decoded(name)) {
            None => drop(all.insert(super::decoded(name).into_owned(), value)),
            Some(Value::Array(several)) => several.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(all)
}

/// The parts by name, files included; of two with one name the last.
fn multipart(body: &Bytes, kind: &str) -> Option<Value> {
    let boundary = multer::parse_boundary(kind).ok()?;
    let mut parts = multer::Multipart::new(once(ready(Ok::<_, Infallible>(body.clone()))), boundary);
    let read = async {
        let mut all = Map::new();
        while let Ok(Some(part)) = parts.next_field().await {
            let Some(name) = part.name().map(str::to_owned) else { continue };
            let Ok(bytes) = part.bytes().await else { break };
            all.insert(name, byte_text::read(&bytes).into());
        }
        Value::Object(all)
    };
    // All of it is there: nothing is waited for.
    read.now_or_never()
}
