//! The URIs of routes: `/a`, `/a/*`, `/a/:name/b`, `/a/*rest`.
//!
//! The rule to know: the tree finds a URI by what stands before its first wildcard; where more follows than that,
//! a [`Pattern`] decides.

use std::sync::Arc;

use super::{Params, tree::Fit};

/// A route's URI, taken apart.
#[derive(Debug)]
pub(super) struct Path<'a> {
    /// What the tree finds it by.
    pub key: &'a str,
    pub fit: Fit,
    /// What decides beyond the key; none where nothing is left to decide or to name.
    pub pattern: Option<Arc<Pattern>>,
}

/// A URI with wildcards, by segments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern(Box<[Segment]>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Text(Box<str>),
    /// `:name`: one segment that is not empty.
    One(Arc<str>),
    /// `*` or `*name`: anything, slashes and nothing included.
    Any(Option<Arc<str>>),
}

impl<'a> Path<'a> {
    /// `named`: whether `:name` is a wildcard; otherwise it is one only behind a star, as everywhere in APISIX.
    pub fn read(path: &'a str, named: bool) -> Self {
        let parameter = if named { path.find("/:").map(|at| at + 1) } else { None };
        let star = path.find('*');
        let Some(end) = [parameter, star].into_iter().flatten().min() else {
            return Self { key: path, fit: Fit::Exact, pattern: None };
        };
        let plain = end + 1 == path.len() && !path.contains("/:");
        let pattern = if plain { None } else { Pattern::read(path) };
        Self { key: &path[..end], fit: Fit::Prefix, pattern: pattern.map(Arc::new) }
    }
}

impl Pattern {
    /// None where no segment begins with a wildcard: then the key alone decides.
    fn read(path: &str) -> Option<Self> {
        let segments: Box<[_]> = path
            .split('/')
            .map(|segment| match (segment.strip_prefix(':'), segment.strip_prefix('*')) {
                (Some(name), _) => Segment::One(name.into()),
                (_, Some("")) => Segment::Any(None),
                (_, Some(name)) => Segment::Any(Some(name.into())),
                _ => Segment::Text(segment.into()),
            })
            .collect();
        let wild = segments.iter().any(|segment| !matches!(segment, Segment::Text(_)));
        wild.then_some(Self(segments))
    }

    /// Whether the whole path fits, and what its named segments are.
    pub fn matches(&self, path: &str) -> Option<Params> {
        let mut params = Params::new();
        matches(&self.0, path, &mut params).then_some(params)
    }
}

fn matches(segments: &[Segment], path: &str, params: &mut Params) -> bool {
    let Some((segment, rest)) = segments.split_first() else { return false };
    let end = path.find('/').unwrap_or(path.len());
    match segment {
        Segment::Text(text) => path[..end] == **text && follow(rest, path, end, params),
        Segment::One(name) => {
            params.push((name.clone(), path[..end].into()));
            if end > 0 && follow(rest, path, end, params) {
                return true;
            }
            params.pop();
            false
        }
        Segment::Any(name) => {
            // As much as possible first, as the regular expression of APISIX takes it.
            let ends = path.rmatch_indices('/').map(|(at, _)| at);
            for end in std::iter::once(path.len()).chain(ends) {
                let held = params.len();
                params.extend(name.iter().map(|name| (name.clone(), path[..end].into())));
                if follow(rest, path, end, params) {
                    return true;
                }
                params.truncate(held);
            }
            false
        }
    }
}

/// Whether `rest` fits what follows the slash at `end`.
fn follow(rest: &[Segment], path: &str, end: usize, params: &mut Params) -> bool {
    match path[end..].strip_prefix('/') {
        None => rest.is_empty(),
        Some(_) if rest.is_empty() => false,
        Some(path) => matches(rest, path, params),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        let read = Path::read(pattern, true);
        if !(path.starts_with(read.key) && (read.fit == Fit::Prefix || path == read.key)) {
            return None;
        }
        let params = match read.pattern {
            Some(pattern) => pattern.matches(path)?,
            None => Params::new(),
        };
        Some(params.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn patterns_match_whole_paths() {
        let pairs = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
        };
        for (pattern, path, expected) in [
            ("/a", "/a", pairs(&[])),
            ("/a", "/a/", None),
            ("/a*", "/abc", pairs(&[])),
            ("/a/*", "/a/", pairs(&[])),
            ("/a/*", "/a", None),
            ("/blog/:name", "/blog/foo", pairs(&[("name", "foo")])),
            ("/blog/:name", "/blog/", None),
            ("/blog/:name", "/blog/foo/bar", None),
            ("/blog/:name/", "/blog/foo/", pairs(&[("name", "foo")])),
            ("/blog/:name/", "/blog/foo", None),
            ("/:a/b/:c", "/x/b/y", pairs(&[("a", "x"), ("c", "y")])),
            ("/:a/b/:c", "/x/c/y", None),
            ("/a/*/c", "/a/x/y/c", pairs(&[])),
            ("/a/*/c", "/a/x/y/d", None),
            ("/a/*mid/c/*rest", "/a/1/c/2/c/3", pairs(&[("mid", "1/c/2"), ("rest", "3")])),
            ("/a/:x/*rest", "/a/1/", pairs(&[("x", "1"), ("rest", "")])),
            ("/v1/users:batch", "/v1/users:batch", pairs(&[])),
        ] {
            assert_eq!(named(pattern, path), expected, "{pattern} {path}");
        }
        let literal = Path::read("/blog/:name", false);
        assert_eq!((literal.key, literal.fit), ("/blog/:name", Fit::Exact));
    }
}
