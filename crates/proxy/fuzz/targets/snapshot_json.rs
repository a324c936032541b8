//! `apisix.json` from anywhere: read or refused, and what was read is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Snapshot;

fuzz_target!(|data: &[u8]| {
    let Ok((snapshot, _)) = Snapshot::from_json(data, "lineage", 7) else { return };
    let mut written = Vec::new();
    if snapshot.write_json(&mut written).is_err() {
        return;
    }
    let (again, rejected) = Snapshot::from_json(&written, "lineage", 7).expect("what we write we read");
    let mut twice = Vec::new();
    again.write_json(&mut twice).expect("it was written before");
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&twice));
});
