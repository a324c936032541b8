//! `limit-count`: so many requests in so much time, for whatever a key tells apart.
//!
//! The rule to know: a counter belongs to the resource that has the plugin and to the plugin's own configuration. It
//! survives every other change, and a reload.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/limit-count/>.

mod conf;
mod counters;
mod rule;

use std::{
    hash::{BuildHasher as _, BuildHasherDefault},
    sync::Arc,
};

use http::{HeaderValue, StatusCode};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Reply, Step},
};
use rustc_hash::FxHasher;
use serde_json::{Value, json};

use conf::{Conf, WindowType};
use counters::{Counters, Taken};
use rule::{Applied, Rule};

pub struct LimitCount {
    rules: Vec<Rule>,
    /// What the counters' keys begin with.
    scope: Scope,
    window: WindowType,
    rejection: (StatusCode, Option<String>),
    degrades: bool,
    tells: bool,
    counters: Arc<Counters>,
}

/// Whose counters they are.
struct Scope {
    /// As it is logged.
    name: String,
    /// Where groups are configured in several ways, each counts for itself.
    unique: String,
}

impl Scope {
    fn new(conf: &Conf, resource: &str) -> Result<Self, String> {
        let text = serde_json::to_string(conf).map_err(|error| error.to_string())?;
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(text);
        // APISIX's are CRCs; all that is known of them is that they are 32 bits.
        let version = (hash >> 32) as u32;
        let name = match &conf.group {
            Some(group) => group.clone(),
            None => format!("/apisix/{resource}:{version}"),
        };
        Ok(Self { unique: format!("{name}#{hash}"), name })
    }
}

impl Plugin for LimitCount {
    const NAME: &'static str = "limit-count";
    const PRIORITY: i32 = 1002;
    const PHASES: &'static [Phase] = &[Phase::Access];
    const SECRETS: &'static [&'static str] = &["redis_password", "sentinel_password"];
    const METADATA_SCHEMA: Option<fn() -> Value> = Some(conf::metadata_schema);

    type Conf = Conf;

    fn schema() -> Value {
        conf::schema()
    }

    fn new(conf: Conf, env: &Env<'_>) -> Result<Self, String> {
        conf.check()?;
        Ok(Self {
            rules: Rule::all(&conf, env.metadata)?,
            scope: Scope::new(&conf, env.resource)?,
            window: conf.window_type,
            rejection: (
                StatusCode::from_u16(conf.rejected_code).map_err(|error| error.to_string())?,
                conf.rejected_msg,
            ),
            degrades: conf.allow_degradation,
            tells: conf.show_limit_quota_header,
            counters: env.lasting.get_or("limit-count", Counters::default),
        })
    }
}

impl LimitCount {
    /// The rules that apply to this request.
    fn applied(&self, ctx: &Ctx) -> Result<Vec<Applied<'_>>, String> {
        let applied: Vec<_> =
            self.rules.iter().filter_map(|rule| rule.apply(ctx)).collect::<Result<_, _>>()?;
        if applied.is_empty() { Err("no rule applies".into()) } else { Ok(applied) }
    }

    /// Counts the request under one rule; true: it is one too many.
    fn exceeds(&self, rule: &Applied<'_>, ctx: &mut Ctx) -> bool {
        let now = counters::now();
        let taken = match self.window {
            WindowType::Fixed => self.counters.fixed(&self.scope.unique, &rule.key, rule.quota, now),
            WindowType::Sliding => self.counters.sliding(&self.scope.unique, &rule.key, rule.quota, now),
        };
        ctx.set_var("rate_limiting_info", self.info(rule, taken));
        if self.tells {
            let [limit, remaining, reset] = &rule.headers.0;
            ctx.preset.insert(limit, rule.quota.limit.into());
            ctx.preset.insert(remaining, taken.remaining.unwrap_or(0).into());
            ctx.preset.insert(reset, seconds(taken.reset));
        }
        taken.remaining.is_none()
    }

    /// What an access log may tell of it.
    fn info(&self, rule: &Applied<'_>, taken: Taken) -> String {
        let key = Value::from(format!("{}:{}", self.scope.name, rule.key));
        format!(
            "{{\"rate_limiting_key\":{key},\"rate_limiting_limit\":{},\"rate_limiting_remaining\":{},\
             \"rate_limiting_reset\":{}}}",
            rule.quota.limit,
            taken.remaining.unwrap_or(0),
            taken.reset / 100
        )
    }

    fn reject(&self) -> Reply {
        match &self.rejection {
            (status, Some(message)) => Reply::json(*status, &json!({ "error_msg": message })),
            (status, None) => Reply::empty(*status),
        }
    }
}

/// Hundredths of a second as Lua writes them in seconds: `60`, `59.9`, `0.05`.
fn seconds(hundredths: u64) -> HeaderValue {
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let text = match (rest, rest % 10) {
        (0, _) => return HeaderValue::from(whole),
        (_, 0) => format!("{whole}.{}", rest / 10),
        _ => format!("{whole}.{rest:02}"),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from(whole))
}

impl Hooks for LimitCount {
    fn access<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let applied = match self.applied(ctx) {
            Ok(applied) => applied,
            Err(reason) => {
                tracing::error!(reason, route = ctx.route_id(), "limit-count: can't tell the limit");
                return if self.degrades {
                    Flow::Next.into()
                } else {
                    Reply::empty(StatusCode::INTERNAL_SERVER_ERROR).into()
                };
            }
        };
        if applied.iter().any(|rule| self.exceeds(rule, ctx)) {
            self.reject().into()
        } else {
            Flow::Next.into()
        }
    }
}

#[cfg(test)]
mod tests;
