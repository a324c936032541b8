//! A path, as nginx has it: within its root, and nothing but names in it.
#![no_main]

use http::{HeaderMap, Method, uri::PathAndQuery};
use libfuzzer_sys::fuzz_target;
use proxy::ctx::RequestHead;

fuzz_target!(|data: &[u8]| {
    let Ok(target) = PathAndQuery::try_from(data) else { return };
    if !target.as_str().starts_with('/') {
        return;
    }
    let given = target.as_str().to_owned();
    let Ok(head) = RequestHead::new(Method::GET, target, HeaderMap::new(), None) else { return };
    assert_eq!(head.target(), given, "what is sent on is what came");
    let path = head.path();
    assert!(path.starts_with('/'), "{path:?} of {given:?}");
    assert!(!path.contains("//") && !path.contains('\0'), "{path:?} of {given:?}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path:?} of {given:?}");
});
