//! How the node of an upstream is chosen.
//!
//! The rule to know: choosing takes no lock. A balancer belongs to one set of nodes and is thrown away with it; what
//! must outlive the set, the work that nodes have, is in the [`Loads`] of its [`Method`].

mod load;
mod ring;
mod wheel;

use std::{cmp::Reverse, sync::Arc};

use model::{
    byte_text,
    resource::{self, HashOn},
};
use rand::Rng as _;

pub use load::Held;

use super::Node;
use crate::{ctx::Ctx, lasting::Lasting, vars::Template};
use load::{Load, Loads};
use ring::Ring;
use wheel::Wheel;

/// How nodes are chosen, understood once for all sets of nodes an upstream ever has. APISIX's `type`.
#[derive(Clone)]
pub enum Method {
    RoundRobin,
    Chash(Arc<HashKey>),
    LeastConn(Loading),
    Ewma(Loading),
}

/// What is hashed; what stands in for it where a request has none of it.
pub struct HashKey {
    key: Template,
    address: Template,
}

/// The work of an upstream's nodes.
#[derive(Clone, Default)]
pub struct Loading(Arc<Loads>);

impl Method {
    /// `name` is the upstream's.
    pub fn new(name: &str, conf: &resource::Upstream, lasting: &Lasting) -> Result<Self, String> {
        let loading = |kind| Loading(lasting.get_or(&format!("{kind}/{name}"), Loads::default));
        Ok(match conf.kind {
            resource::Balance::RoundRobin => Self::RoundRobin,
            // Nothing is chosen: the brokers know who leads a partition.
            resource::Balance::None if conf.scheme == resource::Scheme::Kafka => Self::RoundRobin,
            resource::Balance::None => return Err("`type` is none only where `scheme` is kafka".to_owned()),
            resource::Balance::Chash => Self::Chash(Arc::new(HashKey {
                key: hash_key(conf)?,
                address: Template::new("$remote_addr"),
            })),
            resource::Balance::LeastConn => Self::LeastConn(loading("least_conn")),
            resource::Balance::Ewma => Self::Ewma(loading("ewma")),
        })
    }

    /// Whether an upstream of one node needs a balancer too: work is counted also where there is no choice.
    pub fn counts(&self) -> bool {
        matches!(self, Self::LeastConn(_))
    }
}

/// What a request is hashed by.
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

/// Chooses among the nodes of one set.
pub struct Balance {
    /// By the nodes' priority, the highest first: the next is asked when none is left in those before.
    levels: Arc<[Level]>,
    /// Nodes that are left out though they are on a ring, where keys must find their nodes when these are back.
    out: Box<[bool]>,
}

enum Level {
    Wheel(Wheel),
    Ring(Ring, Arc<HashKey>),
    /// The least work for their weight.
    Least(Box<[Member]>),
    /// The better one of two.
    Fastest(Box<[Member]>),
}

/// A node and its work.
struct Member {
    at: usize,
    weight: u32,
    load: Arc<Load>,
}

impl Balance {
    pub fn new(method: &Method, nodes: &[Arc<Node>]) -> Self {
        let levels = levels(nodes, |_| true).map(|level| Level::new(method, &level, nodes)).collect();
        Self { levels, out: Box::default() }
    }

    /// The same among those nodes for which `up` is true.
    pub fn among(&self, up: &[bool], method: &Method, nodes: &[Arc<Node>]) -> Self {
        if let Method::Chash(_) = method {
            return Self { levels: Arc::clone(&self.levels), out: up.iter().map(|up| !up).collect() };
        }
        let levels = levels(nodes, |at| up[at]).map(|level| Level::new(method, &level, nodes)).collect();
        Self { levels, out: Box::default() }
    }

    /// The number of a node among `nodes` for which `tried` is false, and what counts the request as its work.
    pub fn pick(&self, ctx: &Ctx, tried: impl Fn(usize) -> bool) -> Option<(usize, Option<Held>)> {
        let out = |at: usize| tried(at) || self.out.get(at).is_some_and(|out| *out);
        self.levels.iter().find_map(|level| level.pick(ctx, out))
    }
}

/// The numbers of nodes of each priority, the highest first.
fn levels(nodes: &[Arc<Node>], up: impl Fn(usize) -> bool) -> impl Iterator<Item = Vec<usize>> {
    let mut usable: Vec<usize> = (0..nodes.len()).filter(|at| up(*at)).collect();
    usable.sort_by_key(|&at| Reverse(nodes[at].priority));
    let levels: Vec<Vec<usize>> =
        usable.chunk_by(|&a, &b| nodes[a].priority == nodes[b].priority).map(<[usize]>::to_vec).collect();
    levels.into_iter()
}

impl Level {
    fn new(method: &Method, level: &[usize], nodes: &[Arc<Node>]) -> Self {
        let weight = |at: usize| u64::from(nodes[at].weight);
        let common = level.iter().map(|&at| weight(at)).fold(0, gcd).max(1);
        let members = |loading: &Loading| {
            let loads = loading.0.of(level.iter().map(|&at| &nodes[at].label));
            let member = |(&at, load)| Member { at, weight: nodes[at].weight, load };
            level.iter().zip(loads).map(member).collect()
        };
        match method {
            Method::RoundRobin => Self::Wheel(Wheel::new(level.iter().map(|&at| (at, weight(at) / common)))),
            Method::Chash(key) => {
                let named = level.iter().map(|&at| (at, &*nodes[at].label, weight(at) / common));
                Self::Ring(Ring::new(named), Arc::clone(key))
            }
            Method::LeastConn(loading) => Self::Least(members(loading)),
            Method::Ewma(loading) => Self::Fastest(members(loading)),
        }
    }

    fn pick(&self, ctx: &Ctx, out: impl Fn(usize) -> bool) -> Option<(usize, Option<Held>)> {
        let member = match self {
            Self::Wheel(wheel) => return wheel.pick(out).map(|at| (at, None)),
            Self::Ring(ring, key) => return key.of(ctx, |key| ring.pick(key, out)).map(|at| (at, None)),
            Self::Least(members) => least(members, out),
            Self::Fastest(members) => fastest(members, out),
        }?;
        Some((member.at, Some(Held::new(&member.load))))
    }
}

impl HashKey {
    fn of<R>(&self, ctx: &Ctx, then: impl FnOnce(&[u8]) -> R) -> R {
        let (key, found) = self.key.render_counted(ctx);
        if found == 0 { then(self.address.render(ctx).as_bytes()) } else { then(&byte_text::write(&key)) }
    }
}

/// One of those with the least work for their weight, any of them: nginx has them take turns, APISIX always asks the
/// same one. One of weight 0 comes after all others.
fn least(members: &[Member], out: impl Fn(usize) -> bool) -> Option<&Member> {
    let score = |member: &Member| (f64::from(member.load.under_way()) + 1.0) / f64::from(member.weight);
    let (mut best, mut equals): (Option<(f64, &Member)>, u32) = (None, 0);
    for member in members.iter().filter(|member| !out(member.at)) {
        let score = score(member);
        match best {
            Some((least, _)) if score > least => {}
            Some((least, _)) if score >= least => equals += 1,
            _ => (best, equals) = (Some((score, member)), 0),
        }
    }
    let (least, first) = best?;
    if equals == 0 {
        return Some(first);
    }
    let open = members.iter().filter(|member| !out(member.at) && score(member) <= least);
    open.take(equals as usize + 1).nth(rand::random_range(0..=equals) as usize).or(Some(first))
}

/// Of two taken by chance the one that answered faster of late. Weights don't count, as in APISIX.
fn fastest(members: &[Member], out: impl Fn(usize) -> bool) -> Option<&Member> {
    /// Draws before those that are left are looked for one by one.
    const DRAWS: usize = 16;
    let open = |member: &&Member| !out(member.at);
    let mut chance = rand::rng();
    let mut draw = |but: Option<&Member>| {
        let drawn = (0..DRAWS).filter_map(|_| members.get(chance.random_range(0..members.len())));
        drawn.filter(open).find(|member| but.is_none_or(|but| but.at != member.at))
    };
    let one = draw(None);
    let (one, other) = match (one, draw(one)) {
        (Some(one), Some(other)) => (one, other),
        _ => {
            let mut left = members.iter().filter(open);
            let one = left.next()?;
            (one, left.next().unwrap_or(one))
        }
    };
    Some(if one.load.score() > other.load.score() { other } else { one })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
