//! Consistent hashing: a key stays with its node while others come and go.
//!
//! The rule to know: point for point this is the ring of APISIX (lua-resty-chash) and of nginx's `hash … consistent`,
//! so gateways of either kind send a key to the same node.

/// Points for a node of the least weight.
const POINTS: u64 = 160;
/// Points on a ring, 16 MiB of them. Beyond that nodes get their share of so many, and the ring is our own.
const MOST: u64 = 1 << 21;

/// Nodes on a ring of hashes.
pub(super) struct Ring(Box<[Point]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    node: u32,
}

impl Ring {
    /// `nodes`: the number of each, its `host:port` and its weight, which is divided by what all have in common.
    pub fn new<'a>(nodes: impl Iterator<Item = (usize, &'a str, u64)>) -> Self {
        Self::within(MOST, &nodes.collect::<Vec<_>>())
    }

    fn within(most: u64, nodes: &[(usize, &str, u64)]) -> Self {
        let units: u64 = nodes.iter().map(|(.., weight)| weight).sum();
        let share = |weight: u64| match units.saturating_mul(POINTS) {
            points if points <= most => weight * POINTS,
            _ => u64::try_from(u128::from(weight) * u128::from(most) / u128::from(units)).unwrap_or(most),
        };
        let mut points = Vec::with_capacity(nodes.iter().map(|(.., weight)| share(*weight) as usize).sum());
        for &(at, name, weight) in nodes {
            let node = u32::try_from(at).unwrap_or(u32::MAX);
            points.extend(hashes(name).take(share(weight) as usize).map(|hash| Point { hash, node }));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// The node of the first point from the key's on whose node is not `out`.
    pub fn pick(&self, key: &[u8], out: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = crc32fast::hash(key);
        let (before, from) = self.0.split_at(self.0.partition_point(|point| point.hash < hash));
        from.iter().chain(before).map(|point| point.node as usize).find(|at| !out(*at))
    }
}

/// The points of a node: each is the hash of its name and of the point before.
fn hashes(name: &str) -> impl Iterator<Item = u32> {
    let mut base = crc32fast::Hasher::new();
    base.update(name.replace(':', "\0").as_bytes());
    let mut last = 0_u32;
    std::iter::repeat_with(move || {
        let mut next = base.clone();
        next.update(&last.to_le_bytes());
        last = next.finalize();
        last
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(nodes: &[(&str, u64)]) -> Ring {
        Ring::new(nodes.iter().enumerate().map(|(at, (name, weight))| (at, *name, *weight)))
    }

    /// Figures that lua-resty-balancer's own suite states.
    #[test]
    fn shares_are_those_of_lua_resty_chash() {
        let ring = ring(&[("server1", 10), ("server2", 2), ("server3", 1)]);
        assert_eq!(ring.0.len(), 2080);
        let mut counts = [0; 3];
        for key in 1..=100_000 {
            counts[ring.pick(key.to_string().as_bytes(), |_| false).unwrap()] += 1;
        }
        assert_eq!(counts, [77_075, 14_743, 8_182]);
    }

    #[test]
    fn weights_of_any_size_make_a_ring_of_bounded_size() {
        let nodes = [(0, "a:1", u64::from(u32::MAX)), (1, "b:1", 3_000_000_000), (2, "c:1", 0)];
        let ring = Ring::within(1000, &nodes);
        assert!((998..=1000).contains(&ring.0.len()));
        assert!(ring.0.iter().all(|point| point.node < 2));
    }
}
