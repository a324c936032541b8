//! `kafka-proxy`: whom a client of an upstream of scheme `kafka` is to the brokers.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/kafka-proxy/>.

use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Step},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
pub struct Conf {
    sasl: Option<Sasl>,
}

#[derive(Debug, Deserialize)]
pub struct Sasl {
    username: String,
    password: String,
}

pub struct KafkaProxy(Option<Sasl>);

impl Plugin for KafkaProxy {
    const NAME: &'static str = "kafka-proxy";
    const PRIORITY: i32 = 508;
    const PHASES: &'static [Phase] = &[Phase::Access];
    const SECRETS: &'static [&'static str] = &["sasl.password"];

    type Conf = Conf;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "sasl": {
                    "description": "SASL/PLAIN towards the brokers",
                    "type": "object",
                    "properties": {
                        "username": {"type": "string"},
                        "password": {"type": "string"}
                    },
                    "required": ["username", "password"]
                }
            }
        })
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        Ok(Self(conf.sasl))
    }
}

impl Hooks for KafkaProxy {
    fn access<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        if let Some(Sasl { username, password }) = &self.0 {
            ctx.sasl = Some(Box::new((username.clone(), password.clone())));
        }
        Flow::Next.into()
    }
}
