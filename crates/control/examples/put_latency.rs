//! How long a PUT takes from request to durable answer, over the embedded store.
//!
//! `cargo run --profile quick -p control --example put_latency [ROUTES] [DIR]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to be read by people")]

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::{Router, body::Body};
use control::admin;
use http::Request;
use store::{Store, embedded::Embedded};
use tower::ServiceExt;

#[tokio::main]
async fn main() {
    let routes: usize = std::env::args().nth(1).map_or(10_000, |count| count.parse().unwrap());
    let dir = std::env::args().nth(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("put_latency.{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&dir).unwrap());
    let router = admin::router(config(store)).unwrap();

    let started = Instant::now();
    let mut loading = Vec::new();
    for task in 0..64 {
        let router = router.clone();
        loading.push(tokio::spawn(async move {
            for n in (task..routes).step_by(64) {
                put(&router, n).await;
            }
        }));
    }
    for task in loading {
        task.await.unwrap();
    }
    let took = started.elapsed();
    println!("{routes} routes by 64 clients: {took:.2?}, {:.0} a second", routes as f64 / took.as_secs_f64());

    let mut times = Vec::new();
    for n in 0..1000 {
        let started = Instant::now();
        put(&router, n % routes).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!("one client: median {:.2?}, 99 % within {:.2?}", times[500], times[990]);
    std::fs::remove_dir_all(dir).unwrap();
}

async fn put(router: &Router, n: usize) {
    let body = format!(
        "{{\"uri\":\"/r/{n}/*\",\"host\":\"h{n}.example.com\",\"upstream\":{{\"nodes\":{{\"127.0.0.1:1980\":1}}}}}}"
    );
    let request = Request::put(format!("/apisix/admin/routes/{n}")).body(Body::from(body)).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
}

fn config(store: Arc<dyn Store>) -> admin::Config {
    let mut config = admin::Config::new(store);
    config.key_required = false;
    config
}
