//! Checks a value against a JSON Schema as APISIX does, word for word.
//!
//! The rule to know: this is APISIX's dialect (that of the library api7/jsonschema), not the standard. Checking
//! fills in defaults on its way, so that a later rule sees them; an empty list and an empty object are the same; a
//! reference to a secret passes for any text; and only the first error is told, in the words users know.

mod compile;
mod lua;
mod subject;

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::pattern::Pattern;

pub(crate) use lua::is_reference;
use lua::{first_pair_of_equals, is_empty, number, same, type_name};
use subject::Subject;

type Verdict = Result<(), String>;

/// A compiled schema.
#[derive(Debug)]
pub struct Validator {
    /// In the order in which they are asked.
    rules: Vec<Rule>,
    /// Whether a reference to a secret passes: where a text may stand.
    takes_references: bool,
}

#[derive(Debug)]
enum Rule {
    Never,
    Type(Vec<Type>),
    Object(Box<ObjectRule>),
    /// `required` that names nothing.
    NothingInIt,
    Array(Box<ArrayRule>),
    Text(Box<TextRule>),
    Number(Box<NumberRule>),
    OneOfValues(Vec<Value>),
    AllOf(Vec<Validator>),
    /// With what its branches require, for the error.
    AnyOf(Vec<Validator>, String),
    OneOf(Vec<Validator>),
    If(Box<(Validator, Option<Validator>, Option<Validator>)>),
    Not(Box<Validator>),
    Format(Format),
    Just(Value),
    Contains(Box<Validator>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    Table,
    Integer,
    Number,
    String,
    Boolean,
    Null,
}

#[derive(Debug, Default)]
struct ObjectRule {
    properties: Vec<Property>,
    /// Required without being described.
    required: Vec<String>,
    /// Of properties that are not described.
    dependencies: Vec<(String, Dependency)>,
    patterns: Vec<(String, Pattern, Validator)>,
    others: Others,
    least: Option<usize>,
    most: Option<usize>,
}

#[derive(Debug)]
struct Property {
    name: String,
    validator: Validator,
    required: bool,
    default: Option<Value>,
    dependency: Option<Dependency>,
}

#[derive(Debug)]
enum Dependency {
    Properties(Vec<String>),
    Schema(Box<Validator>),
}

/// Properties that are not described.
#[derive(Debug, Default)]
enum Others {
    #[default]
    Allowed,
    Forbidden,
    Like(Box<Validator>),
}

#[derive(Debug, Default)]
struct ArrayRule {
    least: Option<usize>,
    most: Option<usize>,
    first: Vec<Validator>,
    rest: Option<Validator>,
    no_more: bool,
    unique: bool,
}

#[derive(Debug)]
struct TextRule {
    least: Option<usize>,
    most: Option<usize>,
    pattern: Option<(String, Pattern)>,
}

#[derive(Debug)]
struct NumberRule {
    least: Option<f64>,
    above: Option<f64>,
    most: Option<f64>,
    below: Option<f64>,
    multiple_of: Option<f64>,
}

#[derive(Debug)]
enum Format {
    Ipv4,
    Ipv6,
    Like(&'static str, Pattern),
}

impl Validator {
    /// Compiles a schema. Its patterns and references are looked at now, never when a value is checked.
    pub fn new(schema: &Value) -> Result<Self, String> {
        compile::schema(schema)
    }

    /// Checks a value and leaves it alone.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        Run { quiet: false }.check(self, value)
    }

    /// Checks a value and puts in the defaults of what is absent.
    pub fn fill(&self, value: &mut Value) -> Result<(), String> {
        Run { quiet: false }.check(self, value)
    }
}

/// One check. A quiet one is only asked for yes or no and makes no texts.
#[derive(Clone, Copy)]
struct Run {
    quiet: bool,
}

impl Run {
    fn fail(self, reason: impl FnOnce() -> String) -> Verdict {
        Err(if self.quiet { String::new() } else { reason() })
    }

    fn wrap(self, verdict: Verdict, around: impl FnOnce(String) -> String) -> Verdict {
        verdict.map_err(|inner| if self.quiet { inner } else { around(inner) })
    }

    fn holds(self, validator: &Validator, subject: impl Subject) -> bool {
        Self { quiet: true }.check(validator, subject).is_ok()
    }

    fn check(self, validator: &Validator, mut subject: impl Subject) -> Verdict {
        if validator.takes_references && subject.get().as_str().is_some_and(is_reference) {
            return Ok(());
        }
        validator.rules.iter().try_for_each(|rule| self.rule(rule, &mut subject))
    }

    fn rule(self, rule: &Rule, subject: &mut impl Subject) -> Verdict {
        match rule {
            Rule::Never => self.fail(|| "expect false always".to_owned()),
            Rule::Type(types) => self.types(types, subject.get()),
            Rule::Object(rule) if is_object(subject.get()) => self.object(rule, subject),
            Rule::NothingInIt if !is_empty(subject.get()) => {
                self.fail(|| "the input data should be an empty table".to_owned())
            }
            Rule::Array(rule) if is_array(subject.get()) => self.array(rule, subject),
            Rule::Text(rule) => self.text(rule, subject.get()),
            Rule::Number(rule) => self.number(rule, subject.get()),
            Rule::OneOfValues(values) if !values.iter().any(|value| same(value, subject.get())) => {
                self.fail(|| "matches none of the enum values".to_owned())
            }
            Rule::AllOf(all) => all.iter().enumerate().try_for_each(|(at, one)| {
                self.wrap(self.check(one, subject.part()), |inner| {
                    format!("allOf {} failed: {inner}", at + 1)
                })
            }),
            Rule::AnyOf(any, required) => match any.iter().any(|one| self.holds(one, subject.part())) {
                true => Ok(()),
                false => self.fail(|| format!("object matches none of the required{required}")),
            },
            Rule::OneOf(all) => self.one_of(all, subject),
            Rule::If(rule) => self.branch(rule, subject),
            Rule::Not(not) if self.holds(not, subject.part()) => {
                self.fail(|| "value wasn't supposed to match schema".to_owned())
            }
            Rule::Format(format) => self.format(format, subject.get()),
            Rule::Just(value) if !same(value, subject.get()) => {
                self.fail(|| "failed to check const value".to_owned())
            }
            Rule::Contains(one) => self.contains(one, subject),
            Rule::Object(_)
            | Rule::Array(_)
            | Rule::NothingInIt
            | Rule::OneOfValues(_)
            | Rule::Not(_)
            | Rule::Just(_) => Ok(()),
        }
    }

    fn types(self, types: &[Type], value: &Value) -> Verdict {
        if types.iter().any(|one| one.fits(value)) {
            return Ok(());
        }
        self.fail(|| {
            let names: Vec<_> = types.iter().map(|one| one.name()).collect();
            let one_of = if names.len() == 1 { "" } else { "one of " };
            format!("wrong type: expected {one_of}{}, got {}", names.join(", "), type_name(value))
        })
    }

    fn object(self, rule: &ObjectRule, subject: &mut impl Subject) -> Verdict {
        for property in &rule.properties {
            self.property(property, subject)?;
        }
        for name in &rule.required {
            self.presence(name, subject.get())?;
        }
        for (name, dependency) in &rule.dependencies {
            if subject.get().get(name).is_some() {
                self.dependency(name, dependency, subject)?;
            }
        }
        self.other_members(rule, subject)?;
        let count = subject.get().as_object().map_or(0, serde_json::Map::len);
        match (rule.least, rule.most) {
            (Some(least), _) if count < least => {
                self.fail(|| format!("expect object to have at least {least} properties"))
            }
            (_, Some(most)) if count > most => {
                self.fail(|| format!("expect object to have at most {most} properties"))
            }
            _ => Ok(()),
        }
    }

    fn property(self, property: &Property, subject: &mut impl Subject) -> Verdict {
        let name = &property.name;
        if let Some(verdict) = subject.member(name).map(|member| self.check(&property.validator, member)) {
            self.wrap(verdict, |inner| format!("property \"{name}\" validation failed: {inner}"))?;
            return property.dependency.as_ref().map_or(Ok(()), |dep| self.dependency(name, dep, subject));
        }
        if property.required {
            return self.presence(name, subject.get());
        }
        if let Some(default) = &property.default {
            subject.fill(name, default);
        }
        Ok(())
    }

    fn presence(self, name: &str, value: &Value) -> Verdict {
        match value.get(name) {
            Some(_) => Ok(()),
            None => self.fail(|| format!("property \"{name}\" is required")),
        }
    }

    fn dependency(self, name: &str, dependency: &Dependency, subject: &mut impl Subject) -> Verdict {
        match dependency {
            Dependency::Properties(names) => {
                match names.iter().find(|one| subject.get().get(one).is_none()) {
                    None => Ok(()),
                    Some(absent) => {
                        self.fail(|| format!("property \"{absent}\" is required when \"{name}\" is set"))
                    }
                }
            }
            Dependency::Schema(validator) => {
                let verdict = self.check(validator, subject.part());
                self.wrap(verdict, |inner| {
                    format!("failed to validate dependent schema for \"{name}\": {inner}")
                })
            }
        }
    }

    fn other_members(self, rule: &ObjectRule, subject: &mut impl Subject) -> Verdict {
        if rule.patterns.is_empty() && matches!(rule.others, Others::Allowed) {
            return Ok(());
        }
        for (name, mut member) in subject.members() {
            let mut known = rule.properties.iter().any(|property| property.name == name);
            for (source, pattern, validator) in &rule.patterns {
                if pattern.is_match(name) {
                    known = true;
                    let verdict = self.check(validator, member.part());
                    self.wrap(verdict, |inner| {
                        format!("failed to validate {name} (matching \"{source}\"): {inner}")
                    })?;
                }
            }
            match &rule.others {
                Others::Forbidden if !known => {
                    return self.fail(|| format!("additional properties forbidden, found {name}"));
                }
                Others::Like(validator) if !known => {
                    let verdict = self.check(validator, member);
                    self.wrap(verdict, |inner| {
                        format!("failed to validate additional property {name}: {inner}")
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn array(self, rule: &ArrayRule, subject: &mut impl Subject) -> Verdict {
        let count = subject.get().as_array().map_or(0, Vec::len);
        match (rule.least, rule.most) {
            (Some(least), _) if count < least => {
                return self.fail(|| format!("expect array to have at least {least} items"));
            }
            (_, Some(most)) if count > most => {
                return self.fail(|| format!("expect array to have at most {most} items"));
            }
            _ => {}
        }
        for (at, item) in subject.items().enumerate() {
            let (validator, additional) = match (rule.first.get(at), &rule.rest) {
                (Some(first), _) => (first, ""),
                (None, Some(rest)) => (rest, if rule.first.is_empty() { "" } else { "additional " }),
                (None, None) if rule.no_more => {
                    return self.fail(|| "found unexpected extra items in array".to_owned());
                }
                (None, None) => break,
            };
            let verdict = self.check(validator, item);
            self.wrap(verdict, |inner| format!("failed to validate {additional}item {}: {inner}", at + 1))?;
        }
        if !rule.unique {
            return Ok(());
        }
        match first_pair_of_equals(subject.get()) {
            None => Ok(()),
            Some((a, b)) => {
                self.fail(|| format!("expected unique items but items {} and {} are equal", a + 1, b + 1))
            }
        }
    }

    fn text(self, rule: &TextRule, value: &Value) -> Verdict {
        let Some(text) = value.as_str() else { return Ok(()) };
        let length = || text.chars().count();
        match (rule.least, rule.most) {
            (Some(least), _) if length() < least => {
                return self
                    .fail(|| format!("string too short, expected at least {least}, got {}", length()));
            }
            (_, Some(most)) if text.len() > most && length() > most => {
                return self.fail(|| format!("string too long, expected at most {most}, got {}", length()));
            }
            _ => {}
        }
        match &rule.pattern {
            Some((source, pattern)) if !pattern.is_match(text) => self.fail(|| {
                format!("failed to match pattern {} with {}", lua::quoted(source), lua::quoted(text))
            }),
            _ => Ok(()),
        }
    }

    fn number(self, rule: &NumberRule, value: &Value) -> Verdict {
        let Some(n) = value.as_f64() else { return Ok(()) };
        let limits = [
            (rule.least.filter(|limit| n < *limit), "at least"),
            (rule.above.filter(|limit| n <= *limit), "greater than"),
            (rule.most.filter(|limit| n > *limit), "at most"),
            (rule.below.filter(|limit| n >= *limit), "smaller than"),
            (rule.multiple_of.filter(|of| !lua::is_multiple(n, *of)), "a multiple of"),
        ];
        match limits.into_iter().find_map(|(limit, words)| Some((limit?, words))) {
            None => Ok(()),
            Some((limit, words)) => {
                self.fail(|| format!("expected {} to be {words} {}", number(n), number(limit)))
            }
        }
    }

    fn one_of(self, all: &[Validator], subject: &mut impl Subject) -> Verdict {
        let mut matched = None;
        for (at, one) in all.iter().enumerate() {
            if !self.holds(one, subject.part()) {
                continue;
            }
            if let Some(first) = matched.replace(at + 1) {
                let both = format!("{first} and {}", at + 1);
                return self
                    .fail(|| format!("value should match only one schema, but matches both schemas {both}"));
            }
        }
        match matched {
            Some(_) => Ok(()),
            None => self.fail(|| "value should match only one schema, but matches none".to_owned()),
        }
    }

    fn branch(
        self,
        rule: &(Validator, Option<Validator>, Option<Validator>),
        subject: &mut impl Subject,
    ) -> Verdict {
        let (condition, then, otherwise) = rule;
        let (clause, name) =
            if self.holds(condition, subject.part()) { (then, "then") } else { (otherwise, "else") };
        match clause {
            Some(clause) if !self.holds(clause, subject.part()) => {
                self.fail(|| format!("{name} clause did not match"))
            }
            _ => Ok(()),
        }
    }

    fn format(self, format: &Format, value: &Value) -> Verdict {
        let Some(text) = value.as_str() else { return Ok(()) };
        let (name, fits) = match format {
            Format::Ipv4 => ("ipv4", text.parse::<Ipv4Addr>().is_ok()),
            Format::Ipv6 => ("ipv6", text.parse::<Ipv6Addr>().is_ok()),
            Format::Like(name, pattern) => (*name, pattern.is_match(text)),
        };
        if fits { Ok(()) } else { self.fail(|| format!("expect valid {name} format but got: {text}")) }
    }

    fn contains(self, one: &Validator, subject: &mut impl Subject) -> Verdict {
        if is_empty(subject.get()) {
            return self.fail(|| "check contains: empty array is invalid".to_owned());
        }
        if !subject.get().is_array() || subject.items().any(|item| self.holds(one, item)) {
            return Ok(());
        }
        self.fail(|| "failed to check contains".to_owned())
    }
}

fn is_object(value: &Value) -> bool {
    value.is_object() || is_empty(value)
}

fn is_array(value: &Value) -> bool {
    value.is_array() || is_empty(value)
}

#[cfg(test)]
mod tests;
