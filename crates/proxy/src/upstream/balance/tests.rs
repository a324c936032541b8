use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{ctx::Attempt, upstream::nodes::Chosen};

fn nodes(weights: &[(u32, i64)]) -> Vec<Arc<Node>> {
    let node = |(at, &(weight, priority)): (u16, &(u32, i64))| Arc::new(Node::new("n", at, weight, priority));
    (0..).zip(weights).map(node).collect()
}

fn method(conf: &Value) -> Result<Method, String> {
    Method::new("upstreams/1", &serde_json::from_str(&conf.to_string()).unwrap(), &Lasting::default())
}

fn balance(conf: &Value, nodes: &[Arc<Node>]) -> Balance {
    Balance::new(&method(conf).unwrap(), nodes)
}

fn pick(balance: &Balance, ctx: &Ctx, tried: impl Fn(usize) -> bool) -> Option<usize> {
    balance.pick(ctx, tried).map(|(at, _)| at)
}

fn sequence(balance: &Balance, count: usize) -> Vec<usize> {
    let ctx = Ctx::example("GET", "/", &[]);
    (0..count).filter_map(|_| pick(balance, &ctx, |_| false)).collect()
}

/// All that are tried one after the other.
fn tries(balance: &Balance) -> Vec<usize> {
    let ctx = Ctx::example("GET", "/", &[]);
    let mut tried: Vec<usize> = Vec::new();
    while let Some(at) = pick(balance, &ctx, |at| tried.contains(&at)) {
        tried.push(at);
    }
    tried
}

#[test]
fn nodes_come_as_often_as_their_weight_says_and_mixed() {
    let three = nodes(&[(5, 0), (1, 0), (1, 0)]);
    let picked = sequence(&balance(&json!({}), &three), 14);
    // A turn begins anywhere.
    assert!(picked.windows(7).any(|turn| turn == [0, 0, 0, 1, 0, 2, 0]), "{picked:?}");
    let equal = nodes(&[(100, 0), (100, 0)]);
    let picked = sequence(&balance(&json!({}), &equal), 4);
    assert!(picked == [0, 1, 0, 1] || picked == [1, 0, 1, 0], "{picked:?}");
    assert_eq!(sequence(&balance(&json!({}), &nodes(&[(0, 0), (1, 0)])), 2), [1, 1]);
    assert!(sequence(&balance(&json!({}), &[]), 2).is_empty());
}

#[test]
fn no_node_is_always_the_first_of_a_new_set() {
    let equal = nodes(&[(1, 0), (1, 0), (1, 0)]);
    for kind in ["roundrobin", "least_conn", "ewma"] {
        let mut firsts = [0; 3];
        for _ in 0..300 {
            firsts[sequence(&balance(&json!({"type": kind}), &equal), 1)[0]] += 1;
        }
        assert!(firsts.iter().all(|count| *count > 50), "{kind}: {firsts:?}");
    }
}

#[test]
fn nodes_of_weight_0_are_used_only_where_the_type_says_so() {
    let (some, all) = (nodes(&[(0, 0), (1, 0)]), nodes(&[(0, 0), (0, 0)]));
    let of = |kind: &str, nodes: &[Arc<Node>]| {
        let mut tried = tries(&balance(&json!({"type": kind, "key": "uri"}), nodes));
        tried.sort_unstable();
        tried
    };
    assert_eq!((of("roundrobin", &some), of("roundrobin", &all)), (vec![1], vec![0, 1]));
    assert_eq!((of("chash", &some), of("chash", &all)), (vec![1], vec![]));
    assert_eq!(tries(&balance(&json!({"type": "least_conn"}), &some)), [1, 0]);
    assert_eq!(of("ewma", &some), [0, 1]);
}

#[test]
fn lower_priorities_wait_until_all_above_were_tried() {
    let all = nodes(&[(1, 0), (1, 2), (1, 2), (1, -1)]);
    for kind in ["roundrobin", "chash", "least_conn", "ewma"] {
        let mut tried = tries(&balance(&json!({"type": kind, "key": "uri"}), &all));
        tried[..2].sort_unstable();
        assert_eq!(tried, [1, 2, 0, 3], "{kind}");
    }
}

/// What APISIX's own cases state of the ring.
#[test]
fn a_key_finds_the_node_that_apisix_finds() {
    let at = |ports: &[(u16, u32)]| {
        let nodes: Vec<_> =
            ports.iter().map(|(port, weight)| Arc::new(Node::new("127.0.0.1", *port, *weight, 0))).collect();
        let balance = balance(&json!({"type": "chash", "key": "remote_addr"}), &nodes);
        pick(&balance, &Ctx::example("GET", "/", &[]), |_| false).map(|at| nodes[at].port)
    };
    assert_eq!(at(&[(1980, 1), (1981, 1)]), Some(1980));
    assert_eq!(at(&[(1980, 1), (1981, 1), (1982, 1)]), Some(1982));
    assert_eq!(at(&[(1980, 1), (1981, 0), (1982, 0)]), Some(1980));
}

#[test]
fn a_key_stays_with_its_node_when_another_goes() {
    let conf = json!({"type": "chash", "key": "arg_id"});
    let all = nodes(&[(1, 0), (1, 0), (2, 0)]);
    let (full, less) = (balance(&conf, &all), balance(&conf, &all[..2]));
    let down = full.among(&[true, true, false], &method(&conf).unwrap(), &all);
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for id in 0..4000 {
        let ctx = Ctx::example("GET", &format!("/?id={id}"), &[]);
        let at = pick(&full, &ctx, |_| false).unwrap();
        *seen.entry(at).or_default() += 1;
        if at < 2 {
            assert_eq!(pick(&less, &ctx, |_| false), Some(at));
            assert_eq!(pick(&down, &ctx, |_| false), Some(at));
        } else {
            assert_eq!(pick(&down, &ctx, |_| false), pick(&full, &ctx, |at| at == 2));
        }
        assert_ne!(pick(&full, &ctx, |other| other == at), Some(at));
    }
    assert!(seen[&0] > 700 && seen[&1] > 700 && seen[&2] > 1600, "{seen:?}");
}

#[test]
fn a_key_is_taken_from_where_it_is_said_to_be() {
    let all = nodes(&[(1, 0); 8]);
    for (on, key, header) in [
        ("header", "X-User", "x-user"),
        ("cookie", "user", "cookie"),
        ("vars_combinations", "$http_x_user", "x-user"),
    ] {
        let balance = balance(&json!({"type": "chash", "hash_on": on, "key": key}), &all);
        let picked = |user: &str| {
            let value = if header == "cookie" { format!("user={user}") } else { user.to_owned() };
            pick(&balance, &Ctx::example("GET", "/", &[(header, &value)]), |_| false)
        };
        assert_eq!(picked("jack"), picked("jack"));
        assert!((0..20).any(|user| picked(&user.to_string()) != picked("jack")), "{on}");
    }
    let address = balance(&json!({"type": "chash", "key": "remote_addr"}), &all);
    let consumer = balance(&json!({"type": "chash", "hash_on": "consumer"}), &all);
    let ctx = Ctx::example("GET", "/", &[]);
    assert_eq!(pick(&consumer, &ctx, |_| false), pick(&address, &ctx, |_| false));
    assert_eq!(
        method(&json!({"type": "chash"})).err().as_deref(),
        Some("missing key for consistent hashing")
    );
}

#[test]
fn the_node_with_the_least_work_for_its_weight_is_next() {
    let (all, method) = (nodes(&[(3, 0), (2, 0)]), method(&json!({"type": "least_conn"})).unwrap());
    let balance = Balance::new(&method, &all);
    let ctx = Ctx::example("GET", "/", &[]);
    let mut held: Vec<_> = (0..5).map(|_| balance.pick(&ctx, |_| false).unwrap()).collect();
    let mut picked: Vec<_> = held.iter().map(|(at, _)| *at).collect();
    // Then both have as much to do, and either may be next.
    picked[3..].sort_unstable();
    assert_eq!(picked, [0, 1, 0, 0, 1]);
    let last = held.iter().rposition(|(at, _)| *at == 1).unwrap();
    held.remove(last);
    // What is under way counts for the sets that come after.
    let another = Balance::new(&method, &all);
    assert_eq!(pick(&another, &ctx, |_| false), Some(1));
    held.retain(|(at, _)| *at == 1);
    assert_eq!(pick(&another, &ctx, |_| false), Some(0));
}

#[test]
fn of_two_nodes_the_one_that_answered_faster_is_next() {
    let all = nodes(&[(1, 0), (1, 0)]);
    let balance = balance(&json!({"type": "ewma"}), &all);
    let ctx = Ctx::example("GET", "/", &[]);
    let (_, slow) = balance.pick(&ctx, |at| at == 1).unwrap();
    slow.unwrap().answered(std::time::Duration::from_secs(1));
    assert!((0..20).all(|_| pick(&balance, &ctx, |_| false) == Some(1)));
    assert_eq!(pick(&balance, &ctx, |at| at == 1), Some(0));
}

#[test]
fn a_node_that_fails_is_not_taken_for_the_fastest() {
    let all = nodes(&[(1, 0), (1, 0)]);
    let balance = balance(&json!({"type": "ewma"}), &all);
    let ctx = Ctx::example("GET", "/", &[]);
    let on = |at: usize| {
        let (_, held) = balance.pick(&ctx, |other| other != at).unwrap();
        Attempt::new(Chosen { node: Arc::clone(&all[at]), held, watched: None })
    };
    let mut slow = on(0);
    slow.finished = Some(std::time::Duration::from_secs(2));
    slow.finish(http::StatusCode::OK);
    on(1).fail(http::StatusCode::BAD_GATEWAY);
    assert!((0..20).all(|_| pick(&balance, &ctx, |_| false) == Some(0)));
}

proptest! {
    #[test]
    fn every_turn_is_exact(
        weights in prop::collection::vec((0u32..60, any::<bool>()), 1..6),
        skip in 0usize..200,
    ) {
        let all = nodes(&weights.iter().map(|(weight, _)| (*weight, 0)).collect::<Vec<_>>());
        let up: Vec<bool> = weights.iter().map(|(_, up)| *up).collect();
        let expected: Vec<u32> = weights.iter().map(|(weight, up)| if *up { *weight } else { 0 }).collect();
        let turn: usize = expected.iter().map(|weight| *weight as usize).sum();
        // Where no weight is left, all of them take turns.
        prop_assume!(turn > 0);
        let method = method(&json!({})).unwrap();
        let balance = Balance::new(&method, &all).among(&up, &method, &all);
        sequence(&balance, skip);
        let mut counts = vec![0; weights.len()];
        for at in sequence(&balance, turn) {
            counts[at] += 1;
        }
        prop_assert_eq!(counts, expected);
    }
}
