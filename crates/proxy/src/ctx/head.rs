//! The head of a request and of a response.
//!
//! The rule to know: a request is matched by its normal path and host and sent on by its target. Both come from
//! the client's own bytes and are copied only where they differ from them.

use http::{HeaderMap, Method, StatusCode, Version, header, uri::PathAndQuery};

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
    host: Box<str>,
}

/// The target's path leads out of the root, or hides a NUL: answered with 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request target is not a path within this host")]
pub struct BadTarget;

impl RequestHead {
    /// `authority` is the host of an absolute target or of HTTP/2's `:authority`; without one, `Host` tells.
    pub fn new(
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
        authority: Option<&str>,
    ) -> Result<Self, BadTarget> {
        let normal_path = normalize(target.path())?;
        let named = authority
            .or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()))
            .unwrap_or_default();
        let host = host_name(named);
        Ok(Self {
            method,
            version: Version::HTTP_11,
            scheme: "http",
            headers,
            upstream_target: None,
            target,
            normal_path,
            host,
        })
    }

    /// The path and query as the client sent them, unless a plugin set another query.
    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// The normal form of the path: decoded, without dot segments, double slashes or query. nginx's `$uri`.
    pub fn path(&self) -> &str {
        self.normal_path.as_deref().unwrap_or_else(|| self.target.path())
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

    /// A header's value, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The head of the response on its way to the client.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What came after the body, from then on.
    pub trailers: Option<Box<HeaderMap>>,
}

/// Lower case, without port and final dot.
fn host_name(authority: &str) -> Box<str> {
    // Without an early end the compiler looks at many bytes at once.
    let odd = authority.bytes().fold(false, |odd, b| odd | (b == b':') | b.is_ascii_uppercase());
    if !odd && !authority.ends_with('.') {
        return authority.into();
    }
    // The colons of an IPv6 address are within brackets, or it has no port.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (host.ends_with(']') || !host.contains(':')) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().into()
}

/// What nginx makes of a path, where that is not the path itself.
fn normalize(path: &str) -> Result<Option<Box<str>>, BadTarget> {
    let bytes = path.as_bytes();
    // Without an early end the compiler looks at many bytes at once.
    let odd = bytes
        .iter()
        .zip(&bytes[bytes.len().min(1)..])
        .fold(false, |odd, (&a, &b)| odd | (a == b'%') | ((a == b'/') & ((b == b'/') | (b == b'.'))));
    if !odd && !path.ends_with('%') {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let decoded: Vec<u8> = percent_encoding::percent_decode(bytes).collect();
    if decoded.contains(&0) {
        return Err(BadTarget);
    }
    let mut segments = decoded.split(|&b| b == b'/').peekable();
    let mut first = true;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            // What stands before the first slash is nothing.
            b"" if first => out.push(b'/'),
            b"" | b"." => {}
            b".." => {
                out.pop();
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(BadTarget)?;
                out.truncate(parent + 1);
            }
            name => {
                out.extend_from_slice(name);
                if !last {
                    out.push(b'/');
                }
            }
        }
        first = false;
    }
    let text = String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Ok(if text == path { None } else { Some(text.into_boxed_str()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_what_nginx_makes_of_them() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61/%2e%2e/b", "/b"),
            ("/a%20b", "/a b"),
            ("/a%2Fb", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a%zz", "/a%zz"),
            ("/%E4%BD%A0", "/你"),
        ] {
            let found = normalize(path).unwrap();
            assert_eq!(found.as_deref().unwrap_or(path), normal, "{path}");
        }
        for path in ["/..", "/a/../..", "/%00"] {
            assert_eq!(normalize(path), Err(BadTarget), "{path}");
        }
    }

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
