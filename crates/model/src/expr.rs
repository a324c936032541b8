//! Conditions on variables, as in a route's `vars` or a plugin's `_meta.filter`: the rules of lua-resty-expr.
//!
//! The rule to know: `[variable, operator, value]` is a comparison, with `"!"` before the operator its opposite; a
//! list of rules holds if all do; a list may begin with `AND`, `OR`, `!AND` or `!OR`; no rules at all hold always.
//! Variables are texts: a value that is a number compares as one, any other as it is written.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use crate::pattern::Pattern;

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Expr(Rule);

#[derive(Clone, Debug)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Compare { variable: Box<str>, test: Test },
}

/// What a variable is asked.
#[derive(Clone, Debug)]
enum Test {
    Absent,
    Is(Box<str>),
    Equals(f64),
    Above(f64),
    AtLeast(f64),
    Below(f64),
    AtMost(f64),
    Matches(Pattern),
    In(Box<[Box<str>]>),
    Has(Box<str>),
    Within(Box<[IpNet]>),
    /// A comparison that never holds, such as with a value of another type.
    Never,
}

impl Expr {
    /// Compiles rules. What can never be evaluated is an error in lua-resty-expr's words; so is, other than there,
    /// a regular expression that does not compile.
    pub fn compile(rules: &Value) -> Result<Self, String> {
        let list = match rules {
            Value::Array(list) => list,
            Value::Object(empty) if empty.is_empty() => return Ok(Self(Rule::All(Vec::new()))),
            _ => return Err("missing argument rule".to_owned()),
        };
        match list.first() {
            None => Ok(Self(Rule::All(Vec::new()))),
            Some(Value::Array(_)) => rule(rules).map(Self),
            // Lua does not tell an empty list from an empty object.
            Some(Value::Object(empty)) if empty.is_empty() => Err("rule too short".to_owned()),
            Some(first) if Logic::of(first).is_some() => rule(rules).map(Self),
            Some(_) => Err("rule should be wrapped inside brackets".to_owned()),
        }
    }

    /// Whether the condition holds. A variable that is a list is given as its JSON text.
    pub fn eval<'v>(&self, lookup: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        self.0.holds(lookup)
    }

    /// The variables that are looked up, in the order in which they are written.
    pub fn variables(&self) -> Vec<&str> {
        let mut all = Vec::new();
        self.0.variables(&mut all);
        all
    }
}

impl Rule {
    fn holds<'v>(&self, lookup: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.holds(lookup)),
            Self::Any(rules) => rules.iter().any(|rule| rule.holds(lookup)),
            Self::Not(rule) => !rule.holds(lookup),
            Self::Compare { variable, test } => test.passes(lookup(variable).as_deref()),
        }
    }

    fn variables<'a>(&'a self, all: &mut Vec<&'a str>) {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().for_each(|rule| rule.variables(all)),
            Self::Not(rule) => rule.variables(all),
            Self::Compare { variable, .. } => all.push(variable),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return matches!(self, Self::Absent) };
        let is =
            |compare: fn(&f64, &f64) -> bool, with: &f64| number(value).is_some_and(|n| compare(&n, with));
        match self {
            Self::Absent | Self::Never => false,
            Self::Is(text) => value == &**text,
            Self::Equals(n) => is(f64::eq, n),
            Self::Above(n) => is(f64::gt, n),
            Self::AtLeast(n) => is(f64::ge, n),
            Self::Below(n) => is(f64::lt, n),
            Self::AtMost(n) => is(f64::le, n),
            Self::Matches(pattern) => pattern.is_match(value),
            Self::In(texts) => texts.iter().any(|text| &**text == value),
            Self::Has(text) => serde_json::from_str::<Vec<Value>>(value)
                .is_ok_and(|list| list.iter().any(|item| *item == **text)),
            Self::Within(networks) => {
                value.parse::<IpAddr>().is_ok_and(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Logic {
    any: bool,
    not: bool,
}

impl Logic {
    fn of(word: &Value) -> Option<Self> {
        match word.as_str()?.to_ascii_uppercase().as_str() {
            "AND" => Some(Self { any: false, not: false }),
            "OR" => Some(Self { any: true, not: false }),
            "!AND" => Some(Self { any: false, not: true }),
            "!OR" => Some(Self { any: true, not: true }),
            _ => None,
        }
    }
}

fn rule(value: &Value) -> Result<Rule, String> {
    let list = value.as_array().ok_or("invalid expression")?;
    let first = list.first().ok_or("rule too short")?;
    if first.is_array() {
        return list.iter().map(rule).collect::<Result<_, _>>().map(Rule::All);
    }
    let Some(logic) = Logic::of(first) else { return comparison(list) };
    if list.len() <= 2 {
        return Err("rule too short".to_owned());
    }
    let rules = list[1..].iter().map(rule).collect::<Result<_, _>>()?;
    let all = if logic.any { Rule::Any(rules) } else { Rule::All(rules) };
    Ok(if logic.not { Rule::Not(Box::new(all)) } else { all })
}

fn comparison(list: &[Value]) -> Result<Rule, String> {
    let (variable, negated, operator, value) = match list {
        [variable, not, operator, value] if not == "!" => (variable, true, Some(operator), Some(value)),
        [_, _, _, _] => return Err("bad 'not' expression".to_owned()),
        [variable, operator, value, ..] => (variable, false, Some(operator), Some(value)),
        [variable, operator] => (variable, false, Some(operator), None),
        [variable] => (variable, false, None, None),
        [] => return Err("rule too short".to_owned()),
    };
    let variable = text(variable).ok_or("invalid expression")?;
    let operator = operator.and_then(text).ok_or("invalid expression")?.to_ascii_lowercase();
    // Without a value, an operator makes a comparison with nothing, any other word is the value.
    let (operator, value) = match value {
        None if !OPERATORS.contains(&&*operator) => ("==".to_owned(), Value::from(operator)),
        value => (operator, value.cloned().unwrap_or(Value::Null)),
    };
    let compare = Rule::Compare { variable: variable.into(), test: test(&operator, &value)? };
    Ok(if negated != (operator == "~=") { Rule::Not(Box::new(compare)) } else { compare })
}

const OPERATORS: [&str; 11] = ["==", "~=", ">", ">=", "<", "<=", "~~", "~*", "in", "has", "ipmatch"];

fn test(operator: &str, value: &Value) -> Result<Test, String> {
    let than = |test: fn(f64) -> Test| limit(value).map_or(Test::Never, test);
    Ok(match operator {
        // `~=` is the opposite of `==` also where the variable is absent or no number.
        "==" | "~=" => match value {
            Value::Null => Test::Absent,
            Value::String(text) => Test::Is(text.as_str().into()),
            Value::Number(n) => n.as_f64().map_or(Test::Never, Test::Equals),
            _ => Test::Never,
        },
        ">" => than(Test::Above),
        ">=" => than(Test::AtLeast),
        "<" => than(Test::Below),
        "<=" => than(Test::AtMost),
        "~~" => Test::Matches(Pattern::new(&pattern(value)?)?),
        "~*" => Test::Matches(Pattern::ignoring_case(&pattern(value)?)?),
        "in" => {
            let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            Test::In(texts.map(Into::into).collect())
        }
        "has" => value.as_str().map_or(Test::Never, |text| Test::Has(text.into())),
        "ipmatch" => Test::Within(networks(value)?),
        _ => return Err(format!("invalid operator '{operator}'")),
    })
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

fn limit(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => number(text),
        _ => None,
    }
}

/// A number as Lua reads it from a text.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        #[expect(clippy::cast_precision_loss, reason = "Lua has no other numbers")]
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|n| n as f64),
        None => text.parse().ok(),
    }
}

/// A text, or a number as one: Lua makes no difference here.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(n) => Some(Cow::Owned(n.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
