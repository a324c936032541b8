//! What compiling costs: the first time, for one changed route, for one changed service, and in memory.
//!
//! `cargo bench -p proxy --bench plan [-- ROUTES…]`

#![allow(clippy::print_stdout, reason = "it prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use model::{Key, Kind, Resource, Snapshot, secrets::Keyring};
use proxy::{
    lasting::Lasting,
    plan::{Catalog, Input, Plan, Report, compile},
    router::Routing,
};
use serde_json::Map;

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    for routes in if sizes.is_empty() { vec![10_000, 100_000] } else { sizes } {
        measure(routes);
    }
}

fn measure(routes: usize) {
    let before = resident();
    let mut snapshot = Snapshot::new("bench", 1);
    put(&mut snapshot, Kind::Services, "s", r#"{"upstream":{"nodes":{"127.0.0.1:1980":1}}}"#);
    for id in 0..routes {
        put(&mut snapshot, Kind::Routes, &id.to_string(), &route(id, 1980));
    }
    let snapshot_size = resident() - before;
    let bench = Bench::default();
    let (first, (mut plan, report)) = timed(|| bench.compile(&snapshot, None));
    assert!(report.rejected.is_empty(), "{report:?}");
    let size = resident() - before;
    let mut one = Vec::new();
    for turn in 0..101_usize {
        let id = (turn * 997 % routes) | 1;
        put(&mut snapshot, Kind::Routes, &id.to_string(), &route(id, 2000 + turn));
        let (took, (next, report)) = timed(|| bench.compile(&snapshot, Some(&plan)));
        assert_eq!(report.compiled, 1);
        let (dropped, ()) = timed(|| drop(std::mem::replace(&mut plan, next)));
        one.push((took, dropped));
    }
    one.sort_unstable();
    put(&mut snapshot, Kind::Services, "s", r#"{"upstream":{"nodes":{"127.0.0.1:1981":1}}}"#);
    let (service, (_, report)) = timed(|| bench.compile(&snapshot, Some(&plan)));
    println!(
        "{routes:>7} routes: first {first:?}; one changed: median {:?}, worst {:?}, freeing the old {:?}; \
         a service of {} routes {service:?}; {} B a route (of them {} B the snapshot)",
        one[50].0,
        one[100].0,
        one[50].1,
        report.compiled - 1,
        size / routes,
        snapshot_size / routes,
    );
    black_box(plan);
}

/// Every tenth belongs to a service, the others have an upstream of their own.
fn route(id: usize, port: usize) -> String {
    let to = if id.is_multiple_of(10) {
        r#""service_id":"s""#.to_owned()
    } else {
        format!(r#""upstream":{{"type":"roundrobin","nodes":{{"127.0.0.1:{port}":1}}}}"#)
    };
    format!(
        r#"{{"id":"{id}","name":"route-{id}","uri":"/api/v1/tenant-{}/resource-{id}/*","methods":["GET","POST"],"create_time":1700000000,"update_time":1700000000,{to}}}"#,
        id % 100
    )
}

fn put(snapshot: &mut Snapshot, kind: Kind, id: &str, value: &str) {
    snapshot.put(Resource { key: Key::new(kind, id), value: value.into(), created: 1, modified: 1 });
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let made = work();
    (start.elapsed(), made)
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}

struct Bench {
    keyring: Keyring,
    catalog: Catalog,
    lasting: Lasting,
    tls: proxy::tls::Settings,
}

impl Default for Bench {
    fn default() -> Self {
        Self {
            keyring: Keyring::default(),
            catalog: Catalog::new([]).unwrap(),
            lasting: Lasting::default(),
            tls: proxy::tls::Settings::default(),
        }
    }
}

impl Bench {
    fn compile(&self, snapshot: &Snapshot, previous: Option<&Plan>) -> (Plan, Report) {
        let input = Input {
            snapshot: snapshot.clone(),
            keyring: &self.keyring,
            catalog: &self.catalog,
            lasting: &self.lasting,
            attrs: &Map::new(),
            routing: Routing::default(),
            tls: &self.tls,
            rebuild: false,
            news: Vec::new(),
        };
        compile(&input, previous)
    }
}
