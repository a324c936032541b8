//! What may be there once only: the key a consumer is recognised by, and a plugin among the global rules.
//!
//! The rule to know: consumers and credentials share one space of keys; a consumer may repeat the keys of its own
//! credentials, a credential may repeat nobody's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Key, Kind, Resource};
use serde_json::Value;
use store::Store;

use super::{answer::Answer, rules::Rules};

/// The field of each authentication plugin that tells consumers apart.
const KEY_FIELDS: [(&str, &str); 6] = [
    ("key-auth", "key"),
    ("basic-auth", "username"),
    ("jwt-auth", "key"),
    ("hmac-auth", "key_id"),
    ("ldap-auth", "user_dn"),
    ("ldap-auth-advanced", "user_dn"),
];

/// A plugin's place in [`KEY_FIELDS`] and the key itself.
type AuthKey = (usize, String);

type Keys = Arc<[AuthKey]>;

/// Deleted consumers stay in the table; here it is begun anew.
const MOST_KNOWN: usize = 1_000_000;

/// The keys of stored consumers and credentials, read and decrypted once per revision of each.
#[derive(Default)]
pub struct AuthKeys {
    /// By revision.
    known: Mutex<HashMap<Key, (u64, Keys)>>,
}

/// The keys in a configuration in plain text. References to secrets are not known until a request comes.
pub fn auth_keys(conf: &Value) -> Vec<AuthKey> {
    let key = |(at, (plugin, field)): (usize, &(&str, &str))| {
        let key = conf.get("plugins")?.get(plugin)?.get(field)?.as_str()?;
        (!is_reference(key)).then(|| (at, key.to_owned()))
    };
    KEY_FIELDS.iter().enumerate().filter_map(key).collect()
}

/// `$secret://…` or `$env://…`.
pub fn is_reference(value: &str) -> bool {
    let scheme = value.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("$secret" | "$env"))
}

impl AuthKeys {
    /// Refuses a key that someone else has already.
    pub async fn check(
        &self,
        store: &dyn Store,
        rules: &Rules,
        key: &Key,
        conf: &Value,
    ) -> Result<(), Answer> {
        let wanted = auth_keys(conf);
        if wanted.is_empty() {
            return Ok(());
        }
        for kind in [Kind::Consumers, Kind::Credentials] {
            for resource in store.list(kind).await? {
                if is_own(key, &resource.key) {
                    continue;
                }
                if let Some((at, _)) = self.of(&resource, rules).iter().find(|taken| wanted.contains(taken)) {
                    let (plugin, field) = KEY_FIELDS[*at];
                    let owner = describe(&resource.key);
                    return Err(Answer::bad(format!(
                        "duplicate {field} of plugin {plugin} found with {owner}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn of(&self, resource: &Resource, rules: &Rules) -> Keys {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MOST_KNOWN {
            known.clear();
        }
        if let Some((modified, keys)) = known.get(&resource.key)
            && *modified == resource.modified
        {
            return keys.clone();
        }
        let mut conf: Value = resource.read().unwrap_or_default();
        rules.reveal(resource.key.kind, &mut conf);
        let keys: Keys = auth_keys(&conf).into();
        known.insert(resource.key.clone(), (resource.modified, keys.clone()));
        keys
    }
}

fn is_own(key: &Key, other: &Key) -> bool {
    match key.kind {
        Kind::Consumers => other.owner().unwrap_or(&other.id) == &*key.id,
        _ => key == other,
    }
}

fn describe(key: &Key) -> String {
    match key.owner() {
        Some(owner) => {
            let id = key.id.rsplit('/').next().unwrap_or_default();
            format!("credential: {id} of consumer: {owner}")
        }
        None => format!("consumer: {}", key.id),
    }
}

/// Refuses a plugin that another global rule has already.
pub async fn check_global_rule(store: &dyn Store, key: &Key, conf: &Value) -> Result<(), Answer> {
    let Some(plugins) = conf.get("plugins").and_then(Value::as_object) else { return Ok(()) };
    for rule in store.list(Kind::GlobalRules).await?.iter().filter(|rule| rule.key != *key) {
        let other: Value = rule.read().unwrap_or_default();
        let taken =
            |name: &&String| other.get("plugins").and_then(|plugins| plugins.get(name.as_str())).is_some();
        if let Some(name) = plugins.keys().find(taken) {
            let id = &rule.key.id;
            return Err(Answer::bad(format!("plugin '{name}' already exists in global rule with id '{id}'")));
        }
    }
    Ok(())
}
