//! Whether what was read back is what the store holds.

use model::{Change, Kind, Resource, Snapshot, secrets::Keyring};
use serde_json::Value;

/// How many resources of `store` are not the same in `published`, and the other way round.
///
/// Compared as JSON where the texts differ: files are written without white space. What is no JSON object at all
/// (only somebody else's store holds such things) is in no file and does not count.
pub(super) fn differences(store: &Snapshot, published: &Snapshot, keyring: &Keyring) -> usize {
    let differs = |change: &Change| match change {
        Change::Delete(_) => true,
        Change::Put(resource) if resource.key.kind == Kind::Secrets => {
            let published = published.get(&resource.key);
            object(&resource.value)
                .is_some_and(|new| published.is_none_or(|old| !is_concealed(&new, old, keyring)))
        }
        Change::Put(resource) => match object(&resource.value) {
            Some(new) => published.get(&resource.key).and_then(|old| object(&old.value)) != Some(new),
            None => false,
        },
    };
    store.changes_since(published).iter().filter(|change| differs(change)).count()
}

/// A snapshot as it is written: without a credential of a secret manager in plain text.
pub(super) fn concealed(store: &Snapshot, keyring: &Keyring) -> Snapshot {
    let mut written = store.clone();
    for resource in store.of(Kind::Secrets) {
        let Some(plain) = object(&resource.value) else { continue };
        let mut conf = plain.clone();
        keyring.encrypt_credentials(&mut conf);
        if conf != plain {
            written.put(Resource { value: conf.to_string().into(), ..Resource::clone(resource) });
        }
    }
    written
}

/// Whether a secret manager is published as it is in the store, and its credentials not in plain text. Ciphertexts of
/// the same differ.
fn is_concealed(new: &Value, published: &Resource, keyring: &Keyring) -> bool {
    let Some(mut old) = object(&published.value) else { return false };
    let mut hidden = new.clone();
    keyring.encrypt_credentials(&mut hidden);
    if hidden == *new || old == *new {
        return hidden == *new && old == *new;
    }
    keyring.decrypt_resource(Kind::Secrets, &mut old, &[]);
    old == *new
}

fn object(text: &str) -> Option<Value> {
    serde_json::from_str::<Value>(text).ok().filter(Value::is_object)
}
