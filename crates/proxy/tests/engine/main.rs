//! The engine from the outside: real sockets on both sides, a plan compiled from resources in between.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failures;
mod forwarding;
mod front;
mod grpc;
mod http2;
mod http3;
mod lifecycle;
mod protocols;
mod proxied;
mod smuggling;
mod strict;
mod unread;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use model::{Key, Resource, Snapshot, secrets::Keyring};
use proxy::{
    engine::{Config, Engine, Listener, Listeners, Shared},
    lasting::Lasting,
    plan::{Catalog, Input, compile},
    router::Routing,
};
use serde_json::{Map, Value, json};

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(10);

/// An engine on a port of its own, and the resources it serves.
pub struct Gateway {
    engine: Option<Engine>,
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    pub config: Config,
    snapshot: Snapshot,
    lasting: Lasting,
}

impl Gateway {
    /// Serves these resources.
    pub fn start(resources: &[(&str, Value)]) -> Self {
        Self::with(resources, |_| {})
    }

    /// Serves these resources by a changed configuration.
    pub fn with(resources: &[(&str, Value)], change: impl FnOnce(&mut Config)) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, testkit::ports::free()));
        let mut config = Config { workers: 2, ..Config::default() };
        config.listeners.push(Listener { http2: true, ..Listener::at(address) });
        config.timeouts.shutdown = Duration::from_secs(5);
        change(&mut config);
        let shared = Arc::new(Shared::default());
        let engine = Engine::start(config.clone(), Listeners::default(), Arc::clone(&shared)).unwrap();
        let mut gateway = Self {
            engine: Some(engine),
            shared,
            address,
            config,
            snapshot: Snapshot::default(),
            lasting: Lasting::default(),
        };
        gateway.change(resources);
        gateway
    }

    /// One route for everything, to this node.
    pub fn to(node: &str) -> Self {
        Self::start(&[route(node)])
    }

    /// Puts resources and serves them.
    pub fn change(&mut self, resources: &[(&str, Value)]) {
        for (key, value) in resources {
            let key: Key = key.parse().unwrap();
            self.snapshot.put(Resource { key, value: value.to_string().into(), created: 1, modified: 1 });
        }
        let input = Input {
            snapshot: self.snapshot.clone(),
            keyring: &Keyring::default(),
            catalog: &Catalog::new([]).unwrap(),
            lasting: &self.lasting,
            attrs: &Map::new(),
            routing: Routing::default(),
            tls: &proxy::tls::Settings::default(),
            rebuild: false,
            news: Vec::new(),
        };
        let (plan, report) = compile(&input, Some(&self.shared.plan.load()));
        assert!(report.rejected.is_empty(), "{:?}", report.rejected);
        self.shared.plan.store(Arc::new(plan));
    }

    /// Serves by another configuration.
    pub fn reconfigure(&mut self, config: Config) -> std::io::Result<()> {
        self.engine.as_mut().unwrap().reconfigure(config.clone())?;
        self.config = config;
        Ok(())
    }

    /// Stops it as a process would; gives the thread that waits for the end.
    pub fn drain(&mut self) -> std::thread::JoinHandle<()> {
        let engine = self.engine.take().unwrap();
        std::thread::spawn(move || engine.drain())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A connection to be written to byte by byte.
    pub fn wire(&self) -> Wire {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Wire(stream)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.drain();
        }
    }
}

/// A route for everything, to one node.
pub fn route(node: &str) -> (&'static str, Value) {
    ("routes/1", json!({ "uri": "/*", "upstream": { "type": "roundrobin", "nodes": { node: 1 } } }))
}

/// A connection without any HTTP of its own.
pub struct Wire(pub TcpStream);

impl Wire {
    pub fn say(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Says it to someone who may have gone.
    pub fn try_say(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes());
    }

    /// So many bytes.
    pub fn take(&mut self, length: usize) -> String {
        let mut read = vec![0; length];
        self.0.read_exact(&mut read).unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// The body of an answer with this head: by length, or in chunks, of which it gives the data.
    pub fn body(&mut self, head: &str) -> String {
        let head = head.to_lowercase();
        if let Some((_, length)) = head.split_once("content-length: ") {
            let digits = length.split("\r\n").next().unwrap();
            return self.take(digits.parse().unwrap());
        }
        let mut all = String::new();
        loop {
            let size = self.until("\r\n");
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            all += &self.take(size);
            self.until("\r\n");
            if size == 0 {
                return all;
            }
        }
    }

    /// Reads until what was read ends with `end`; whatever there was by the connection's end.
    pub fn until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(end.as_bytes()) && matches!(self.0.read(&mut byte), Ok(1)) {
            read.push(byte[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> String {
        let mut read = Vec::new();
        let _ = self.0.read_to_end(&mut read);
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// An upstream that answers each connection's first request with these bytes, and tells what it was sent.
pub struct Canned {
    pub node: String,
    received: std::sync::mpsc::Receiver<String>,
}

impl Canned {
    pub fn start(answer: &'static [u8]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let (sender, received) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut wire = Wire(stream.unwrap());
                let _ = sender.send(wire.until("\r\n\r\n"));
                let _ = wire.0.write_all(answer);
                let _ = wire.0.shutdown(std::net::Shutdown::Write);
            }
        });
        Self { node, received }
    }

    /// The head of the next request.
    pub fn head(&self) -> String {
        self.received.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}
