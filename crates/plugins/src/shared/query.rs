//! The query of a request: read and changed by name.

use std::borrow::Cow;

use form_urlencoded::parse;
use proxy::ctx::RequestHead;

/// What the query says of an argument.
#[derive(Debug, PartialEq, Eq)]
pub enum Arg<'a> {
    Absent,
    One(Cow<'a, str>),
    /// Several times, or without `=`: no text to compare with.
    Other,
}

/// An argument of the query.
pub fn arg<'a>(request: &'a RequestHead, name: &str) -> Arg<'a> {
    let mut found = Arg::Absent;
    for pair in pairs(request.query()) {
        if let Some((_, value)) = parse(pair.as_bytes()).next().filter(|(key, _)| key == name) {
            let alone = found == Arg::Absent && pair.contains('=');
            found = if alone { Arg::One(value) } else { Arg::Other };
        }
    }
    found
}

/// Removes an argument, as plugins and the upstream see the query. The others stay as they were written.
pub fn remove_arg(request: &mut RequestHead, name: &str) {
    if let Some(query) = without(request.query(), name) {
        request.set_query(&query);
    }
    if let Some((path, query)) = request.upstream_target.as_ref().and_then(|target| target.split_once('?'))
        && let Some(query) = without(query, name)
    {
        let mark = if query.is_empty() { "" } else { "?" };
        request.upstream_target = Some(format!("{path}{mark}{query}"));
    }
}

/// The query without an argument; none where it is not in it.
fn without(query: &str, name: &str) -> Option<String> {
    let is_it = |pair: &&str| parse(pair.as_bytes()).next().is_some_and(|(key, _)| key == name);
    pairs(query).any(|pair| is_it(&pair)).then(|| {
        let kept: Vec<&str> = pairs(query).filter(|pair| !is_it(pair)).collect();
        kept.join("&")
    })
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

#[cfg(test)]
mod tests {
    use proxy::ctx::Ctx;

    use super::*;

    #[test]
    fn arguments_are_found_as_they_were_meant() {
        let ctx = Ctx::example("GET", "/?a=1&b=x+y%21&c&d=1&d=2&e=", &[]);
        let arg = |name| arg(&ctx.request, name);
        assert_eq!(arg("a"), Arg::One("1".into()));
        assert_eq!(arg("b"), Arg::One("x y!".into()));
        assert_eq!(arg("e"), Arg::One("".into()));
        assert_eq!((arg("c"), arg("d"), arg("z")), (Arg::Other, Arg::Other, Arg::Absent));
    }

    #[test]
    fn the_others_stay_as_they_were_written() {
        let mut request = Ctx::example("GET", "/a%20b?x=%41+1&key=1&y=b&key=2", &[]).request;
        request.upstream_target = Some("/other?key=1&z=0".into());
        remove_arg(&mut request, "key");
        assert_eq!((request.query(), request.target()), ("x=%41+1&y=b", "/a%20b?x=%41+1&y=b"));
        assert_eq!(request.upstream_target.as_deref(), Some("/other?z=0"));
        remove_arg(&mut request, "x");
        remove_arg(&mut request, "y");
        assert_eq!(request.target(), "/a%20b");
    }
}
