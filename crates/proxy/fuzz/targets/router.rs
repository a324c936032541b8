//! The tree against a list: what is found fits, and nothing that fits better is passed over.
#![no_main]

use std::sync::Arc;

use http::Method;
use libfuzzer_sys::fuzz_target;
use proxy::router::{Kind, Query, Router, Rule, Target};
use serde_json::json;

struct Route {
    id: String,
    host: Option<String>,
    uri: String,
    rule: Rule,
}

impl Target for Route {
    fn id(&self) -> &str {
        &self.id
    }

    fn rule(&self) -> &Rule {
        &self.rule
    }
}

impl Route {
    /// Of a text such as `a.c /x/*`, or without a host.
    fn read(id: usize, text: &str) -> Option<Self> {
        let (host, uri) = text.split_once(' ').map_or((None, text), |(host, uri)| (Some(host), uri));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b"/.*-".contains(&b));
        let star_at_end = uri.find('*').is_none_or(|star| star + 1 == uri.len());
        let host_fits = |host: &str| !host.is_empty() && host.rfind('*').is_none_or(|star| star == 0);
        if !uri.starts_with('/') || !plain(text.trim_matches(' ')) && !plain(uri) || !star_at_end {
            return None;
        }
        if host.is_some_and(|host| !host_fits(host) || !plain(host)) {
            return None;
        }
        let mut route = json!({ "uri": uri });
        if let Some(host) = host {
            route["host"] = host.into();
        }
        let rule = Rule::read(&serde_json::from_value(route).ok()?, None).ok()?;
        Some(Self { id: id.to_string(), host: host.map(str::to_owned), uri: uri.to_owned(), rule })
    }

    /// How well it fits: the exact host, the longest wildcard, none; then the exact path, the longest prefix.
    fn rank(&self, host: &str, path: &str) -> Option<((u8, usize), (bool, usize))> {
        let host = match self.host.as_deref().map(|pattern| (pattern, pattern.strip_prefix('*'))) {
            None => (0, 0),
            Some((_, Some(suffix))) if host.ends_with(suffix) => (1, suffix.len()),
            Some((exact, None)) if exact == host => (2, 0),
            _ => return None,
        };
        let path = match self.uri.strip_suffix('*') {
            Some(prefix) if path.starts_with(prefix) => (false, prefix.len()),
            None if self.uri == path => (true, path.len()),
            _ => return None,
        };
        Some((host, path))
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let (Some(host), Some(path)) = (lines.next(), lines.next()) else { return };
    let routes: Vec<Arc<Route>> =
        lines.take(64).enumerate().filter_map(|(id, line)| Route::read(id, line)).map(Arc::new).collect();
    let mut router = Router::new(Kind::HostUri);
    routes.iter().for_each(|route| router.insert(route));
    let query =
        Query { host, path, method: &Method::GET, remote: [127, 0, 0, 1].into(), vars: &|_| None };
    let found = router.find(&query).map(|found| found.target.rank(host, path));
    let best = routes.iter().filter_map(|route| route.rank(host, path)).max();
    assert_eq!(found, best.map(Some), "{text:?}");
    routes.iter().for_each(|route| router.remove(route));
    assert!(router.find(&query).is_none(), "{text:?}");
});
