//! One check of one value, rule by rule; objects and lists are in `tables.rs`.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{
    Format, NumberRule, Rule, TextRule, Type, Validator,
    lua::{self, is_empty, is_reference, number, same, type_name},
    subject::Subject,
};

pub(super) type Verdict = Result<(), String>;

/// One check. A quiet one is only asked for yes or no and makes no texts.
#[derive(Clone, Copy)]
pub(super) struct Run {
    quiet: bool,
}

impl Run {
    pub const LOUD: Self = Self { quiet: false };

    pub(super) fn fail(self, reason: impl FnOnce() -> String) -> Verdict {
        Err(if self.quiet { String::new() } else { reason() })
    }

    pub(super) fn wrap(self, verdict: Verdict, around: impl FnOnce(String) -> String) -> Verdict {
        verdict.map_err(|inner| if self.quiet { inner } else { around(inner) })
    }

    pub(super) fn holds(self, validator: &Validator, subject: impl Subject) -> bool {
        Self { quiet: true }.check(validator, subject).is_ok()
    }

    pub fn check(self, validator: &Validator, mut subject: impl Subject) -> Verdict {
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
