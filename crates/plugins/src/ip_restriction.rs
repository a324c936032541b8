//! `ip-restriction`: lets addresses in, or keeps them out.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/ip-restriction/>.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::IpNet;
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Reply, Step},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
pub struct Conf {
    message: String,
    response_code: u16,
    whitelist: Option<Vec<String>>,
    blacklist: Option<Vec<String>>,
}

pub struct IpRestriction {
    allowed: Option<Vec<IpNet>>,
    denied: Option<Vec<IpNet>>,
    status: StatusCode,
    message: String,
}

impl Plugin for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const PRIORITY: i32 = 3000;
    const PHASES: &'static [Phase] = &[Phase::Preread, Phase::Access];
    const ON_STREAMS: bool = true;

    type Conf = Conf;

    fn schema() -> Value {
        let list = json!({"type": "array", "items": model::schema::ip(), "minItems": 1});
        json!({
            "type": "object",
            "properties": {
                "message": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "default": "Your IP address is not allowed"
                },
                "response_code": {"type": "integer", "minimum": 403, "maximum": 404, "default": 403},
                "whitelist": list,
                "blacklist": list
            },
            "oneOf": [{"required": ["whitelist"]}, {"required": ["blacklist"]}]
        })
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        Ok(Self {
            allowed: conf.whitelist.as_deref().map(nets).transpose()?,
            denied: conf.blacklist.as_deref().map(nets).transpose()?,
            status: StatusCode::from_u16(conf.response_code).map_err(|error| error.to_string())?,
            message: conf.message,
        })
    }
}

fn nets(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let net = |text: &String| {
        let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        parsed.ok_or_else(|| format!("invalid ip address: {text}"))
    };
    texts.iter().map(net).collect()
}

impl Hooks for IpRestriction {
    fn preread<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        self.restrict(ctx)
    }

    fn access<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        self.restrict(ctx)
    }
}

impl IpRestriction {
    fn restrict(&self, ctx: &Ctx) -> Step<'static> {
        let client = ctx.client.ip().to_canonical();
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        let blocked = match (&self.allowed, &self.denied) {
            (Some(allowed), _) => !among(allowed),
            (None, Some(denied)) => among(denied),
            (None, None) => false,
        };
        if blocked { Reply::message(self.status, &self.message).into() } else { Flow::Next.into() }
    }
}

#[cfg(test)]
mod tests;
