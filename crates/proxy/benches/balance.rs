//! What choosing a node costs, by type and number of nodes.
//!
//! `cargo bench -p proxy --bench balance [-- NODES… TYPES…]` prints nanoseconds.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::{hint::black_box, sync::Arc, time::Instant};

use model::{Key, Kind, Resource, Snapshot, secrets::Keyring};
use proxy::{
    ctx::Ctx,
    lasting::Lasting,
    plan::{Catalog, Input, Plan, compile},
    router::Routing,
};
use serde_json::Map;

const ROUNDS: u32 = 20_000;
const KINDS: [&str; 4] = ["roundrobin", "chash", "least_conn", "ewma"];

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let asked: Vec<String> = std::env::args().filter(|arg| KINDS.contains(&&**arg)).collect();
    for nodes in if sizes.is_empty() { vec![10, 100, 1000, 10_000] } else { sizes } {
        for kind in
            KINDS.into_iter().filter(|kind| asked.is_empty() || asked.iter().any(|asked| asked == kind))
        {
            let plan = plan(kind, nodes);
            let upstream = Arc::clone(plan.upstream("u").unwrap());
            let contexts: Vec<Ctx> =
                (0..1000).map(|id| Ctx::example("GET", &format!("/?id={id}"), &[])).collect();
            let set = upstream.nodes.current();
            let start = Instant::now();
            for round in 0..ROUNDS {
                black_box(set.pick(&contexts[round as usize % contexts.len()]).unwrap().node.port);
            }
            println!("{kind:>10} {nodes:>6} nodes: {} ns a choice", (start.elapsed() / ROUNDS).as_nanos());
        }
    }
}

fn plan(kind: &str, nodes: usize) -> Plan {
    let nodes: Vec<String> =
        (0..nodes).map(|id| format!(r#""10.0.{}.{}:80":1"#, id / 250, id % 250 + 1)).collect();
    let value = format!(r#"{{"type":"{kind}","key":"arg_id","nodes":{{{}}}}}"#, nodes.join(","));
    let key = Key::new(Kind::Upstreams, "u");
    let resource = Resource { key, value: value.into(), created: 1, modified: 1 };
    let input = Input {
        snapshot: [resource].into_iter().collect::<Snapshot>(),
        keyring: &Keyring::default(),
        catalog: &Catalog::new([]).unwrap(),
        lasting: &Lasting::default(),
        attrs: &Map::new(),
        routing: Routing::default(),
        tls: &proxy::tls::Settings::default(),
        rebuild: false,
        news: Vec::new(),
    };
    compile(&input, None).0
}
