//! Fields after a body, either way.
//!
//! The rule to know: whoever reads them may put them among the fields before the body. So none goes on that would
//! change there where a message ends, where it goes, or whom it comes from: RFC 9110, section 6.5.1.

use http::{HeaderMap, HeaderName, header};

/// Never after a body.
const NEVER: [HeaderName; 25] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VARY,
    header::WWW_AUTHENTICATE,
];
/// Families that gateways write, and upstreams believe.
const FAMILIES: [&str; 6] =
    ["x-forwarded-", "x-real-ip", "x-consumer-", "x-credential-", "keep-alive", "proxy-connection"];

/// Without those that must not trail.
pub fn harmless(mut trailers: HeaderMap) -> HeaderMap {
    let odd: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in odd {
        trailers.remove(name);
    }
    trailers
}

/// Whether a field means the same after a body as it says there.
fn may_trail(name: &HeaderName) -> bool {
    !NEVER.contains(name) && !FAMILIES.iter().any(|family| name.as_str().starts_with(family))
}
