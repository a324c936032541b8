//! What `response-rewrite` does to headers: add, then set, then remove.

use http::{
    HeaderName, HeaderValue,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use proxy::{ctx::Ctx, vars::Template};
use serde_json::{Map, Value};

use crate::shared::header;

#[derive(Default)]
pub struct Headers {
    add: Vec<(HeaderName, Template)>,
    set: Vec<(HeaderName, Template)>,
    remove: Vec<HeaderName>,
}

impl Headers {
    /// Reads both forms: `{"add": …, "set": …, "remove": …}` and `{"name": "value"}`.
    pub fn new(conf: Map<String, Value>) -> Result<Self, String> {
        if header::is_short(&conf) {
            header::check(&conf)?;
            return Ok(Self { set: set(conf)?, ..Self::default() }.without_framing());
        }
        let mut headers = Self::default();
        for (key, value) in conf {
            match (&*key, value) {
                ("add", Value::Array(lines)) => headers.add = add(&lines),
                ("set", Value::Object(named)) => headers.set = set(named)?,
                ("remove", Value::Array(names)) => {
                    let names = names.iter().filter_map(Value::as_str);
                    headers.remove = names.map(header::name).collect::<Result<_, _>>()?;
                }
                _ => {}
            }
        }
        Ok(headers.without_framing())
    }

    /// Where a body ends is not theirs to say: whoever sends it knows.
    fn without_framing(mut self) -> Self {
        let is_framing = |name: &HeaderName| [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
        for list in [&mut self.add, &mut self.set] {
            list.retain(|(name, _)| {
                let stays = !is_framing(name);
                if !stays {
                    tracing::warn!(%name, "response-rewrite: a header that frames the body is passed over");
                }
                stays
            });
        }
        self
    }

    pub fn apply(&self, ctx: &mut Ctx) {
        for (name, value) in &self.add {
            let value = rendered(value, ctx);
            ctx.response.headers.append(name, value);
        }
        for (name, value) in &self.set {
            let value = rendered(value, ctx);
            header::set(&mut ctx.response.headers, name, value);
        }
        for name in &self.remove {
            ctx.response.headers.remove(name);
        }
    }
}

fn rendered(value: &Template, ctx: &Ctx) -> HeaderValue {
    header::value(&value.render(ctx))
}

/// As in APISIX: of `add`, any line that is not one counts for none.
fn add(lines: &[Value]) -> Vec<(HeaderName, Template)> {
    let one = |line: &Value| {
        let (name, value) = line.as_str()?.split_once(':')?;
        let value = value.trim_start();
        let name = header::name(name.trim_end()).ok()?;
        (!value.is_empty() && !value.contains(':')).then(|| (name, Template::new(value)))
    };
    let added: Option<Vec<_>> = lines.iter().map(one).collect();
    added.unwrap_or_else(|| {
        tracing::error!(?lines, "response-rewrite: not all of the headers to add are `name: value`");
        Vec::new()
    })
}

fn set(named: Map<String, Value>) -> Result<Vec<(HeaderName, Template)>, String> {
    let one =
        |(field, value): (String, Value)| Ok((header::name(&field)?, Template::new(&header::text(value)?)));
    named.into_iter().map(one).collect()
}
