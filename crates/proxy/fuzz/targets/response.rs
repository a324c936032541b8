//! What an upstream sends, cut in two ways: read in the same way however it is cut, and no further than it goes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::engine::fuzzing::response;

fuzz_target!(|data: &[u8]| {
    let Some((&how, wire)) = data.split_first() else { return };
    let (head, step) = (how & 1 == 1, usize::from(how >> 1) + 1);
    assert_eq!(response(wire, head, step), response(wire, head, wire.len().max(1)));
});
