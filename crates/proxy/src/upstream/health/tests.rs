use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;

use super::*;
use crate::{
    ctx::{Attempt, Ctx},
    upstream::{Choice, NodeSet, balance::Method},
};

fn how(checks: &serde_json::Value) -> How {
    How { checks: Checks::read(checks).unwrap(), host: None, tls: None }
}

fn nodes(hosts: &[&str]) -> Box<[Arc<Node>]> {
    hosts.iter().map(|host| Arc::new(Node::new(host, 80, 1, 0))).collect()
}

/// A set of nodes whose checks have begun.
fn set(health: &Arc<Health>, hosts: &[&str]) -> NodeSet {
    let choice = Choice { method: Method::RoundRobin, health: Some(Arc::clone(health)) };
    let set = NodeSet::new(&choice, nodes(hosts));
    health.begin();
    set
}

/// The hosts that so many requests go to.
fn hosts(set: &NodeSet, count: usize) -> Vec<String> {
    let ctx = Ctx::example("GET", "/", &[]);
    let mut hosts: Vec<_> = (0..count).filter_map(|_| Some(set.pick(&ctx)?.node.host.to_string())).collect();
    hosts.sort_unstable();
    hosts
}

/// A request to this host meets a refused connection.
fn refuse(set: &NodeSet, host: &str) {
    let ctx = Ctx::example("GET", "/", &[]);
    let chosen = std::iter::repeat_with(|| set.pick(&ctx).unwrap()).find(|chosen| &*chosen.node.host == host);
    Attempt::new(chosen.unwrap()).fail(StatusCode::BAD_GATEWAY);
}

#[test]
fn a_node_that_is_down_gets_nothing_until_it_is_up_again() {
    let checkers = Checkers::default();
    let health = checkers.take(&"u".into(), how(&json!({"active": {}}))).unwrap();
    let set = set(&health, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    refuse(&set, "10.0.0.2");
    refuse(&set, "10.0.0.2");
    assert_eq!(hosts(&set, 4), ["10.0.0.1", "10.0.0.1", "10.0.0.3", "10.0.0.3"]);
    for host in ["10.0.0.1", "10.0.0.3"] {
        refuse(&set, host);
        refuse(&set, host);
    }
    assert_eq!(hosts(&set, 3), ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "where none is up, all are used");
    let target = &health.checked()[1];
    health.report(target, Finding::Success, &health.how.checks.active);
    health.report(target, Finding::Success, &health.how.checks.active);
    assert_eq!(hosts(&set, 2), ["10.0.0.2", "10.0.0.2"]);
}

#[test]
fn health_outlives_the_set_and_goes_with_nodes_that_go() {
    let checkers = Checkers::default();
    let (name, checks): (Arc<str>, _) = ("u".into(), json!({"active": {}}));
    let health = checkers.take(&name, how(&checks)).unwrap();
    refuse(&set(&health, &["10.0.0.1", "10.0.0.2"]), "10.0.0.1");
    let again = checkers.take(&name, how(&checks)).unwrap();
    assert!(Arc::ptr_eq(&health, &again), "what did not change goes on");
    refuse(&set(&again, &["10.0.0.1", "10.0.0.2"]), "10.0.0.1");

    let other = checkers.take(&name, how(&json!({"active": {"http_path": "/up"}}))).unwrap();
    assert!(!Arc::ptr_eq(&health, &other) && other.begun.get().is_some());
    let now = set(&other, &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(hosts(&now, 2), ["10.0.0.2", "10.0.0.2"]);
    let first = &other.checked()[0];
    for _ in 0..2 {
        health.report(first, Finding::Success, &health.how.checks.active);
    }
    assert_eq!(hosts(&now, 2), ["10.0.0.1", "10.0.0.2"], "a request of before may still find out something");
    refuse(&now, "10.0.0.1");
    refuse(&now, "10.0.0.1");
    assert_eq!(hosts(&set(&other, &["10.0.0.2", "10.0.0.3"]), 2), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(hosts(&set(&other, &["10.0.0.1", "10.0.0.2"]), 2), ["10.0.0.1", "10.0.0.2"]);

    checkers.retain(|health| Arc::ptr_eq(health, &other));
    assert!(checkers.get("u").is_some());
    checkers.retain(|_| false);
    assert!(checkers.get("u").is_none());
}

#[test]
fn the_request_that_lets_checks_begin_does_not_count() {
    let checkers = Checkers::default();
    let checks =
        json!({"active": {}, "passive": {"unhealthy": {"http_statuses": [500], "http_failures": 1}}});
    let health = checkers.take(&"u".into(), how(&checks)).unwrap();
    let choice = Choice { method: Method::RoundRobin, health: Some(Arc::clone(&health)) };
    let (set, ctx) = (NodeSet::new(&choice, nodes(&["10.0.0.1"])), Ctx::example("GET", "/", &[]));
    assert!(health.checked().is_empty());
    for (status, turned) in [(500, 0), (200, 0), (500, 1)] {
        Attempt::new(set.pick(&ctx).unwrap()).finish(StatusCode::from_u16(status).unwrap());
        assert_eq!(health.turned.load(Relaxed), turned);
    }
    assert_eq!(health.checked().len(), 1);
}

#[test]
fn nodes_that_come_down_to_one_target_share_it() {
    let checkers = Checkers::default();
    let checks = json!({"active": {"port": 81, "host": "up.test"}});
    let health = checkers.take(&"u".into(), how(&checks)).unwrap();
    let choice = Choice { method: Method::RoundRobin, health: Some(Arc::clone(&health)) };
    let nodes = [80, 8080].map(|port| Arc::new(Node::new("10.0.0.1", port, 1, 0)));
    NodeSet::new(&choice, nodes.into());
    let targets = health.targets();
    assert_eq!((targets.len(), targets[0].address), (1, Some("10.0.0.1:81".parse().unwrap())));
    assert_eq!(&*targets[0].id.hostname, "up.test");
}

#[test]
fn a_node_that_is_a_name_is_asked_for_by_it() {
    let checkers = Checkers::default();
    let health = checkers.take(&"u".into(), how(&json!({"active": {}}))).unwrap();
    let resolved = Node { address: Some("10.0.0.1:80".parse().unwrap()), ..Node::new("up.test", 80, 1, 0) };
    for (node, ip, header) in [
        (Node::new("10.0.0.1", 80, 1, 0), "10.0.0.1", None),
        (Node::new("[::1]", 80, 1, 0), "[::1]", None),
        (Node::new("up.test", 80, 1, 0), "up.test", Some("up.test")),
        (resolved, "10.0.0.1", Some("up.test")),
    ] {
        let id = health.id(&node);
        assert_eq!((&*id.ip, &*id.hostname, id.header.as_deref()), (ip, ip, header));
    }
}
