//! Weighted round robin: in every full turn each node comes exactly as often as its weight says, well mixed.
//!
//! The rule to know: a turn begins at any place, as in APISIX (lua-resty-roundrobin). A wheel is made anew whenever its
//! upstream changes, and by every gateway of a fleet: if all began at the first node, that one would get more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::gcd;

/// As many places as the weights add up to, walked in strides that reach each of them once a turn.
pub(super) struct Wheel {
    cursor: AtomicU64,
    places: u64,
    stride: u64,
    /// Each node with the end of its places.
    nodes: Box<[(u64, usize)]>,
}

impl Wheel {
    /// `nodes`: the number of each and its weight, which is divided by what all have in common. Where all weights are
    /// 0 the nodes take equal turns.
    pub fn new(nodes: impl Iterator<Item = (usize, u64)> + Clone) -> Self {
        let even = nodes.clone().all(|(_, weight)| weight == 0);
        let mut places = 0;
        let ends =
            nodes.map(|(at, weight)| (at, if even { 1 } else { weight })).filter(|(_, weight)| *weight > 0);
        let nodes = ends.map(|(at, weight)| {
            places += weight;
            (places, at)
        });
        let nodes = nodes.collect();
        let cursor = AtomicU64::new(rand::random_range(0..places.max(1)));
        Self { cursor, places, stride: stride(places), nodes }
    }

    pub fn pick(&self, out: impl Fn(usize) -> bool) -> Option<usize> {
        let turn = u128::from(self.cursor.fetch_add(1, Relaxed) % self.places);
        let place = turn * u128::from(self.stride) % u128::from(self.places);
        let first = self.nodes.partition_point(|(end, _)| u128::from(*end) <= place);
        let (before, from) = self.nodes.split_at(first);
        from.iter().chain(before).map(|(_, at)| *at).find(|at| !out(*at))
    }
}

/// A stride that reaches each of so many places: close to the golden section, which mixes best.
fn stride(places: u64) -> u64 {
    let golden = u128::from(places) * 618 / 1000;
    let golden = u64::try_from(golden).unwrap_or(places).max(1);
    (golden..).find(|stride| gcd(*stride, places) == 1).unwrap_or(1)
}
