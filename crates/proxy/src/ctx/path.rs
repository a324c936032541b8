//! What nginx makes of a request's path, and what the settings may make of that.
//!
//! The rule to know: nothing here decodes twice. Routes, rules and plugins see the result, a text that stands for its
//! bytes as [`byte_text`] has it; the upstream gets what the client wrote.

use model::byte_text;

/// The target's path leads out of the root, or can't be decoded: answered with 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request target is not a path within this host")]
pub struct BadTarget;

/// What else is done to a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `apisix.delete_uri_tail_slash`.
    pub delete_tail_slash: bool,
    /// `apisix.normalize_uri_like_servlet`: what follows `;` in a segment is left out.
    pub like_servlet: bool,
    /// `apisix.match_uri_encoded_slash`: routes are matched with `%2F` as it is.
    pub keep_encoded_slash: bool,
}

/// What nginx makes of a path, where that is not the path itself.
pub fn normalize(path: &str) -> Result<Option<Box<str>>, BadTarget> {
    let bytes = path.as_bytes();
    // Without an early end the compiler looks at many bytes at once.
    let odd = bytes.iter().zip(&bytes[bytes.len().min(1)..]).fold(false, |odd, (&a, &b)| {
        odd | (a == b'%') | (a == 0xF4) | ((a == b'/') & ((b == b'/') | (b == b'.')))
    });
    if !odd && !path.ends_with('%') {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let decoded = decode(bytes, false);
    // A `%` that encodes nothing is as bad as one that encodes the end of a C string.
    if decoded.contains(&0) || has_stray_percent(bytes) {
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
    let text = byte_text::from_vec(out);
    Ok(if text == path { None } else { Some(text.into_boxed_str()) })
}

/// The normal path changed by `rules`, where they change it.
pub(super) fn rewrite(path: &str, rules: PathRules) -> Result<Option<Box<str>>, BadTarget> {
    if rules.like_servlet {
        // As in APISIX, which looks at the path before its last slash went.
        return if path.contains(';') { without_parameters(path).map(Some) } else { Ok(None) };
    }
    let short = path.strip_suffix('/').filter(|_| rules.delete_tail_slash);
    Ok(short.map(Into::into))
}

/// Each segment without what follows `;`. Where a servlet container could see other segments than we do, it is refused.
fn without_parameters(path: &str) -> Result<Box<str>, BadTarget> {
    let mut segments = path.split('/').peekable();
    let mut out = String::with_capacity(path.len());
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let kept = match segment.split_once(';') {
            None => segment,
            Some(("." | "..", _)) => return Err(BadTarget),
            Some(("", _)) if !last => return Err(BadTarget),
            Some((name, _)) if is_encoded_dots(name) => return Err(BadTarget),
            Some((name, _)) => name,
        };
        out.push_str(kept);
        if !last {
            out.push('/');
        }
    }
    Ok(out.into())
}

fn is_encoded_dots(name: &str) -> bool {
    name.eq_ignore_ascii_case("%2e") || name.eq_ignore_ascii_case("%2e%2e")
}

/// The raw path decoded but for its slashes, which become `%2F`. None where there are none, and where more was done
/// to the path than to decode it: then a slash that is kept could hide a way out of the folder.
pub(super) fn with_encoded_slashes(raw: &str, normal: &str) -> Option<Box<str>> {
    let raw = raw.as_bytes();
    if !raw.windows(3).any(is_slash) || decode(raw, false) != *byte_text::write(normal) {
        return None;
    }
    Some(byte_text::from_vec(decode(raw, true)).into())
}

fn is_slash(window: &[u8]) -> bool {
    window.eq_ignore_ascii_case(b"%2f")
}

fn decode(path: &[u8], keep_slash: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        let byte = if first == b'%' { encoded(after) } else { None };
        match byte {
            Some(b'/') if keep_slash => out.extend_from_slice(b"%2F"),
            Some(byte) => out.push(byte),
            None => out.push(first),
        }
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    out
}

/// The byte that two digits stand for.
fn encoded(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn has_stray_percent(path: &[u8]) -> bool {
    path.iter().enumerate().any(|(at, &b)| b == b'%' && encoded(&path[at + 1..]).is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("/%E4%BD%A0", "/你"),
            ("/%ff/x", "/\u{10FFFF}/x"),
        ] {
            let found = normalize(path).unwrap();
            assert_eq!(found.as_deref().unwrap_or(path), normal, "{path}");
        }
        for path in ["/..", "/a/../..", "/%00", "/a%zz", "/a%", "/a%4", "/%2e%2e/%2f.."] {
            assert_eq!(normalize(path), Err(BadTarget), "{path}");
        }
    }

    #[test]
    fn paths_like_servlets() {
        let rules = PathRules { like_servlet: true, ..PathRules::default() };
        for (path, kept) in
            [("/a", None), ("/a;x=1/b;c", Some("/a/b")), ("/a/;x", Some("/a/")), ("/;", Some("/"))]
        {
            assert_eq!(rewrite(path, rules).unwrap().as_deref(), kept, "{path}");
        }
        for path in ["/;/a", "/.;", "/..;", "/%2e;", "/%2E%2e;", "/b/;/c", "/a/..;/b"] {
            assert_eq!(rewrite(path, rules), Err(BadTarget), "{path}");
        }
    }

    #[test]
    fn tail_slashes_and_encoded_slashes() {
        let rules = PathRules { delete_tail_slash: true, ..PathRules::default() };
        for (path, kept) in [("/a/", Some("/a")), ("/a", None), ("/", Some(""))] {
            assert_eq!(rewrite(path, rules).unwrap().as_deref(), kept, "{path}");
        }
        for (raw, normal, kept) in [
            ("/a%2fb", "/a/b", Some("/a%2Fb")),
            ("/%41%2Fb", "/A/b", Some("/A%2Fb")),
            ("/a/b", "/a/b", None),
            ("/a/..%2Fb", "/b", None),
            ("/a%2F%2Fb", "/a/b", None),
            ("/%ff%2Fb", "/\u{10FFFF}/b", Some("/\u{10FFFF}%2Fb")),
        ] {
            assert_eq!(with_encoded_slashes(raw, normal).as_deref(), kept, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn no_normal_path_leads_out(path in "/(\\PC|[./%;a2fFeE]){0,16}") {
            if let Ok(found) = normalize(&path) {
                let found = found.as_deref().unwrap_or(&path);
                prop_assert!(found.starts_with('/') && !found.contains('\0'), "{}", found);
                prop_assert!(!found.split('/').any(|segment| segment == ".." || segment == "."), "{}", found);
                prop_assert!(!found.contains("//"), "{}", found);
            }
        }

        #[test]
        fn a_kept_slash_is_all_that_differs(path in "/([/%.a]|%2[fFeE]|%41){0,12}") {
            let Ok(normal) = normalize(&path) else { return Ok(()) };
            let normal = normal.as_deref().unwrap_or(&path);
            if let Some(kept) = with_encoded_slashes(&path, normal) {
                prop_assert_eq!(kept.replace("%2F", "/"), normal);
            }
        }
    }
}
