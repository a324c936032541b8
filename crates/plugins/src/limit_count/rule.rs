//! A limit: how many, in which time, told apart by what.

use std::borrow::Cow;

use http::HeaderName;
use proxy::{
    ctx::Ctx,
    vars::{Template, Var},
};
use serde_json::Value;

use super::{
    conf::{self, Conf, KeyType},
    counters::Quota,
};

/// A limit as configured.
pub struct Rule {
    key: Key,
    count: Amount,
    /// In seconds.
    window: Amount,
    headers: Headers,
}

/// A limit for one request.
pub struct Applied<'a> {
    pub key: String,
    pub quota: Quota,
    pub headers: &'a Headers,
}

/// The headers that tell the quota: limit, remaining, reset.
pub struct Headers(pub [HeaderName; 3]);

enum Key {
    Var(Var),
    Combination(Template),
    Constant(String),
    /// One that must be there for the rule to apply, and how it is written: rules whose keys come out the same for a
    /// request still count for themselves.
    Needed(Template, Box<str>),
}

/// [`conf::Amount`], understood.
enum Amount {
    Fixed(u64),
    Made(Template),
}

impl Rule {
    /// The rules of a configuration.
    pub fn all(conf: &Conf, metadata: &Value) -> Result<Vec<Self>, String> {
        if let (Some(count), Some(window)) = (&conf.count, &conf.time_window) {
            let key = match conf.key_type {
                KeyType::Var => Key::Var(Var::parse(&conf.key)),
                KeyType::VarCombination => Key::Combination(Template::new(&conf.key)),
                KeyType::Constant => Key::Constant(conf.key.clone()),
            };
            let headers = Headers::new(metadata, None)?;
            return Ok(vec![Self { key, count: Amount::new(count), window: Amount::new(window), headers }]);
        }
        let rules = conf.rules.iter().flatten().enumerate();
        rules
            .map(|(at, rule)| {
                let prefix = rule.header_prefix.clone().unwrap_or_else(|| (at + 1).to_string());
                Ok(Self {
                    key: Key::Needed(Template::new(&rule.key), rule.key.as_str().into()),
                    count: Amount::new(&rule.count),
                    window: Amount::new(&rule.time_window),
                    headers: Headers::new(metadata, Some(&prefix))?,
                })
            })
            .collect()
    }

    /// What it says of this request; none where it says nothing.
    pub fn apply(&self, ctx: &Ctx) -> Option<Result<Applied<'_>, String>> {
        let key = self.key.read(ctx)?.into_owned();
        let quota = self.count.read(ctx).and_then(|limit| {
            let window = self.window.read(ctx)?.saturating_mul(1000);
            Ok(Quota { limit, window })
        });
        Some(quota.map(|quota| Applied { key, quota, headers: &self.headers }))
    }
}

impl Key {
    fn read<'a>(&'a self, ctx: &'a Ctx) -> Option<Cow<'a, str>> {
        // Who has no key is told apart by the address.
        let address = || ctx.client.ip().to_string().into();
        match self {
            Self::Var(var) => Some(var.read(ctx).unwrap_or_else(address)),
            Self::Constant(key) => Some(key.into()),
            Self::Combination(template) => {
                let (key, found) = template.render_counted(ctx);
                Some(if found > 0 { key } else { address() })
            }
            Self::Needed(template, written) => {
                let (key, found) = template.render_counted(ctx);
                (found > 0).then(|| format!("{written}={key}").into())
            }
        }
    }
}

impl Amount {
    fn new(amount: &conf::Amount) -> Self {
        match amount {
            conf::Amount::Number(number) => Self::Fixed(*number),
            conf::Amount::Text(text) => Self::Made(Template::new(text)),
        }
    }

    fn read(&self, ctx: &Ctx) -> Result<u64, String> {
        match self {
            Self::Fixed(amount) => Ok(*amount),
            Self::Made(template) => {
                let text = template.render(ctx);
                whole(number(&text).ok_or("resolved value is not a number")?)
            }
        }
    }
}

/// A number as Lua reads it from a text.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let plain = text.strip_prefix('+').unwrap_or(text);
    match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok().map(f64::from),
        None => text.parse().ok(),
    }
}

/// A number that can be counted to.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked before")]
pub fn whole(value: f64) -> Result<u64, String> {
    /// Above it, floating point numbers are no longer exact.
    const MOST: f64 = 9_007_199_254_740_991.0;
    if value.is_nan() || value <= 0.0 {
        return Err(format!("resolved value must be a positive number, got: {value}"));
    }
    if value.fract() != 0.0 {
        return Err(format!("resolved value must be an integer, got: {value}"));
    }
    if value > MOST {
        return Err(format!("resolved value exceeds safe integer range (2^53-1), got: {value}"));
    }
    Ok(value as u64)
}

impl Headers {
    fn new(metadata: &Value, prefix: Option<&str>) -> Result<Self, String> {
        let name = |key: &str, default: &str| {
            let mut name = metadata[key].as_str().unwrap_or(default).to_owned();
            if let Some(prefix) = prefix {
                name = name.replacen("RateLimit-", &format!("{prefix}-RateLimit-"), 1);
            }
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("`{name}` is not the name of a header"))
        };
        Ok(Self([
            name("limit_header", "X-RateLimit-Limit")?,
            name("remaining_header", "X-RateLimit-Remaining")?,
            name("reset_header", "X-RateLimit-Reset")?,
        ]))
    }
}
