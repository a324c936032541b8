//! `request-id`: gives each request an id that client, gateway and upstream share.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/request-id/>.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use proxy::{
    ctx::Ctx,
    plugin::{Env, Flow, Hooks, Phase, Plugin, Step},
};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// APISIX's default characters of a `range_id`.
const CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIGKLMNOPQRSTUVWXYZ0123456789";
/// nanoid's alphabet and length.
const NANOID: &[u8; 64] = b"-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const NANOID_LENGTH: usize = 21;

#[derive(Debug, Deserialize)]
pub struct Conf {
    header_name: String,
    include_in_response: bool,
    algorithm: Algorithm,
    range_id: Range,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Uuid,
    Nanoid,
    RangeId,
    Ksuid,
    #[serde(rename = "uuidv7")]
    UuidV7,
}

#[derive(Debug, Deserialize)]
struct Range {
    length: usize,
    char_set: String,
}

pub struct RequestId {
    header: HeaderName,
    include_in_response: bool,
    algorithm: Algorithm,
    length: usize,
    characters: Vec<char>,
}

/// Ids by the header they are in, kept for the response: a global rule and a route may each give one.
struct Given(Vec<(HeaderName, HeaderValue)>);

impl Plugin for RequestId {
    const NAME: &'static str = "request-id";
    const PRIORITY: i32 = 12015;
    const PHASES: &'static [Phase] = &[Phase::Rewrite, Phase::HeaderFilter];

    type Conf = Conf;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "header_name": {"type": "string", "default": "X-Request-Id"},
                "include_in_response": {"type": "boolean", "default": true},
                "algorithm": {
                    "type": "string",
                    "enum": ["uuid", "nanoid", "range_id", "ksuid", "uuidv7"],
                    "default": "uuid"
                },
                "range_id": {
                    "type": "object",
                    "properties": {
                        "length": {"type": "integer", "minimum": 6, "default": 16},
                        "char_set": {"type": "string", "minLength": 6, "default": CHARACTERS}
                    },
                    "default": {"length": 16, "char_set": CHARACTERS}
                }
            }
        })
    }

    fn new(conf: Conf, _: &Env<'_>) -> Result<Self, String> {
        let header = HeaderName::from_bytes(conf.header_name.as_bytes())
            .map_err(|_| format!("`{}` is not the name of a header", conf.header_name))?;
        Ok(Self {
            header,
            include_in_response: conf.include_in_response,
            algorithm: conf.algorithm,
            length: conf.range_id.length,
            characters: conf.range_id.char_set.chars().collect(),
        })
    }
}

impl RequestId {
    fn make(&self) -> String {
        let mut random = rand::rng();
        match self.algorithm {
            Algorithm::Uuid => Uuid::new_v4().to_string(),
            Algorithm::UuidV7 => Uuid::now_v7().to_string(),
            Algorithm::Nanoid => {
                (0..NANOID_LENGTH).map(|_| char::from(NANOID[random.random_range(0..NANOID.len())])).collect()
            }
            Algorithm::RangeId => {
                let pick = |_| self.characters[random.random_range(0..self.characters.len())];
                (0..self.length).map(pick).collect()
            }
            Algorithm::Ksuid => ksuid(SystemTime::now(), random.random()),
        }
    }
}

/// Segment's K-sortable id: seconds since its epoch and 128 random bits, in base 62.
fn ksuid(now: SystemTime, payload: [u8; 16]) -> String {
    const EPOCH: u64 = 1_400_000_000;
    const LENGTH: usize = 27;
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).saturating_sub(EPOCH);
    // The epoch's 32 bits last until 2150.
    let stamp = u32::try_from(seconds).unwrap_or(u32::MAX);
    let mut number = [0_u8; 20];
    number[..4].copy_from_slice(&stamp.to_be_bytes());
    number[4..].copy_from_slice(&payload);
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    text.iter().map(|digit| char::from(*digit)).collect()
}

impl Hooks for RequestId {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        let sent = ctx.request.headers.get(&self.header).filter(|value| !value.is_empty()).cloned();
        let id = match sent {
            Some(id) => id,
            None => {
                let Ok(id) = HeaderValue::from_str(&self.make()) else { return Flow::Next.into() };
                ctx.request.headers.insert(self.header.clone(), id.clone());
                id
            }
        };
        ctx.request_id = id.to_str().ok().map(str::to_owned);
        if self.include_in_response {
            let given = (self.header.clone(), id);
            match ctx.kept_mut::<Given>() {
                Some(all) => all.0.push(given),
                None => ctx.keep(Given(vec![given])),
            }
        }
        Flow::Next.into()
    }

    fn header_filter(&self, ctx: &mut Ctx) {
        let missing = ctx.response.headers.get(&self.header).is_none_or(HeaderValue::is_empty);
        if !self.include_in_response || !missing {
            return;
        }
        let given =
            ctx.kept::<Given>().and_then(|all| all.0.iter().rev().find(|given| given.0 == self.header));
        if let Some(id) = given.map(|(_, id)| id.clone()) {
            ctx.response.headers.insert(self.header.clone(), id);
        }
    }
}

#[cfg(test)]
mod tests;
