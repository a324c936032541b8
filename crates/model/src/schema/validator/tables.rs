//! The rules for objects and lists.

use serde_json::Value;

use super::{
    ArrayRule, Dependency, ObjectRule, Others, Property,
    lua::first_pair_of_equals,
    run::{Run, Verdict},
    subject::Subject,
};

impl Run {
    pub(super) fn object(self, rule: &ObjectRule, subject: &mut impl Subject) -> Verdict {
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

    pub(super) fn array(self, rule: &ArrayRule, subject: &mut impl Subject) -> Verdict {
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
}
