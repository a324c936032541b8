//! `${{VAR}}` in `config.yaml`: what is put in is not searched again, and what is no variable stays as it is.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use model::substitute::{in_json, in_settings, in_text};

fuzz_target!(|data: &[u8]| {
    let lookup = |name: &str| (name != "UNSET").then(|| "${{SELF}}".to_owned());
    let _ = in_json(data, &lookup);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = in_settings(text, &lookup);
    match in_text(text, &lookup) {
        Ok(Cow::Borrowed(same)) => assert_eq!(same, text),
        Ok(Cow::Owned(_)) => assert!(text.contains("${{")),
        Err(unset) => assert!(unset.name == "UNSET" && unset.line <= 1 + text.matches('\n').count()),
    }
});
