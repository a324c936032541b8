//! What a variable is asked by one operator and its value.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::{Operand, text};
use crate::pattern::Pattern;

/// What a variable is asked.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Absent,
    Is(Box<str>),
    Equals(f64),
    Flag(bool),
    Above(f64),
    AtLeast(f64),
    Below(f64),
    AtMost(f64),
    Matches(Pattern),
    In(Box<[Value]>),
    Has(Value),
    Within(Box<[IpNet]>),
    /// A comparison that never holds, such as with a list.
    Never,
}

impl Test {
    pub fn new(operator: &str, value: &Value) -> Result<Self, String> {
        let than = |test: fn(f64) -> Self| Operand::from(value).number().map_or(Self::Never, test);
        Ok(match operator {
            // `~=` is the opposite of `==` also where the variable is absent or no number.
            "==" | "~=" => match value {
                Value::Null => Self::Absent,
                Value::String(text) => Self::Is(text.as_str().into()),
                Value::Number(n) => n.as_f64().map_or(Self::Never, Self::Equals),
                Value::Bool(flag) => Self::Flag(*flag),
                Value::Array(_) | Value::Object(_) => Self::Never,
            },
            ">" => than(Self::Above),
            ">=" => than(Self::AtLeast),
            "<" => than(Self::Below),
            "<=" => than(Self::AtMost),
            "~~" => Self::Matches(Pattern::new(&pattern(value)?)?),
            "~*" => Self::Matches(Pattern::ignoring_case(&pattern(value)?)?),
            "in" => Self::In(value.as_array().map(Vec::as_slice).unwrap_or_default().into()),
            "has" => Self::Has(value.clone()),
            "ipmatch" => Self::Within(networks(value)?),
            _ => return Err(format!("invalid operator '{operator}'")),
        })
    }

    pub fn passes(&self, value: Option<&Operand<'_>>) -> bool {
        let Some(value) = value else { return matches!(self, Self::Absent) };
        let is =
            |compare: fn(&f64, &f64) -> bool, with: &f64| value.number().is_some_and(|n| compare(&n, with));
        match self {
            Self::Absent | Self::Never => false,
            Self::Is(text) => value.as_str() == Some(text),
            Self::Equals(n) => is(f64::eq, n),
            Self::Flag(flag) => value.json().and_then(Value::as_bool) == Some(*flag),
            Self::Above(n) => is(f64::gt, n),
            Self::AtLeast(n) => is(f64::ge, n),
            Self::Below(n) => is(f64::lt, n),
            Self::AtMost(n) => is(f64::le, n),
            Self::Matches(pattern) => value.text().is_some_and(|text| pattern.is_match(&text)),
            Self::In(values) => values.iter().any(|one| value.is(one)),
            Self::Has(item) => {
                let list = value.json().and_then(Value::as_array);
                list.is_some_and(|list| list.iter().any(|one| Operand::from(one).is(item)))
            }
            Self::Within(networks) => {
                let ip = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
                ip.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
        }
    }
}

fn pattern(value: &Value) -> Result<Cow<'_, str>, String> {
    text(value).ok_or_else(|| format!("{value} is not a regular expression"))
}

fn networks(value: &Value) -> Result<Box<[IpNet]>, String> {
    let list = match value {
        Value::Array(list) if !list.is_empty() => list.as_slice(),
        Value::String(text) if !text.is_empty() => std::slice::from_ref(value),
        _ => return Err("invalid ip address".to_owned()),
    };
    let one = |value: &Value| {
        value
            .as_str()
            .and_then(network)
            .ok_or_else(|| format!("invalid ip address: {}", text(value).unwrap_or_default()))
    };
    list.iter().map(one).collect()
}

/// An address or a network.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}
