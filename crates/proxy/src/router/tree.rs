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

/// With many routes each line of memory that is touched is a line that no cache holds: what a lookup reads of the last
/// node on its way lies in one, what it reads of the others in the next.
#[derive(Clone)]
#[repr(C)]
struct Node<V> {
    /// As long as a pointer with its length is anyway, without an allocation of its own.
    label: SmallVec<[u8; 16]>,
    exact: V,
    firsts: Firsts,
    /// Sorted by the first bytes of their labels.
    children: SmallVec<[Arc<Node<V>>; 2]>,
    prefix: V,
}

/// The first bytes of the first children's labels, so that a child is found without a look at its siblings.
#[derive(Clone, Copy, Default)]
#[repr(C, align(8))]
struct Firsts([u8; Firsts::LEN]);

impl Firsts {
    const LEN: usize = 16;

    fn of<V: Value>(children: &[Arc<Node<V>>]) -> Self {
        let mut firsts = [0; Self::LEN];
        for (to, child) in firsts.iter_mut().zip(children) {
            *to = child.first();
        }
        Self(firsts)
    }

    /// Where `first` stands, without a branch for each byte: which child comes next can't be foreseen.
    fn position(self, first: u8) -> Option<usize> {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        // The highest bit of each byte that is `first`; of those above the lowest such byte it may be set by chance.
        let found = |bytes: [u8; 8]| {
            let differs = u64::from_le_bytes(bytes) ^ (ONES * u64::from(first));
            differs.wrapping_sub(ONES) & !differs & (ONES << 7)
        };
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        match (found([a, b, c, d, e, f, g, h]), found(rest)) {
            (0, 0) => None,
            (0, rest) => Some(8 + rest.trailing_zeros() as usize / 8),
            (found, _) => Some(found.trailing_zeros() as usize / 8),
        }
    }
}

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
            label: SmallVec::from_slice(label),
            exact: V::default(),
            firsts: Firsts::default(),
            children: SmallVec::new(),
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

    /// What the label begins with. Only the root's may be empty.
    fn first(&self) -> u8 {
        self.label.first().copied().unwrap_or_default()
    }

    fn child(&self, first: u8) -> Option<&Self> {
        let at = if self.children.len() > Firsts::LEN {
            self.search(first).ok()
        } else {
            // Beyond the children there are zeros.
            self.firsts.position(first)
        };
        self.children.get(at?).map(|child| &**child)
    }

    /// Where the child that begins with `first` stands, or would.
    fn search(&self, first: u8) -> Result<usize, usize> {
        match self.firsts.0.get(..self.children.len()) {
            Some(firsts) => firsts.binary_search(&first),
            None => self.children.binary_search_by_key(&first, |child| child.first()),
        }
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
            label: SmallVec::from_slice(&self.label[at..]),
            exact: std::mem::take(&mut self.exact),
            firsts: std::mem::take(&mut self.firsts),
            children: std::mem::take(&mut self.children),
            prefix: std::mem::take(&mut self.prefix),
        };
        self.label = SmallVec::from_slice(&self.label[..at]);
        self.children.push(Arc::new(lower));
        self.firsts = Firsts::of(&self.children);
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
    let at = match node.search(rest[0]) {
        Ok(at) => at,
        Err(at) => {
            node.children.insert(at, Arc::new(Node::new(rest)));
            node.firsts = Firsts::of(&node.children);
            at
        }
    };
    edit(&mut node.children[at], rest, fit, change);
    if node.children[at].is_bare() {
        node.children.remove(at);
        node.firsts = Firsts::of(&node.children);
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

    #[test]
    fn children_are_found_however_many_they_are() {
        let mut tree = Tree::<Vec<u32>>::default();
        for count in 0..=u8::MAX {
            // Neither sorted nor the other way round; zero comes late.
            let first = count.wrapping_mul(83).wrapping_add(131);
            tree.edit(&[b'/', first], Fit::Exact, |values| values.push(first.into()));
            for asked in 0..=u8::MAX {
                let found = tree.find(&[b'/', asked], &mut |values| values.first().copied());
                let there = asked.wrapping_sub(131).wrapping_mul(219) <= count;
                assert_eq!(found, there.then(|| asked.into()), "{asked} among {count}");
            }
        }
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
