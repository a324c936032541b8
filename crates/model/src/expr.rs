//! Conditions on variables, as in a route's `vars` or a plugin's `_meta.filter`: the rules of lua-resty-expr.
//!
//! The rule to know: `[variable, operator, value]` is a comparison, with `"!"` before the operator its opposite; a
//! list of rules holds if all do; a list may begin with `AND`, `OR`, `!AND` or `!OR`; no rules at all hold always.
//! Values compare as Lua compares them: a text never equals a number, but is taken for one where one is asked for.

mod comparison;
mod operand;

use std::borrow::Cow;

use serde_json::Value;

pub use operand::Operand;

use comparison::Test;

/// A compiled condition. Its variables are names, until [`Expr::resolve`] makes something of them.
#[derive(Clone, Debug)]
pub struct Expr<V = Box<str>>(Rule<V>);

#[derive(Clone, Debug)]
enum Rule<V> {
    All(Vec<Rule<V>>),
    Any(Vec<Rule<V>>),
    Not(Box<Rule<V>>),
    Compare { variable: V, test: Test },
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

    /// The same condition with every name understood once, by `read`.
    pub fn resolve<V>(self, read: &dyn Fn(&str) -> V) -> Expr<V> {
        Expr(self.0.resolve(read))
    }
}

impl<V> Expr<V> {
    /// Whether the condition holds.
    pub fn eval<'v>(&self, lookup: &dyn Fn(&V) -> Option<Operand<'v>>) -> bool {
        self.0.holds(lookup)
    }

    /// The variables that are looked up, in the order in which they are written.
    pub fn variables(&self) -> Vec<&V> {
        let mut all = Vec::new();
        self.0.variables(&mut all);
        all
    }
}

impl Rule<Box<str>> {
    fn resolve<V>(self, read: &dyn Fn(&str) -> V) -> Rule<V> {
        let each = |rules: Vec<Self>| rules.into_iter().map(|rule| rule.resolve(read)).collect();
        match self {
            Self::All(rules) => Rule::All(each(rules)),
            Self::Any(rules) => Rule::Any(each(rules)),
            Self::Not(rule) => Rule::Not(Box::new(rule.resolve(read))),
            Self::Compare { variable, test } => Rule::Compare { variable: read(&variable), test },
        }
    }
}

impl<V> Rule<V> {
    fn holds<'v>(&self, lookup: &dyn Fn(&V) -> Option<Operand<'v>>) -> bool {
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.holds(lookup)),
            Self::Any(rules) => rules.iter().any(|rule| rule.holds(lookup)),
            Self::Not(rule) => !rule.holds(lookup),
            Self::Compare { variable, test } => test.passes(lookup(variable).as_ref()),
        }
    }

    fn variables<'a>(&'a self, all: &mut Vec<&'a V>) {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().for_each(|rule| rule.variables(all)),
            Self::Not(rule) => rule.variables(all),
            Self::Compare { variable, .. } => all.push(variable),
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

fn rule(value: &Value) -> Result<Rule<Box<str>>, String> {
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

fn comparison(list: &[Value]) -> Result<Rule<Box<str>>, String> {
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
    let compare = Rule::Compare { variable: variable.into(), test: Test::new(&operator, &value)? };
    Ok(if negated != (operator == "~=") { Rule::Not(Box::new(compare)) } else { compare })
}

const OPERATORS: [&str; 11] = ["==", "~=", ">", ">=", "<", "<=", "~~", "~*", "in", "has", "ipmatch"];

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
