//! A persistent radix tree over bytes.
//!
//! The rule to know: a clone shares every node. A change copies the nodes on its path and no others, and none that
//! nobody else holds, so that the first load builds in place.

use std::sync::Arc;

use smallvec::SmallVec;

/// What the tree holds: it drops a key whose value is empty.
pub trait Value: Clone + Default {
    fn is_empty(&self) -> bool;
}

/// Which keys of a lookup a value is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The whole key.
    Exact,
    /// Every key that begins with it.
    Prefix,
}

/// Values by exact key and by prefix.
#[derive(Clone)]
pub struct Tree<V> {
    root: Option<Arc<Node<V>>>,
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: None }
    }
}

/// In this order, what a lookup reads of every node on its way lies side by side, and mostly in the node itself: with
/// many routes each line of memory that is touched is a line that no cache holds.
#[derive(Clone)]
#[repr(C)]
struct Node<V> {
    label: Bytes,
    /// The first bytes of the children's labels, sorted.
    firsts: Bytes,
    children: SmallVec<[Arc<Node<V>>; 2]>,
    exact: V,
    prefix: V,
}

/// As long as a pointer with its length is anyway, without an allocation of its own.
type Bytes = SmallVec<[u8; 16]>;

impl<V: Value> Tree<V> {
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Changes the value at `key`, which is the default where there was none.
    pub fn edit(&mut self, key: &[u8], fit: Fit, change: impl FnOnce(&mut V)) {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::new(key)));
        edit(root, key, fit, change);
        if root.is_bare() {
            self.root = None;
        }
    }

    /// Visits the value at `key`, then those at its prefixes, the longest first, until `visit` finds something.
    pub fn find<'t, R>(&'t self, key: &[u8], visit: &mut impl FnMut(&'t V) -> Option<R>) -> Option<R> {
        self.root.as_ref().and_then(|root| root.find(key, visit))
    }
}

impl<V: Value> Value for Tree<V> {
    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

impl<V: Value> Node<V> {
    fn new(label: &[u8]) -> Self {
        Self {
            label: Bytes::from_slice(label),
            firsts: Bytes::new(),
            children: SmallVec::new(),
            exact: V::default(),
            prefix: V::default(),
        }
    }

    fn find<'t, R>(&'t self, key: &[u8], visit: &mut impl FnMut(&'t V) -> Option<R>) -> Option<R> {
        let rest = key.strip_prefix(&*self.label)?;
        let found = match rest.first() {
            None if self.exact.is_empty() => None,
            None => visit(&self.exact),
            Some(&first) => self.child(first).and_then(|child| child.find(rest, visit)),
        };
        if found.is_some() || self.prefix.is_empty() { found } else { visit(&self.prefix) }
    }

    fn child(&self, first: u8) -> Option<&Self> {
        let at = self.firsts.iter().position(|&b| b == first)?;
        Some(&self.children[at])
    }

    fn holds_nothing(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty()
    }

    fn is_bare(&self) -> bool {
        self.holds_nothing() && self.children.is_empty()
    }

    /// Keeps `at` bytes of the label and moves the rest with everything below into a child.
    fn split(&mut self, at: usize) {
        let lower = Self {
            label: Bytes::from_slice(&self.label[at..]),
            firsts: std::mem::take(&mut self.firsts),
            children: std::mem::take(&mut self.children),
            exact: std::mem::take(&mut self.exact),
            prefix: std::mem::take(&mut self.prefix),
        };
        self.label = Bytes::from_slice(&self.label[..at]);
        self.firsts.push(lower.label[0]);
        self.children.push(Arc::new(lower));
    }

    /// Takes in an only child where this node holds nothing of its own.
    fn join(&mut self) {
        if !self.holds_nothing() || self.children.len() != 1 {
            return;
        }
        let Some(child) = self.children.pop() else { return };
        let mut child = Arc::unwrap_or_clone(child);
        child.label.insert_from_slice(0, &self.label);
        child.label.shrink_to_fit();
        *self = child;
    }
}

fn edit<V: Value>(node: &mut Arc<Node<V>>, key: &[u8], fit: Fit, change: impl FnOnce(&mut V)) {
    let node = Arc::make_mut(node);
    let common = node.label.iter().zip(key).take_while(|(a, b)| a == b).count();
    if common < node.label.len() {
        node.split(common);
    }
    let rest = &key[common..];
    if rest.is_empty() {
        change(match fit {
            Fit::Exact => &mut node.exact,
            Fit::Prefix => &mut node.prefix,
        });
    } else {
        edit_below(node, rest, fit, change);
    }
    node.join();
}

fn edit_below<V: Value>(node: &mut Node<V>, rest: &[u8], fit: Fit, change: impl FnOnce(&mut V)) {
    let at = match node.firsts.binary_search(&rest[0]) {
        Ok(at) => at,
        Err(at) => {
            node.firsts.insert(at, rest[0]);
            node.children.insert(at, Arc::new(Node::new(rest)));
            at
        }
    };
    edit(&mut node.children[at], rest, fit, change);
    if node.children[at].is_bare() {
        node.firsts.remove(at);
        node.children.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Value for Vec<u32> {
        fn is_empty(&self) -> bool {
            Vec::is_empty(self)
        }
    }

    fn all(tree: &Tree<Vec<u32>>, key: &str) -> Vec<u32> {
        let mut seen = Vec::new();
        tree.find(key.as_bytes(), &mut |values| {
            seen.extend(values);
            None::<()>
        });
        seen
    }

    #[test]
    fn the_exact_key_comes_first_then_the_longest_prefix() {
        let mut tree = Tree::<Vec<u32>>::default();
        for (key, fit, value) in [
            ("/", Fit::Prefix, 1),
            ("/ab", Fit::Exact, 2),
            ("/ab", Fit::Prefix, 3),
            ("/abc/", Fit::Prefix, 4),
            ("/ax", Fit::Exact, 5),
        ] {
            tree.edit(key.as_bytes(), fit, |values| values.push(value));
        }
        assert_eq!(all(&tree, "/ab"), [2, 3, 1]);
        assert_eq!(all(&tree, "/abc/d"), [4, 3, 1]);
        assert_eq!(all(&tree, "/a"), [1]);
        assert_eq!(all(&tree, "x"), [0; 0]);
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list_and_old_versions_never_change(
            edits in prop::collection::vec(("[ab/]{0,5}", any::<bool>(), any::<bool>()), 1..60),
            key in "[ab/]{0,7}",
        ) {
            let mut tree = Tree::<Vec<u32>>::default();
            let mut list: Vec<(String, Fit)> = Vec::new();
            let mut versions = Vec::new();
            let expect = |list: &[(String, Fit)], key: &str| {
                let mut hits: Vec<_> = list.iter().enumerate()
                    .filter(|(_, (k, fit))| if *fit == Fit::Exact { k == key } else { key.starts_with(k.as_str()) })
                    .map(|(at, (k, fit))| (*fit != Fit::Exact, std::cmp::Reverse(k.len()), at))
                    .collect();
                hits.sort_unstable();
                hits.len()
            };
            for (path, exact, add) in edits {
                let fit = if exact { Fit::Exact } else { Fit::Prefix };
                let held = (path.clone(), fit);
                if add {
                    tree.edit(path.as_bytes(), fit, |values| values.push(0));
                    list.push(held);
                } else {
                    tree.edit(path.as_bytes(), fit, |values| {
                        values.pop();
                    });
                    if let Some(at) = list.iter().position(|other| *other == held) {
                        list.remove(at);
                    }
                }
                versions.push((tree.clone(), list.clone()));
            }
            for (tree, list) in &versions {
                prop_assert_eq!(all(tree, &key).len(), expect(list, &key));
                prop_assert_eq!(tree.is_empty(), list.is_empty());
            }
        }
    }
}
