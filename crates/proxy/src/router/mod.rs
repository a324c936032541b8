//! Which route a request is for: APISIX's three routers on one tree.
//!
//! The rule to know: host before path before conditions. The exact host is tried before wildcards, a longer
//! wildcard before a shorter one, all of them before routes without a host; within each the exact path before
//! prefixes, the longest first. Only among routes found by the same host and key does priority decide, then the
//! longer URI, then the id.

mod path;
mod rule;
mod settings;
mod tree;

use std::{borrow::Cow, cmp::Reverse, net::IpAddr, sync::Arc};

use http::Method;
use model::expr::Operand;
use serde::Deserialize;
use smallvec::SmallVec;

pub use rule::Rule;
pub use settings::Routing;

use crate::vars::Var;
use path::{Path, Pattern};
use tree::{Fit, Tree, Value};

/// `apisix.router.http`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Kind {
    #[default]
    #[serde(rename = "radixtree_host_uri")]
    HostUri,
    #[serde(rename = "radixtree_uri")]
    Uri,
    #[serde(rename = "radixtree_uri_with_parameter")]
    UriWithParameter,
}

/// What a router finds.
pub trait Target {
    fn id(&self) -> &str;
    fn rule(&self) -> &Rule;
}

/// Targets by host and path. Cloning shares; changing one of many is cheap.
pub struct Router<T> {
    kind: Kind,
    /// By host from its end, without the star; only with [`Kind::HostUri`].
    hosts: Tree<Tree<Leaf<T>>>,
    /// Those without a host; with the other kinds all.
    paths: Tree<Leaf<T>>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new(Kind::default())
    }
}

impl<T> Clone for Router<T> {
    fn clone(&self) -> Self {
        Self { kind: self.kind, hosts: self.hosts.clone(), paths: self.paths.clone() }
    }
}

/// What of a request decides.
pub struct Query<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub method: &'a Method,
    pub remote: IpAddr,
    /// Looks up a variable.
    pub vars: &'a dyn Fn(&Var) -> Option<Operand<'a>>,
}

/// Values of the named segments of a URI.
pub type Params = SmallVec<[(Arc<str>, Box<str>); 2]>;

/// Which of a rule's URIs and hosts matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchedBy {
    pub path: u16,
    /// None where the rule has no hosts.
    pub host: Option<u16>,
}

/// What [`Router::find`] finds.
pub struct Found<'a, T> {
    pub target: &'a Arc<T>,
    pub by: MatchedBy,
    pub params: Params,
}

impl<T> Router<T> {
    pub fn new(kind: Kind) -> Self {
        Self { kind, hosts: Tree::default(), paths: Tree::default() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl<T: Target> Router<T> {
    /// Adds it under all its hosts and URIs.
    pub fn insert(&mut self, target: &Arc<T>) {
        self.edit(target, |leaf, entry| {
            let order = entry.order();
            leaf.change(|entries| {
                let at = entries.partition_point(|other| other.order() <= order);
                entries.insert(at, entry.clone());
            });
        });
    }

    /// Takes out what [`Router::insert`] added.
    pub fn remove(&mut self, target: &Arc<T>) {
        self.edit(target, |leaf, entry| {
            let is_it = |other: &Entry<T>| Arc::ptr_eq(&other.target, &entry.target) && other.by == entry.by;
            leaf.change(|entries| entries.retain(|other| !is_it(other)));
        });
    }

    /// The target for a request.
    pub fn find<'a>(&'a self, query: &Query<'_>) -> Option<Found<'a, T>> {
        if !self.hosts.is_empty() {
            let mut buffer = [0; 64];
            let backwards = reversed(query.host, &mut buffer);
            let found = self.hosts.find(&backwards, &mut |paths| self.find_path(paths, query));
            if found.is_some() {
                return found;
            }
        }
        self.find_path(&self.paths, query)
    }

    fn find_path<'a>(&self, paths: &'a Tree<Leaf<T>>, query: &Query<'_>) -> Option<Found<'a, T>> {
        paths.find(query.path.as_bytes(), &mut |leaf| {
            leaf.entries().iter().find_map(|entry| entry.matches(query, self.kind))
        })
    }

    fn edit(&mut self, target: &Arc<T>, change: impl Fn(&mut Leaf<T>, Entry<T>)) {
        let rule = target.rule();
        for (at, path) in (0..).zip(&rule.paths) {
            let path = Path::read(path, self.kind == Kind::UriWithParameter);
            let entry = |host| Entry {
                target: target.clone(),
                pattern: path.pattern.clone(),
                by: MatchedBy { path: at, host },
            };
            match (&rule.hosts, self.kind) {
                (Some(hosts), Kind::HostUri) => {
                    for (at, host) in (0..).zip(&**hosts) {
                        let (key, fit) = match host.strip_prefix('*') {
                            Some(suffix) => (suffix, Fit::Prefix),
                            None => (&**host, Fit::Exact),
                        };
                        let backwards = reversed(key, &mut []);
                        self.hosts.edit(&backwards, fit, |paths| {
                            paths.edit(path.key.as_bytes(), path.fit, |leaf| change(leaf, entry(Some(at))));
                        });
                    }
                }
                _ => self.paths.edit(path.key.as_bytes(), path.fit, |leaf| change(leaf, entry(None))),
            }
        }
    }
}

/// A host from its end, in `buffer` where it fits.
fn reversed<'b>(host: &str, buffer: &'b mut [u8]) -> Cow<'b, [u8]> {
    let Some(buffer) = buffer.get_mut(..host.len()) else { return host.bytes().rev().collect() };
    for (to, from) in buffer.iter_mut().zip(host.bytes().rev()) {
        *to = from;
    }
    Cow::Borrowed(buffer)
}

/// The targets under one key, first to last.
#[derive(Default)]
enum Leaf<T> {
    #[default]
    None,
    /// As nearly always: found without another look into memory.
    One(Entry<T>),
    Many(Box<[Entry<T>]>),
}

// See the node of the tree.
const _: () = assert!(size_of::<Leaf<()>>() == 24);

impl<T> Leaf<T> {
    fn entries(&self) -> &[Entry<T>] {
        match self {
            Self::None => &[],
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Entry<T>>)) {
        let mut entries = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(entry) => vec![entry],
            Self::Many(entries) => entries.into(),
        };
        change(&mut entries);
        *self = match entries.len() {
            0 => Self::None,
            1 => entries.pop().map_or(Self::None, Self::One),
            _ => Self::Many(entries.into()),
        };
    }
}

struct Entry<T> {
    target: Arc<T>,
    pattern: Option<Arc<Pattern>>,
    by: MatchedBy,
}

impl<T: Target> Entry<T> {
    fn order(&self) -> (Reverse<i64>, Reverse<usize>, &str) {
        let rule = self.target.rule();
        (Reverse(rule.priority), Reverse(rule.paths[usize::from(self.by.path)].len()), self.target.id())
    }

    fn matches(&self, query: &Query<'_>, kind: Kind) -> Option<Found<'_, T>> {
        let rule = self.target.rule();
        if !rule.admits(query) {
            return None;
        }
        let mut by = self.by;
        if kind != Kind::HostUri {
            by.host = rule.host_for(query)?;
        }
        let params = match &self.pattern {
            None => Params::new(),
            Some(pattern) => pattern.matches(query.path)?,
        };
        Some(Found { target: &self.target, by, params })
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), pattern: self.pattern.clone(), by: self.by }
    }
}

impl<T> Clone for Leaf<T> {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::One(entry) => Self::One(entry.clone()),
            Self::Many(entries) => Self::Many(entries.clone()),
        }
    }
}

impl<T> Value for Leaf<T> {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

#[cfg(test)]
mod tests;
