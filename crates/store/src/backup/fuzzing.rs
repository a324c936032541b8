//! Doors to what reads objects that somebody else wrote, for `crates/proxy/fuzz` alone.

use super::{Trust, part, seal};

/// Reads `data` as one of the objects of a backup; its first byte says which.
pub fn objects(data: &[u8]) {
    const ANNOUNCED: u64 = 1 << 16;
    let Some((&which, object)) = data.split_first() else { return };
    match which % 4 {
        0 => {
            let plain = part::unpack(object, ANNOUNCED).unwrap_or_default();
            drop(part::snapshot(&plain, "lineage", 7));
        }
        1 => drop(seal::open(object, "default", &Trust::default())),
        2 => drop(part::snapshot(object, "lineage", 7)),
        _ => drop(part::instance(object)),
    }
}
