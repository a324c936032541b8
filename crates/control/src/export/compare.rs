//! Whether what was read back is what the store holds.

use model::{Change, Snapshot};
use serde_json::Value;

/// How many resources of `store` are not the same in `published`, and the other way round.
///
/// Compared as JSON where the texts differ: files are written without white space. What is no JSON object at all
/// (only somebody else's store holds such things) is in no file and does not count.
pub(super) fn differences(store: &Snapshot, published: &Snapshot) -> usize {
    let differs = |change: &Change| match change {
        Change::Delete(_) => true,
        Change::Put(resource) => match object(&resource.value) {
            Some(new) => published.get(&resource.key).and_then(|old| object(&old.value)) != Some(new),
            None => false,
        },
    };
    store.changes_since(published).iter().filter(|change| differs(change)).count()
}

fn object(text: &str) -> Option<Value> {
    serde_json::from_str::<Value>(text).ok().filter(Value::is_object)
}
