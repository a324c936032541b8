//! From references to what they stand for.
//!
//! The rule to know: a reference that stands for nothing is an error, never a text: nothing may be taken for a
//! password because it could not be replaced by one. And what stands for a secret is never told in an error.

use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;
use model::{Kind, resource::Plugins};
use serde_json::Value;

use super::{Build, Built, missing};
use crate::{
    chain::Chain,
    plan::{catalog, form::Form},
    secrets::{
        self, Followed, Manager,
        reference::{Reference, of_environment, replace},
    },
};

/// What one resource refers to, and what came of it.
#[derive(Default)]
pub(in crate::plan) struct Referred {
    pub followed: Vec<Arc<Followed>>,
    /// References whose manager is not there.
    pub unmanaged: BTreeSet<Box<str>>,
    /// Values and the references in whose place they stand.
    shown: Vec<(String, Box<str>)>,
    /// Nobody has answered yet: it will come into force by itself.
    pub waits: bool,
    /// Something it refers to can't be had.
    pub unresolved: bool,
}

impl Referred {
    /// An error without the secrets in it.
    pub fn hide(&self, mut reason: String) -> String {
        for (value, reference) in &self.shown {
            for form in [value.clone(), value.escape_default().to_string(), value.escape_debug().to_string()]
            {
                if reason.contains(&form) {
                    reason = reason.replace(&form, reference);
                }
            }
        }
        reason
    }

    fn showing(&mut self, value: &Value, reference: &str) {
        match value {
            Value::String(text) if !text.is_empty() => self.shown.push((text.clone(), reference.into())),
            Value::Number(number) => self.shown.push((number.to_string(), reference.into())),
            Value::Array(items) => items.iter().for_each(|item| self.showing(item, reference)),
            Value::Object(members) => members.values().for_each(|member| self.showing(member, reference)),
            _ => {}
        }
    }
}

impl Build<'_> {
    pub(super) fn secret_manager(&mut self, mut conf: Value) -> Built {
        if self.input.lasting.secrets.is_blind() {
            return Ok(Form::Nothing);
        }
        self.decrypt(&mut conf)?;
        Ok(Form::SecretManager(Arc::new(Manager::read(&self.key.id, conf)?)))
    }

    /// Puts what they stand for in the place of all references in the plugins that are on.
    pub(super) fn resolve_plugins(&mut self, plugins: &mut Plugins) -> Built<()> {
        let mut all = Ok(());
        for (name, conf) in plugins.iter_mut().filter(|(_, conf)| !catalog::is_off(conf)) {
            all = all.and(self.resolve(conf, "").map_err(|error| catalog::refused(name, &error)));
        }
        all
    }

    /// Puts what they stand for in the place of all references. The error begins with the field.
    pub(super) fn resolve(&mut self, conf: &mut Value, path: &str) -> Built<()> {
        if self.input.lasting.secrets.is_blind() {
            return Ok(());
        }
        let resolved = replace(conf, path, &mut |text| self.stands_for(text));
        self.referred.unresolved |= resolved.is_err();
        resolved
    }

    /// A chain without which a route or service can stand if a secret for it, or a plugin, can't be had.
    pub(super) fn or_lack(&mut self, chain: Built<Arc<Chain>>) -> Built<Arc<Chain>> {
        match chain {
            Err(reason) if self.referred.unresolved || self.names_strangers => {
                self.lack(StatusCode::SERVICE_UNAVAILABLE, reason)?;
                Ok(Arc::clone(self.plan.no_plugins()))
            }
            other => other,
        }
    }

    /// Whether this plan is served by nobody and this is a reference, so that nothing can be said of it.
    pub(super) fn is_unknown(&self, text: &str) -> bool {
        self.input.lasting.secrets.is_blind() && Reference::read(text).is_some()
    }

    fn stands_for(&mut self, text: &str) -> Built<Option<Value>> {
        let value = match Reference::read(text) {
            None => return Ok(None),
            Some(Err(error)) => return Err(error),
            Some(Ok(Reference::Environment { name, key })) => of_environment(name, key)?,
            Some(Ok(Reference::Kept { manager, path })) => {
                let known = match self.need(Kind::Secrets, manager) {
                    Some(Form::SecretManager(known)) => Arc::clone(known),
                    _ => {
                        self.referred.unmanaged.insert(text.into());
                        return Err(format!("{text}: {}", missing("secret manager", manager)));
                    }
                };
                let followed = self.input.lasting.secrets.follow(text, path, &known);
                let followed = followed.map_err(|error| format!("{text}: {error}"))?;
                self.needs.push(secrets::key(text));
                let value = followed.value();
                self.referred.followed.push(followed);
                value.map_err(|error| {
                    self.referred.waits |= error.is_empty();
                    let why = if error.is_empty() { "it has not answered yet" } else { &error };
                    format!("{text} can't be had from {manager}: {why}")
                })?
            }
        };
        self.referred.showing(&value, text);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_has_references_in_the_place_of_values() {
        let mut referred = Referred::default();
        referred.showing(&json!({"a": ["s3cret", "two\nlines"], "n": 4711}), "$env://A");
        for (told, hidden) in [
            ("`s3cret` is no number", "`$env://A` is no number"),
            (r#"bad text "two\nlines""#, r#"bad text "$env://A""#),
            ("4711 is no text", "$env://A is no text"),
            ("something else", "something else"),
        ] {
            assert_eq!(referred.hide(told.to_owned()), hidden);
        }
    }
}
