use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

struct Sample {
    id: String,
    rule: Rule,
}

impl Target for Sample {
    fn id(&self) -> &str {
        &self.id
    }

    fn rule(&self) -> &Rule {
        &self.rule
    }
}

fn sample(id: &str, route: &Json) -> Arc<Sample> {
    let route = serde_json::from_str(&route.to_string()).unwrap();
    Arc::new(Sample { id: id.to_owned(), rule: Rule::read(&route, None).unwrap() })
}

fn router(kind: Kind, routes: &[Json]) -> Router<Sample> {
    let mut router = Router::new(kind);
    for (id, route) in routes.iter().enumerate() {
        router.insert(&sample(&id.to_string(), route));
    }
    router
}

/// A request by method, host and path, from 127.0.0.1, with `arg_k` = `v`.
fn find(router: &Router<Sample>, method: &str, host: &str, path: &str) -> Option<usize> {
    let method = method.parse().unwrap();
    let vars = |var: &Var| match var {
        Var::Arg(name) if &**name == "k" => Some("v".into()),
        Var::Http(name) if name == http::header::HOST => Some(Cow::from(format!("{host}:9080")).into()),
        _ => None,
    };
    let query = Query { host, path, method: &method, remote: [127, 0, 0, 1].into(), vars: &vars };
    router.find(&query).map(|found| found.target.id.parse().unwrap())
}

#[test]
fn the_host_comes_before_the_path() {
    let router = router(
        Kind::HostUri,
        &[
            json!({"uri": "/a/b", "host": "*.foo.com"}),
            json!({"uri": "/*", "host": "a.foo.com"}),
            json!({"uri": "/a/b/c"}),
            json!({"uri": "/a/*", "hosts": ["*.x.foo.com", "FOO.com"]}),
        ],
    );
    assert_eq!(find(&router, "GET", "a.foo.com", "/a/b"), Some(1));
    assert_eq!(find(&router, "GET", "b.foo.com", "/a/b"), Some(0));
    assert_eq!(find(&router, "GET", "c.b.foo.com", "/a/b"), Some(0));
    assert_eq!(find(&router, "GET", "y.x.foo.com", "/a/b"), Some(3));
    // What the longer wildcard has no path for, the shorter one may have; then routes without a host.
    assert_eq!(find(&router, "GET", "y.x.foo.com", "/a/b/c"), Some(3));
    assert_eq!(find(&router, "GET", "b.foo.com", "/a/b/c"), Some(2));
    assert_eq!(find(&router, "GET", "foo.com", "/a/"), Some(3));
    assert_eq!(find(&router, "GET", "foo.com", "/b"), None);
}

#[test]
fn exact_before_prefix_and_priority_among_equals() {
    let routes = [
        json!({"uri": "/a/*", "priority": 100}),
        json!({"uri": "/a/b"}),
        json!({"uri": "/a/b", "priority": 1}),
        json!({"uri": "/*"}),
        json!({"uri": "/a/bc/*"}),
    ];
    for kind in [Kind::HostUri, Kind::Uri, Kind::UriWithParameter] {
        let router = router(kind, &routes);
        assert_eq!(find(&router, "GET", "x", "/a/b"), Some(2));
        assert_eq!(find(&router, "GET", "x", "/a/c"), Some(0));
        assert_eq!(find(&router, "GET", "x", "/a/bc/d"), Some(4));
        assert_eq!(find(&router, "GET", "x", "/b"), Some(3));
    }
}

#[test]
fn conditions_decide_and_the_next_best_is_tried() {
    let router = router(
        Kind::HostUri,
        &[
            json!({"uri": "/a", "methods": ["PUT", "PURGE"]}),
            json!({"uri": "/a", "remote_addr": "10.0.0.0/8", "priority": 9}),
            json!({"uri": "/a", "vars": [["arg_k", "==", "w"]], "priority": 8}),
            json!({"uri": "/a", "vars": [["arg_k", "==", "v"]], "methods": ["POST"]}),
            json!({"uri": "/*", "remote_addrs": ["127.0.0.1", "::1"]}),
            json!({"uri": "/b", "filter_func": "function(vars) return vars.arg_k == 'w' end"}),
            json!({"uri": "/c", "filter_func": "function(vars) return vars.arg_k == 'v' end"}),
            json!({"uri": "/d", "filter_func": "function(vars) return vars.arg_k + 1 end"}),
        ],
    );
    assert_eq!(find(&router, "PUT", "", "/a"), Some(0));
    assert_eq!(find(&router, "PURGE", "", "/a"), Some(0));
    assert_eq!(find(&router, "POST", "", "/a"), Some(3));
    assert_eq!(find(&router, "BREW", "", "/a"), Some(4));
    assert_eq!(find(&router, "GET", "", "/b"), Some(4));
    assert_eq!(find(&router, "GET", "", "/c"), Some(6));
    assert_eq!(find(&router, "GET", "", "/d"), Some(4));
}

#[test]
fn hosts_with_a_port_are_compared_with_the_header() {
    let router = router(
        Kind::Uri,
        &[json!({"uri": "/a", "host": "foo.com:9080"}), json!({"uri": "/a", "host": "*.com:9080"})],
    );
    assert_eq!(find(&router, "GET", "foo.com", "/a"), Some(0));
    assert_eq!(find(&router, "GET", "bar.com", "/a"), Some(1));
    assert_eq!(find(&router, "GET", "bar.org", "/a"), None);
}

#[test]
fn what_cannot_be_matched_is_refused() {
    for (route, reason) in [
        (json!({"uri": "/a", "filter_func": "function("}), "failed to load 'filter_func' string"),
        (json!({"uri": "/a", "methods": ["BREW"]}), "unknown method"),
        (json!({"uri": "/a", "remote_addr": "nowhere"}), "invalid ip address: nowhere"),
        (json!({"uri": "/a", "vars": [["a", "?", "b"]]}), "failed to validate the 'vars' expression"),
        (json!({"host": "a"}), "neither uri nor uris"),
    ] {
        let error = Rule::read(&serde_json::from_str(&route.to_string()).unwrap(), None).unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }
}

#[derive(Clone, Debug)]
struct Made {
    path: String,
    hosts: Vec<String>,
    methods: Vec<String>,
    priority: i64,
}

impl Made {
    fn json(&self) -> Json {
        let mut route = json!({"uri": self.path, "methods": self.methods, "priority": self.priority});
        if !self.hosts.is_empty() {
            route["hosts"] = json!(self.hosts);
        }
        route
    }
}

fn made() -> impl Strategy<Value = Made> {
    let segment = prop::sample::select(vec!["a", "b", "ab", ":x", "*y", ""]);
    let path = (prop::collection::vec(segment, 0..4), any::<bool>())
        .prop_map(|(segments, star)| format!("/{}{}", segments.join("/"), if star { "*" } else { "" }));
    let host = prop::sample::select(vec!["a.c", "b.a.c", "*.a.c", "*.c", "*", "d"]);
    let method = prop::sample::select(vec!["GET", "PUT"]);
    (path, prop::collection::vec(host, 0..3), prop::collection::vec(method, 0..2), 0..3i64).prop_map(
        |(path, hosts, methods, priority)| Made {
            path,
            hosts: hosts.into_iter().map(str::to_owned).collect(),
            methods: methods.into_iter().map(str::to_owned).collect(),
            priority,
        },
    )
}

/// The rules as they are documented, over a list.
fn naive(routes: &[Option<Made>], kind: Kind, method: &str, host: &str, path: &str) -> Option<usize> {
    let host_fits = |pattern: &str| match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => host == pattern,
    };
    let mut best = None;
    for (id, route) in routes.iter().enumerate() {
        let Some(route) = route else { continue };
        if !route.methods.is_empty() && !route.methods.iter().any(|m| m == method) {
            continue;
        }
        let Some(path_rank) = naive_path(&route.path, kind == Kind::UriWithParameter, path) else { continue };
        let hosts: Vec<(bool, usize)> = if route.hosts.is_empty() {
            vec![(false, 0)]
        } else if kind == Kind::HostUri {
            let fitting = route.hosts.iter().filter(|host| host_fits(host));
            fitting.map(|host| (!host.starts_with('*'), host.len())).collect()
        } else {
            Vec::from_iter(route.hosts.iter().any(|host| host_fits(host)).then_some((false, 0)))
        };
        for host_rank in hosts {
            let rank = (host_rank, path_rank, route.priority, route.path.len(), Reverse(id.to_string()));
            if best.as_ref().is_none_or(|(held, _)| *held < rank) {
                best = Some((rank, id));
            }
        }
    }
    best.map(|(_, id)| id)
}

/// Whether the key is the whole path, and how long the key is.
fn naive_path(pattern: &str, named: bool, path: &str) -> Option<(bool, usize)> {
    let wild = |at: usize| {
        pattern[at..].starts_with('*')
            || named && pattern[at..].starts_with(':') && pattern[..at].ends_with('/')
    };
    let Some(end) = (0..pattern.len()).find(|&at| wild(at)) else {
        return (pattern == path).then_some((true, pattern.len()));
    };
    // A name is one wherever there is a star, too.
    let wild_names = named || pattern.contains('*');
    let segments: Vec<String> = pattern
        .split('/')
        .map(|segment| match segment {
            _ if segment.starts_with('*') => "(?s:.*)".to_owned(),
            _ if wild_names && segment.starts_with(':') => "[^/]+".to_owned(),
            _ => regex::escape(segment),
        })
        .collect();
    let decides = pattern.split('/').any(|s| s.starts_with('*') || wild_names && s.starts_with(':'));
    let expression = regex::Regex::new(&format!("^{}$", segments.join("/"))).unwrap();
    let fits = path.starts_with(&pattern[..end]) && (!decides || expression.is_match(path));
    fits.then_some((false, end))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn it_finds_what_the_rules_say(
        routes in prop::collection::vec(made(), 0..12),
        removed in prop::collection::vec(any::<bool>(), 12),
        path in "/([ab]{1,2}|:x)?(/[ab]{0,2}){0,3}",
        host in prop::sample::select(vec!["a.c", "b.a.c", "x.b.a.c", "c", "d", ".c", ""]),
        method in prop::sample::select(vec!["GET", "PUT", "HEAD"]),
        kind in prop::sample::select(vec![Kind::HostUri, Kind::Uri, Kind::UriWithParameter]),
    ) {
        let mut router = Router::new(kind);
        let samples: Vec<_> =
            routes.iter().enumerate().map(|(id, route)| sample(&id.to_string(), &route.json())).collect();
        samples.iter().for_each(|sample| router.insert(sample));
        let before = router.clone();
        let all: Vec<_> = routes.iter().cloned().map(Some).collect();
        let mut left = all.clone();
        for ((sample, gone), slot) in samples.iter().zip(removed).zip(&mut left) {
            if gone {
                router.remove(sample);
                *slot = None;
            }
        }
        prop_assert_eq!(find(&router, method, host, &path), naive(&left, kind, method, host, &path));
        prop_assert_eq!(find(&before, method, host, &path), naive(&all, kind, method, host, &path));
    }
}
