//! Objects of a bucket that somebody else wrote: a manifest, a packed snapshot, an instance configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| store::backup::fuzzing::objects(data));
