//! Headers of the PROXY protocol: understood or refused, and what is understood is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::engine::proxy_protocol::{parse, write};

fuzz_target!(|data: &[u8]| {
    let Ok(Some(addresses)) = parse(data) else { return };
    if addresses.source.is_ipv4() == addresses.destination.is_ipv4() {
        let mut line = Vec::new();
        write(&mut line, Some(addresses));
        assert_eq!(parse(&line).expect("what we write we read"), Some(addresses));
    }
});
