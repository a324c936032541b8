//! One bare route, for measuring the engine beside its peers: `bare PORT UPSTREAM [CERT KEY]`.
//! With `BARE_LOG=FILE` it writes the access log in its default format.

use std::{env, fs, net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result};
use model::{Key, Resource, Snapshot, secrets::Keyring};
use proxy::{
    access_log::{DEFAULT_FORMAT, Escape, Format},
    engine::{Config, Engine, Listener, Listeners, Shared},
    lasting::Lasting,
    plan::{Catalog, Input, compile},
    router::Routing,
};
use serde_json::{Map, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let port = arguments.get(1).context("which port?")?.parse()?;
    let upstream = arguments.get(2).context("which upstream?")?;
    let mut snapshot = Snapshot::default();
    let mut put = |key: &str, value: &serde_json::Value| -> Result<()> {
        let key: Key = key.parse()?;
        snapshot.put(Resource { key, value: value.to_string().into(), created: 1, modified: 1 });
        Ok(())
    };
    let route = json!({ "uri": "/*", "upstream": { "type": "roundrobin", "nodes": { upstream: 1 } } });
    put("routes/1", &route)?;
    let tls = arguments.len() > 4;
    if tls {
        let (cert, key) = (fs::read_to_string(&arguments[3])?, fs::read_to_string(&arguments[4])?);
        put("ssls/1", &json!({ "sni": "localhost", "cert": cert, "key": key }))?;
    }
    let input = Input {
        snapshot,
        keyring: &Keyring::default(),
        catalog: &Catalog::new([]).map_err(anyhow::Error::msg)?,
        lasting: &Lasting::default(),
        attrs: &Map::new(),
        routing: Routing::default(),
        tls: &proxy::tls::Settings::default(),
        rebuild: false,
        news: Vec::new(),
    };
    let (plan, report) = compile(&input, None);
    anyhow::ensure!(report.rejected.is_empty(), "refused: {:?}", report.rejected);
    let shared = Arc::new(Shared::default());
    shared.plan.store(Arc::new(plan));
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut config = Config { workers: 1, ..Config::default() };
    config.listeners.push(Listener { tls, http2: tls, ..Listener::at(address) });
    config.fallback_sni = Some("localhost".into());
    if let Some(file) = env::var_os("BARE_LOG") {
        config.access_log = Some(Arc::new(Format::new(DEFAULT_FORMAT, Escape::Default, 16 * 1024)));
        config.access_log_file = Some(file.into());
    }
    let engine = Engine::start(config, Listeners::default(), shared)?;
    std::thread::park();
    engine.drain();
    Ok(())
}
