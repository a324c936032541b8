//! How the node of an upstream is chosen.
//!
//! The rule to know: choosing takes no lock and remembers one number. A wheel has as many places as the weights add
//! up to and is walked in strides that reach every place once a turn: in every full turn each node is chosen exactly
//! as often as its weight says, well mixed, whatever the weights are.

mod ring;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use model::resource::{self, HashOn};

use super::Node;
use crate::{ctx::Ctx, vars::Template};
use ring::Ring;

/// Chooses among the nodes of one upstream.
pub(super) struct Balance {
    /// By the nodes' priority, the highest first: the next is asked when all nodes of one have been tried.
    levels: Box<[Level]>,
    /// What is hashed; only with rings.
    key: Option<Template>,
}

enum Level {
    Wheel(Wheel),
    Ring(Ring),
}

impl Balance {
    pub fn new(conf: &resource::Upstream, nodes: &[Arc<Node>]) -> Result<Self, String> {
        let key = match conf.kind {
            resource::Balance::RoundRobin => None,
            resource::Balance::Chash => Some(hash_key(conf)?),
            resource::Balance::Ewma => return Err("upstreams of type ewma are not supported yet".to_owned()),
            resource::Balance::LeastConn => {
                return Err("upstreams of type least_conn are not supported yet".to_owned());
            }
        };
        let mut usable: Vec<usize> = (0..nodes.len()).filter(|&at| nodes[at].weight > 0).collect();
        usable.sort_by_key(|&at| std::cmp::Reverse(nodes[at].priority));
        let levels = usable
            .chunk_by(|&a, &b| nodes[a].priority == nodes[b].priority)
            .map(|level| match &key {
                None => Level::Wheel(Wheel::new(level, nodes)),
                Some(_) => Level::Ring(Ring::new(level, nodes)),
            })
            .collect();
        Ok(Self { levels, key })
    }

    /// The place of a node among `nodes` for which `tried` is false.
    pub fn pick(&self, ctx: &Ctx, tried: impl Fn(usize) -> bool) -> Option<usize> {
        self.levels.iter().find_map(|level| match level {
            Level::Wheel(wheel) => wheel.pick(&tried),
            Level::Ring(ring) => {
                let (key, found) = self.key.as_ref()?.render_counted(ctx);
                match found {
                    0 => ring.pick(ctx.client.ip().to_string().as_bytes(), &tried),
                    _ => ring.pick(key.as_bytes(), &tried),
                }
            }
        })
    }
}

/// What a request is hashed by. Where it has none of it, its address stands in.
fn hash_key(conf: &resource::Upstream) -> Result<Template, String> {
    let name = conf.key.as_deref();
    let named = || name.ok_or_else(|| "missing key for consistent hashing".to_owned());
    Ok(Template::new(&match conf.hash_on {
        HashOn::Consumer => "$consumer_name".to_owned(),
        HashOn::Vars => format!("${{{}}}", named()?),
        HashOn::Header => format!("${{http_{}}}", named()?),
        HashOn::Cookie => format!("${{cookie_{}}}", named()?),
        HashOn::VarsCombinations => named()?.to_owned(),
    }))
}

/// Weighted round robin.
struct Wheel {
    cursor: AtomicU64,
    places: u64,
    stride: u64,
    /// Each node with the end of its places.
    nodes: Box<[(u64, usize)]>,
}

impl Wheel {
    fn new(level: &[usize], nodes: &[Arc<Node>]) -> Self {
        let weight = |at: &usize| u64::from(nodes[*at].weight);
        let common = level.iter().map(weight).fold(0, gcd).max(1);
        let mut places = 0;
        let ends = level.iter().map(|at| {
            places += weight(at) / common;
            (places, *at)
        });
        let nodes = ends.collect();
        Self { cursor: AtomicU64::new(0), places, stride: stride(places), nodes }
    }

    fn pick(&self, tried: impl Fn(usize) -> bool) -> Option<usize> {
        let turn = u128::from(self.cursor.fetch_add(1, Relaxed) % self.places);
        let place = turn * u128::from(self.stride) % u128::from(self.places);
        let first = self.nodes.partition_point(|(end, _)| u128::from(*end) <= place);
        let (before, from) = self.nodes.split_at(first);
        from.iter().chain(before).map(|(_, at)| *at).find(|at| !tried(*at))
    }
}

/// A stride that reaches each of so many places: close to the golden section, which mixes best.
fn stride(places: u64) -> u64 {
    let golden = u128::from(places) * 618 / 1000;
    let golden = u64::try_from(golden).unwrap_or(places).max(1);
    (golden..).find(|stride| gcd(*stride, places) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
