//! The URIs of routes: `/a`, `/a/*`, `/a/:name/b`, `/a/*rest`.
//!
//! The rule to know: the tree finds a URI by what stands before its first wildcard; where more follows than that,
//! a [`Pattern`] decides.

use std::{ops::Range, sync::Arc};

use smallvec::SmallVec;

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

    /// Whether the whole path fits, and what its named segments are. Takes time in proportion to the path's length
    /// times the number of segments, whatever the path is.
    pub fn matches(&self, path: &str) -> Option<Params> {
        let failed = SmallVec::from_elem(usize::MAX, self.0.len());
        let mut search = Search { path, segments: &self.0, named: SmallVec::new(), failed };
        search.fits(0, 0).then(|| {
            search.named.into_iter().map(|(name, range)| (name.clone(), path[range].into())).collect()
        })
    }
}

/// A path being matched.
struct Search<'a> {
    path: &'a str,
    segments: &'a [Segment],
    named: SmallVec<[(&'a Arc<str>, Range<usize>); 2]>,
    /// By star: where it was tried to end and what follows it did not fit. All ends from here on have failed, and do
    /// so wherever the star begins, so that none is tried twice.
    failed: SmallVec<[usize; 8]>,
}

impl Search<'_> {
    /// Whether the segments from `at` on fit the path from `start` on.
    fn fits(&mut self, at: usize, start: usize) -> bool {
        let path = self.path;
        match &self.segments[at] {
            Segment::Text(text) => {
                let end = segment_end(path, start);
                path[start..end] == **text && self.follows(at, end)
            }
            Segment::One(name) => {
                let end = segment_end(path, start);
                self.named.push((name, start..end));
                if end > start && self.follows(at, end) {
                    return true;
                }
                self.named.pop();
                false
            }
            Segment::Any(name) => {
                // As much as possible first, as the regular expression of APISIX takes it.
                let tried = self.failed[at];
                let whole = (tried > path.len()).then_some(path.len());
                let slashes = path[start..tried.clamp(start, path.len())].rmatch_indices('/');
                for end in whole.into_iter().chain(slashes.map(|(slash, _)| start + slash)) {
                    let held = self.named.len();
                    self.named.extend(name.iter().map(|name| (name, start..end)));
                    if self.follows(at, end) {
                        return true;
                    }
                    self.named.truncate(held);
                }
                self.failed[at] = tried.min(start);
                false
            }
        }
    }

    /// Whether what comes after the segment `at` fits what follows the slash at `end`.
    fn follows(&mut self, at: usize, end: usize) -> bool {
        match (at + 1 == self.segments.len(), end == self.path.len()) {
            (true, is_end) => is_end,
            (false, true) => false,
            (false, false) => self.fits(at + 1, end + 1),
        }
    }
}

fn segment_end(path: &str, start: usize) -> usize {
    path[start..].find('/').map_or(path.len(), |slash| start + slash)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// A regular expression, as APISIX makes one of the URI, matches the same and captures the same.
        #[test]
        fn it_is_the_regular_expression(
            pattern in "/(a|b|:x|[*]y|[*]|)(/(a|b|:x|[*]y|[*]|)){0,6}",
            path in "/[ab]{0,2}(/[ab]{0,2}){0,8}",
        ) {
            let Some(compiled) = Pattern::read(&pattern) else { return Ok(()) };
            let expression = pattern.split('/').map(|segment| match segment.as_bytes() {
                [b'*', ..] => "(?s:(.*))",
                [b':', ..] => "([^/]+)",
                _ => segment,
            });
            let expression = format!("^{}$", expression.collect::<Vec<_>>().join("/"));
            let found = regex::Regex::new(&expression).unwrap().captures(&path);
            let wild = pattern.split('/').filter(|segment| segment.starts_with([':', '*']));
            let expected = found.map(|found| {
                let all = wild.zip(found.iter().skip(1).flatten());
                let named = all.filter(|(name, _)| *name != "*");
                named.map(|(name, text)| (name[1..].into(), text.as_str().into())).collect::<Params>()
            });
            prop_assert_eq!(compiled.matches(&path), expected);
        }
    }

    #[test]
    fn no_path_takes_long() {
        let pattern = Pattern::read("/w/*one/b/*/b/*/b/:x/*/b/*two/z").unwrap();
        let path = format!("/w/{}", "b/".repeat(4000));
        let began = Instant::now();
        assert_eq!(pattern.matches(&path), None);
        let fits = pattern.matches(&format!("{path}z")).unwrap();
        assert_eq!((&*fits[1].1, &*fits[2].1), ("b", "b"));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

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
