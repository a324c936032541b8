//! Consistent hashing: a key stays with its node while others come and go.

use std::sync::Arc;

use super::{Node, gcd};

/// Points on the ring for a node of the least weight.
const POINTS: u64 = 160;
/// Points on a ring, as far as weights allow: heavier ones share fewer.
const MOST: u64 = 40_000;

/// Nodes on a ring of hashes. Every gateway with the same nodes makes the same ring.
pub(super) struct Ring(Box<[(u64, usize)]>);

impl Ring {
    pub fn new(level: &[usize], nodes: &[Arc<Node>]) -> Self {
        let weight = |at: usize| u64::from(nodes[at].weight);
        let common = level.iter().map(|&at| weight(at)).fold(0, gcd).max(1);
        let units: u64 = level.iter().map(|&at| weight(at) / common).sum();
        let mut points = Vec::new();
        for &at in level {
            let units_of_this = weight(at) / common;
            let share = (POINTS * units_of_this).min(MOST * units_of_this / units.max(1));
            points.extend((0..share.max(1)).map(|point| {
                let seed = format!("{}#{point}", nodes[at].label);
                (hash(seed.as_bytes()), at)
            }));
        }
        points.sort_unstable();
        Self(points.into())
    }

    pub fn pick(&self, key: &[u8], tried: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = hash(key);
        let (before, from) = self.0.split_at(self.0.partition_point(|(point, _)| *point < hash));
        from.iter().chain(before).map(|(_, at)| *at).find(|at| !tried(*at))
    }
}

/// FNV-1a with a final mix: the same in every process and on every machine.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}
