//! The query of a request: read and changed by name.

use std::borrow::Cow;

use form_urlencoded::{Serializer, parse};
use proxy::ctx::RequestHead;

/// The first value of an argument.
pub fn arg<'a>(request: &'a RequestHead, name: &str) -> Option<Cow<'a, str>> {
    let query = sent(request);
    if query.is_empty() {
        return None;
    }
    parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Removes an argument from what is sent upstream.
pub fn remove_arg(request: &mut RequestHead, name: &str) {
    let query = sent(request);
    if !parse(query.as_bytes()).any(|(found, _)| found == name) {
        return;
    }
    let mut kept = Serializer::new(String::new());
    kept.extend_pairs(parse(query.as_bytes()).filter(|(found, _)| found != name));
    let kept = kept.finish();
    let path = target(request).split('?').next().unwrap_or("/").to_owned();
    request.upstream_target = Some(if kept.is_empty() { path } else { format!("{path}?{kept}") });
}

/// What is sent upstream as things stand.
fn target(request: &RequestHead) -> &str {
    request.upstream_target.as_deref().unwrap_or_else(|| request.target())
}

fn sent(request: &RequestHead) -> &str {
    target(request).split_once('?').map_or("", |(_, query)| query)
}
