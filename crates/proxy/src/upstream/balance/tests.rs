use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn nodes(weights: &[(u32, i64)]) -> Vec<Arc<Node>> {
    let node = |(at, &(weight, priority)): (u16, &(u32, i64))| Arc::new(Node::new("n", at, weight, priority));
    (0..).zip(weights).map(node).collect()
}

fn balance(conf: &Value, nodes: &[Arc<Node>]) -> Balance {
    Balance::new(&serde_json::from_str(&conf.to_string()).unwrap(), nodes).unwrap()
}

fn sequence(balance: &Balance, count: usize) -> Vec<usize> {
    let ctx = Ctx::example("GET", "/", &[]);
    (0..count).filter_map(|_| balance.pick(&ctx, |_| false)).collect()
}

#[test]
fn nodes_come_as_often_as_their_weight_says_and_mixed() {
    let three = nodes(&[(5, 0), (1, 0), (1, 0)]);
    let picked = sequence(&balance(&json!({}), &three), 7);
    assert_eq!(picked, [0, 0, 0, 1, 0, 2, 0]);
    let equal = nodes(&[(100, 0), (100, 0)]);
    assert_eq!(sequence(&balance(&json!({}), &equal), 4), [0, 1, 0, 1]);
    assert_eq!(sequence(&balance(&json!({}), &nodes(&[(0, 0), (1, 0)])), 2), [1, 1]);
    assert!(sequence(&balance(&json!({}), &nodes(&[(0, 0)])), 2).is_empty());
    assert!(sequence(&balance(&json!({}), &[]), 2).is_empty());
}

#[test]
fn lower_priorities_wait_until_all_above_were_tried() {
    let all = nodes(&[(1, 0), (1, 2), (1, 2), (1, -1)]);
    let balance = balance(&json!({}), &all);
    let ctx = Ctx::example("GET", "/", &[]);
    let mut tried: Vec<usize> = Vec::new();
    while let Some(at) = balance.pick(&ctx, |at| tried.contains(&at)) {
        tried.push(at);
    }
    tried[..2].sort_unstable();
    assert_eq!(tried, [1, 2, 0, 3]);
}

#[test]
fn a_key_stays_with_its_node_when_another_goes() {
    let conf = json!({"type": "chash", "key": "arg_id"});
    let all = nodes(&[(1, 0), (1, 0), (2, 0)]);
    let (full, less) = (balance(&conf, &all), balance(&conf, &all[..2]));
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for id in 0..4000 {
        let ctx = Ctx::example("GET", &format!("/?id={id}"), &[]);
        let at = full.pick(&ctx, |_| false).unwrap();
        *seen.entry(at).or_default() += 1;
        if at < 2 {
            assert_eq!(less.pick(&ctx, |_| false), Some(at));
        }
        assert_ne!(full.pick(&ctx, |other| other == at), Some(at));
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
            balance.pick(&Ctx::example("GET", "/", &[(header, &value)]), |_| false)
        };
        assert_eq!(picked("jack"), picked("jack"));
        assert!((0..20).any(|user| picked(&user.to_string()) != picked("jack")), "{on}");
    }
}

#[test]
fn what_we_have_no_balancer_for_is_refused() {
    for (conf, error) in [
        (json!({"type": "ewma"}), "upstreams of type ewma are not supported yet"),
        (json!({"type": "chash"}), "missing key for consistent hashing"),
    ] {
        let conf = serde_json::from_str(&conf.to_string()).unwrap();
        assert_eq!(Balance::new(&conf, &[]).err().as_deref(), Some(error));
    }
}

proptest! {
    #[test]
    fn every_turn_is_exact(weights in prop::collection::vec(0u32..60, 1..6), skip in 0usize..200) {
        let all = nodes(&weights.iter().map(|w| (*w, 0)).collect::<Vec<_>>());
        let balance = balance(&json!({}), &all);
        let turn: usize = weights.iter().map(|w| *w as usize).sum();
        sequence(&balance, skip);
        let mut counts = vec![0; weights.len()];
        for at in sequence(&balance, turn) {
            counts[at] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}
