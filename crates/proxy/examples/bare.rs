//! One bare route, for measuring the engine beside nginx: `bare PORT UPSTREAM [CERT KEY]`.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use proxy::{
    chain::Chain,
    engine::{Config, Engine, Listener, Listeners, Shared},
    metrics::RouteMetrics,
    plan::{Plan, Route},
    router::Rule,
    tls::Certificate,
    upstream::{self, Upstream},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let port = arguments.get(1).context("which port?")?.parse()?;
    let upstream: SocketAddr = arguments.get(2).context("which upstream?")?.parse()?;
    let mut plan = Plan::default();
    plan.router.insert(&Arc::new(route(upstream)?));
    let tls = match (arguments.get(3), arguments.get(4)) {
        (Some(cert), Some(key)) => {
            let value = serde_json::json!({
                "cert": fs::read_to_string(cert)?, "key": fs::read_to_string(key)?, "sni": "localhost",
            });
            let ssl = serde_json::from_value(value)?;
            let certificate = Certificate::read("1", &ssl)?.context("no server certificate")?;
            plan.certificates.insert(&Arc::new(certificate));
            true
        }
        _ => false,
    };
    let shared = Arc::new(Shared::default());
    shared.plan.store(Arc::new(plan));
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut config = Config { workers: 1, ..Config::default() };
    config.listeners.push(Listener { address, tls, http2: tls });
    config.tls.fallback_sni = Some("localhost".into());
    let engine = Engine::start(config, Listeners::default(), shared)?;
    std::thread::park();
    engine.drain();
    Ok(())
}

fn route(address: SocketAddr) -> Result<Route> {
    let value = serde_json::json!({ "uri": "/*" });
    let resource: model::resource::Route = serde_json::from_value(value)?;
    let to = serde_json::from_value(serde_json::json!({ "nodes": { address.to_string(): 1 } }))?;
    let upstream = Upstream::new("routes/1#upstream", &to, &mut upstream::Shared::default(), |_| {
        Err("plain HTTP".to_owned())
    });
    Ok(Route {
        id: "1".into(),
        name: None,
        service: None,
        rule: Rule::read(&resource, None).map_err(anyhow::Error::msg)?,
        chain: Arc::new(Chain::default()),
        upstream: Some(Arc::new(upstream.map_err(anyhow::Error::msg)?)),
        timeouts: None,
        websocket: false,
        metrics: RouteMetrics::default(),
    })
}
