//! What is refused before anything is looked up, and what of a head goes no further than us.
//!
//! The rule to know: where a head could be read in two ways, by us and by whoever comes after us, it is refused or made
//! plain here. nginx's answers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, uri::PathAndQuery};

use crate::{
    engine::{config::Config, reply},
    plugin::Reply,
};

/// Why a request never becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Status(StatusCode),
    /// Any part of its head.
    TooLarge,
}

impl Refusal {
    pub(super) const BAD_REQUEST: Self = Self::Status(StatusCode::BAD_REQUEST);

    pub(super) fn reply(self) -> Reply {
        match self {
            Self::Status(status) => reply::error(status),
            Self::TooLarge => reply::head_too_large(),
        }
    }
}

/// A path with its query: we are nobody's proxy into elsewhere, and nothing but a path can be routed.
#[inline]
pub(super) fn target(
    method: &Method,
    target: Option<PathAndQuery>,
    authority: Option<&str>,
) -> Result<PathAndQuery, Refusal> {
    if [Method::CONNECT, Method::TRACE].contains(method) {
        return Err(Refusal::Status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let target = target.ok_or(Refusal::BAD_REQUEST)?;
    if target.as_str().starts_with('/') { Ok(target) } else { pathless(&target, authority) }
}

/// Behind a host an empty path is `/`: RFC 9110, section 4.2.3.
#[cold]
fn pathless(target: &PathAndQuery, authority: Option<&str>) -> Result<PathAndQuery, Refusal> {
    if authority.is_none() || !target.as_str().starts_with('?') {
        return Err(Refusal::BAD_REQUEST);
    }
    PathAndQuery::try_from(format!("/{}", target.as_str())).map_err(|_| Refusal::BAD_REQUEST)
}

/// What a pass over the fields finds: each look-up by name costs as much as a pass over a few.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hosts: usize,
    codings: usize,
    is_chunked: bool,
    has_connection: bool,
    /// `Forwarded`, of RFC 7239.
    pub has_forwarded: bool,
    longest: usize,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut seen = Self::default();
        for (name, value) in headers {
            seen.longest = seen.longest.max(value.len());
            match *name {
                header::HOST if !is_host(value.as_bytes()) => return Err(Refusal::BAD_REQUEST),
                header::HOST => seen.hosts += 1,
                header::TRANSFER_ENCODING => {
                    seen.codings += 1;
                    seen.is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                }
                header::CONNECTION => seen.has_connection = true,
                header::FORWARDED => seen.has_forwarded = true,
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// One host, a body whose end nobody can dispute, and no line longer than nginx's `large_client_header_buffers`
/// allow.
pub(super) fn head(
    headers: &mut HeaderMap,
    version: Version,
    (target, authority): (&PathAndQuery, Option<&str>),
    config: &Config,
) -> Result<Seen, Refusal> {
    let seen = Seen::of(headers)?;
    host(headers, seen.hosts, version, authority)?;
    if seen.codings > 1 || (seen.codings == 1 && !seen.is_chunked) {
        return Err(Refusal::Status(StatusCode::NOT_IMPLEMENTED));
    }
    if target.as_str().len() > config.limits.line {
        return Err(Refusal::Status(StatusCode::URI_TOO_LONG));
    }
    if seen.longest > config.limits.line {
        return Err(Refusal::TooLarge);
    }
    if seen.has_connection {
        drop_named(headers);
    }
    if !config.underscores {
        drop_underscored(headers);
    }
    Ok(seen)
}

/// A host in the target comes before `Host`, and replaces it, so that nobody after us decides otherwise: RFC 9112,
/// section 3.2.2. HTTP/2 names it in `:authority`, and everything after us looks for `Host`.
fn host(
    headers: &mut HeaderMap,
    hosts: usize,
    version: Version,
    authority: Option<&str>,
) -> Result<(), Refusal> {
    match (authority, hosts) {
        (_, 2..) => Err(Refusal::BAD_REQUEST),
        (Some(authority), _) if !is_host(authority.as_bytes()) => Err(Refusal::BAD_REQUEST),
        (Some(authority), _) => {
            if headers.get(header::HOST).is_none_or(|host| host != authority) {
                let host = HeaderValue::from_str(authority).map_err(|_| Refusal::BAD_REQUEST)?;
                headers.insert(header::HOST, host);
            }
            Ok(())
        }
        (None, 0) if version >= Version::HTTP_11 => Err(Refusal::BAD_REQUEST),
        (None, _) => Ok(()),
    }
}

/// Nearly what nginx takes for a host and a port, in ASCII; and nothing that another reader could take for an end of it.
fn is_host(host: &[u8]) -> bool {
    const HARMLESS: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0x21;
        while byte < 0x7f {
            table[byte] = true;
            byte += 1;
        }
        let mut odd = b"/\\@,?#".as_slice();
        while let [byte, rest @ ..] = odd {
            table[*byte as usize] = false;
            odd = rest;
        }
        table
    };
    let mut before = 0;
    for &byte in host {
        if !HARMLESS[usize::from(byte)] || (byte == b'.' && before == b'.') {
            return false;
        }
        before = byte;
    }
    !matches!(host, [] | [b':', ..] | [b'.'] | [b'.', b':', ..])
}

/// Fields that `Connection` names are for us alone: RFC 9110, section 7.6.1. They are dropped as the request comes, so
/// that a client can't name a field that we or a plugin add later. Those that say where the body ends or what the
/// request is for stay, whoever names them.
fn drop_named(headers: &mut HeaderMap) {
    const OURS: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];
    const STAY: [HeaderName; 6] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
    ];
    let is_ours = |token: &[u8]| OURS.iter().any(|ours| token.eq_ignore_ascii_case(ours));
    let lists = headers.get_all(header::CONNECTION).iter();
    let named = lists.flat_map(|list| tokens(list.as_bytes())).filter(|token| !is_ours(token));
    let named: Vec<HeaderName> = named.filter_map(|token| HeaderName::from_bytes(token).ok()).collect();
    for name in named.iter().filter(|name| !STAY.contains(name)) {
        headers.remove(name);
    }
}

/// What a list names.
pub(super) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// nginx's `underscores_in_headers off`.
fn drop_underscored(headers: &mut HeaderMap) {
    let odd: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in odd {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn host(headers: &mut HeaderMap, version: Version, authority: Option<&str>) -> Result<(), Refusal> {
        let seen = Seen::of(headers)?;
        super::host(headers, seen.hosts, version, authority)
    }

    #[test]
    fn a_host_is_one_and_is_a_host() {
        for good in ["a", "a.test:80", "A.test.", "[::1]:80", "a_b", "1.2.3.4", ".a"] {
            assert!(host(&mut headers(&[("host", good)]), Version::HTTP_11, None).is_ok(), "{good}");
        }
        for bad in
            ["", "a b", ".", ".:80", "a/b", "a\\b", "..", "a..b", ":80", "a@b", "a,b", "a?b", "a#b", "\t"]
        {
            assert!(host(&mut headers(&[("host", bad)]), Version::HTTP_11, None).is_err(), "{bad:?}");
        }
        assert!(!is_host("\u{e9}.a".as_bytes()));
        let two = [("host", "a"), ("host", "a")];
        assert!(host(&mut headers(&two), Version::HTTP_11, None).is_err());
        assert!(host(&mut headers(&[]), Version::HTTP_11, None).is_err());
        assert!(host(&mut headers(&[]), Version::HTTP_10, None).is_ok());
        let mut other = headers(&[("host", "b")]);
        assert!(host(&mut other, Version::HTTP_11, Some("a:80")).is_ok());
        assert_eq!(other["host"], "a:80");
        for bad in ["u@a", "a,b", "a..b", ":80", ".", ""] {
            assert!(host(&mut other, Version::HTTP_2, Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_connection_names_is_dropped_but_not_what_the_request_is_made_of() {
        let mut all = headers(&[
            ("host", "a"),
            ("connection", "keep-alive, X-One"),
            ("connection", "host, content-length, x-two"),
            ("content-length", "5"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        drop_named(&mut all);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "host", "x-three"]);
    }

    #[test]
    fn only_paths_are_routed() {
        let path = |text: &'static str| Some(PathAndQuery::from_static(text));
        let status =
            |method, target| super::target(&method, target, None).map_err(|refusal| refusal.reply().status);
        assert!(status(Method::GET, path("/a?b")).is_ok());
        assert_eq!(target(&Method::GET, path("?a"), Some("b")).unwrap(), "/?a");
        assert_eq!(status(Method::GET, path("?a")).unwrap_err(), 400);
        assert_eq!(status(Method::OPTIONS, path("*")).unwrap_err(), 400);
        assert_eq!(status(Method::GET, None).unwrap_err(), 400);
        assert_eq!(status(Method::CONNECT, None).unwrap_err(), 405);
        assert_eq!(status(Method::TRACE, path("/")).unwrap_err(), 405);
    }
}
