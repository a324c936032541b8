//! What a bare request costs before and after the network: its ctx, its route, its empty chain.
//!
//! `cargo bench -p proxy --bench request [-- ROUTES…]` prints nanoseconds; `ROUTES xREQUESTS` runs so many requests
//! and prints nothing, for counting instructions:
//! `valgrind --tool=callgrind --toggle-collect='request::serve*' target/release/deps/request-… 100000 x10000`

#![allow(clippy::print_stdout, reason = "it prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::{
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method, header, uri::PathAndQuery};
use model::{Key, Kind, Resource, Snapshot, secrets::Keyring};
use proxy::{
    chain,
    ctx::{Ctx, RequestHead},
    lasting::Lasting,
    plan::{Catalog, Input, Plan, compile},
    router::Routing,
};
use serde_json::Map;

const ROUNDS: usize = 200_000;

fn main() {
    let counted = std::env::args().find_map(|arg| arg.strip_prefix('x')?.parse::<usize>().ok());
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    for routes in if sizes.is_empty() { vec![1, 10_000, 100_000] } else { sizes } {
        let plan = Arc::new(plan(routes));
        let targets: Vec<PathAndQuery> =
            (0..1000).map(|turn| path(turn * 7919 % routes).parse().unwrap()).collect();
        let rounds = counted.unwrap_or(ROUNDS);
        let start = Instant::now();
        for round in 0..rounds {
            serve(&plan, &targets[round % targets.len()]);
        }
        if counted.is_none() {
            println!("{routes:>7} routes: {} ns a request", start.elapsed().as_nanos() as usize / rounds);
        }
    }
}

/// All of a bare request that is not hyper's.
#[inline(never)]
fn serve(plan: &Arc<Plan>, target: &PathAndQuery) {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::HOST, HeaderValue::from_static("foo.example.com"));
    let head = RequestHead::new(Method::GET, target.clone(), headers, None).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 9080));
    let mut ctx = Ctx::new(plan.clone(), head, address, address);
    assert!(ctx.find_route());
    let mut waker = Context::from_waker(Waker::noop());
    assert!(pin!(chain::on_request(&mut ctx)).poll(&mut waker).is_ready());
    let nodes = ctx.upstream.as_ref().unwrap().nodes.current();
    let node = nodes.pick(&ctx).unwrap();
    black_box(node);
    chain::header_filter(&mut ctx);
    chain::log(&ctx);
}

fn path(id: usize) -> String {
    format!("/api/v1/tenant-{}/resource-{id}", id % 100)
}

fn plan(routes: usize) -> Plan {
    let routes = (0..routes).map(|id| Resource {
        key: Key::new(Kind::Routes, id.to_string()),
        value: format!(
            r#"{{"uri":"{}","host":"foo.example.com","upstream":{{"nodes":{{"127.0.0.1:1980":1}}}}}}"#,
            path(id)
        )
        .into(),
        created: 1,
        modified: 1,
    });
    let input = Input {
        snapshot: routes.collect::<Snapshot>(),
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
