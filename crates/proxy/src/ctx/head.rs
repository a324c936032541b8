//! The head of a request and of a response.
//!
//! The rule to know: a request is matched by its normal path and host and sent on by its target. Both come from
//! the client's own bytes and are copied only where they differ from them.

use http::{HeaderMap, Method, StatusCode, Version, header, uri::PathAndQuery};

use super::path::{self, BadTarget, PathRules, normalize};

/// The head of the request, changed in place by plugins.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub version: Version,
    /// `http` or `https`.
    pub scheme: &'static str,
    pub headers: HeaderMap,
    /// The path and query to send upstream instead of the client's. Set by plugins such as proxy-rewrite.
    pub upstream_target: Option<String>,
    target: PathAndQuery,
    /// Only where it differs from the target's path.
    normal_path: Option<Box<str>>,
    /// Only where routes are matched by another path than the normal one.
    match_path: Option<Box<str>>,
    host: Box<str>,
}

impl RequestHead {
    /// `authority` is the host of an absolute target or of HTTP/2's `:authority`; without one, `Host` tells.
    pub fn new(
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
        authority: Option<&str>,
    ) -> Result<Self, BadTarget> {
        let named = authority
            .or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()))
            .unwrap_or_default();
        let host = host_name(named);
        Self::to(host, method, target, headers)
    }

    /// A request to a host whose [`host_name`] is known.
    pub(crate) fn to(
        host: Box<str>,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Result<Self, BadTarget> {
        let normal_path = normalize(target.path())?;
        Ok(Self {
            method,
            version: Version::HTTP_11,
            scheme: "http",
            headers,
            upstream_target: None,
            target,
            normal_path,
            match_path: None,
            host,
        })
    }

    /// Changes the path as the settings ask for.
    pub fn apply(&mut self, rules: PathRules) -> Result<(), BadTarget> {
        if rules == PathRules::default() {
            return Ok(());
        }
        if let Some(path) = path::rewrite(self.path(), rules)? {
            self.normal_path = Some(path);
        }
        if rules.keep_encoded_slash {
            self.match_path = path::with_encoded_slashes(self.target.path(), self.path());
        }
        Ok(())
    }

    /// The head of what is no request.
    pub(crate) fn none() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            scheme: "",
            headers: HeaderMap::new(),
            upstream_target: None,
            target: PathAndQuery::from_static("/"),
            normal_path: None,
            match_path: None,
            host: Box::default(),
        }
    }

    /// Whether it is [`RequestHead::none`].
    pub(crate) fn is_none(&self) -> bool {
        self.scheme.is_empty()
    }

    /// The path and query as the client sent them, unless a plugin set another query.
    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// The normal form of the path: decoded, without dot segments, double slashes or query. nginx's `$uri`.
    pub fn path(&self) -> &str {
        self.normal_path.as_deref().unwrap_or_else(|| self.target.path())
    }

    /// The path that routes are matched by.
    pub fn match_path(&self) -> &str {
        self.match_path.as_deref().unwrap_or_else(|| self.path())
    }

    /// The query without `?`, or nothing: nginx's `$args`.
    pub fn query(&self) -> &str {
        self.target.query().unwrap_or_default()
    }

    /// Whether there is a `?`.
    pub fn has_query(&self) -> bool {
        self.target.query().is_some()
    }

    /// Puts another query in the place of the client's, for all that comes later. What can't be one changes nothing.
    pub fn set_query(&mut self, query: &str) {
        let mark = if query.is_empty() { "" } else { "?" };
        if let Ok(target) = PathAndQuery::try_from(format!("{}{mark}{query}", self.target.path())) {
            self.target = target;
        }
    }

    /// The host in lower case, without its port: nginx's `$host`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// About as many bytes as the head took on its way.
    pub(crate) fn length(&self) -> u64 {
        length_of(&self.headers) + self.target().len() as u64 + 16
    }

    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Bytes of these fields on their way.
pub(crate) fn length_of(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

/// The head of the response on its way to the client.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The upstream's own headers; kept only while somebody may ask for `$upstream_http_*`.
    pub of_upstream: Option<Box<HeaderMap>>,
    /// What came after the body, from then on.
    pub trailers: Option<Box<HeaderMap>>,
}

/// Lower case, without port and final dot.
pub(crate) fn host_name(authority: &str) -> Box<str> {
    // Without an early end the compiler looks at many bytes at once.
    let odd = authority.bytes().fold(false, |odd, b| odd | (b == b':') | b.is_ascii_uppercase());
    if !odd && !authority.ends_with('.') {
        return authority.into();
    }
    // The colons of an IPv6 address are within brackets, or it has no port. A port is short: by hand this is cheaper
    // than by a searcher.
    let host = match authority.bytes().rposition(|b| b == b':').map(|at| authority.split_at(at)) {
        Some((host, port)) if !port.ends_with(']') && (host.ends_with(']') || !host.contains(':')) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_case_and_final_dot() {
        for (authority, host) in [
            ("Foo.COM", "foo.com"),
            ("foo.com:9080", "foo.com"),
            ("foo.com.", "foo.com"),
            ("foo.com.:80", "foo.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(&*host_name(authority), host, "{authority}");
        }
    }
}
