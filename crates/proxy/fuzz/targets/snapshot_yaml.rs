//! `apisix.yaml` as people write it, with variables: read or refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Snapshot;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = format!("{text}\n#END\n");
    let lookup = |name: &str| (name == "SET").then(|| "set: [1]".to_owned());
    if let Err(error) = Snapshot::from_yaml(&text, &lookup, "lineage", 7) {
        assert!(!error.to_string().is_empty());
    }
});
