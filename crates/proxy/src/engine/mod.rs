//! The engine: threads that take requests in and send them on. The only part that knows hyper.
//!
//! The rule to know: changing the configuration replaces nothing that carries traffic. Workers, connections and
//! listening sockets stay; each request reads what is in force when it comes.

mod body;
mod client;
mod config;
mod exchange;
mod forward_head;
#[cfg(fuzzing)]
pub mod fuzzing;
mod h1;
mod h2;
mod http3;
pub(crate) mod io;
mod link;
mod listen;
mod old_head;
pub mod proxy_protocol;
mod pubsub;
mod real_ip;
mod reply;
pub(crate) mod timer;
mod tunnel;
pub(crate) mod worker;

use std::{
    io::{Error, Result},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub use config::{Config, Limits, Listener, Timeouts};
pub use listen::{Listeners, can_listen};
pub use real_ip::{RealIp, SaidBy};

use crate::{
    access_log::{Sink, Writer},
    metrics::Metrics,
    plan::Plan,
    status::Status,
    stream, tls,
};
use worker::{Command, Orders};

/// The plan in force, swapped by whoever compiles.
pub type PlanCell = Arc<ArcSwap<Plan>>;

/// What the engine shares with the rest of the process.
pub struct Shared {
    pub plan: PlanCell,
    pub metrics: Metrics,
    pub streams: Arc<stream::Metrics>,
    pub status: Arc<Status>,
}

impl Default for Shared {
    fn default() -> Self {
        let (metrics, status) = (Metrics::default(), Arc::<Status>::default());
        let streams = Arc::<stream::Metrics>::default();
        let told = Arc::clone(&status);
        metrics.register(move |writer| told.write_metrics(writer));
        let told = Arc::clone(&streams);
        metrics.register(move |writer| told.write(writer));
        Self { plan: PlanCell::default(), metrics, streams, status }
    }
}

/// Workers that serve.
pub struct Engine {
    shared: Arc<Shared>,
    listeners: Listeners,
    quic: http3::Sockets,
    workers: Vec<Handle>,
    /// Workers that are on their way out.
    leaving: Vec<Handle>,
    log: Log,
    stream_log: Log,
    /// The configuration in force; none before the first.
    config: Option<(Arc<Config>, tls::Acceptor)>,
    /// Whether clients are let in.
    is_open: bool,
}

struct Handle {
    commands: UnboundedSender<Command>,
    thread: JoinHandle<Result<()>>,
}

impl Engine {
    /// Listens and serves.
    pub fn start(config: Config, listeners: Listeners, shared: Arc<Shared>) -> Result<Self> {
        let mut engine = Self::bind(config, listeners, shared)?;
        engine.open()?;
        Ok(engine)
    }

    /// Takes its addresses, and lets nobody in before [`Engine::open`]: whoever connects is refused.
    pub fn bind(config: Config, listeners: Listeners, shared: Arc<Shared>) -> Result<Self> {
        let mut engine = Self {
            shared,
            listeners,
            quic: http3::Sockets::default(),
            workers: vec![],
            leaving: vec![],
            log: Log::default(),
            stream_log: Log::default(),
            config: None,
            is_open: false,
        };
        engine.reconfigure(config)?;
        Ok(engine)
    }

    /// Lets clients in, if they are not yet. An error names the address that another process has taken meanwhile.
    pub fn open(&mut self) -> Result<()> {
        if !self.is_open {
            self.listeners.open(true)?;
            self.is_open = true;
            self.employ()?;
            self.shared.status.set_open();
        }
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Serves by another configuration. After an error everything is as it was.
    pub fn reconfigure(&mut self, config: Config) -> Result<()> {
        let count = config.workers.max(1);
        let acceptor = tls::Acceptor::new(config.fallback_sni.as_deref()).map_err(Error::other)?;
        self.listeners.prepare(&config, count)?;
        self.quic.prepare(&config.quic)?;
        if self.is_open {
            self.listeners.open(false)?;
        }
        let log = self.log.prepare(config.access_log.as_ref().and(config.access_log_file.as_deref()))?;
        let stream = &config.stream;
        let stream_log =
            self.stream_log.prepare(stream.access_log.as_ref().and(stream.access_log_file.as_deref()))?;
        let retired = (self.log.replace(log), self.stream_log.replace(stream_log));
        self.listeners.retain(&config);
        self.quic.retain(&config.quic);
        self.config = Some((Arc::new(config), acceptor));
        self.employ()?;
        // Its last lines are written by its own thread, once no worker holds it any more.
        drop(retired);
        Ok(())
    }

    /// Tells every worker what to do, and has as many as there should be.
    fn employ(&mut self) -> Result<()> {
        let Some((config, acceptor)) = &self.config else { return Ok(()) };
        let count = config.workers.max(1);
        let assigned = match self.is_open {
            true => self.listeners.assign(config, count),
            false => (0..count).map(|_| listen::Assignment::default()).collect(),
        };
        self.shared.status.expect(count);
        for (id, sockets) in assigned.into_iter().enumerate() {
            let (config, acceptor) = (Arc::clone(config), acceptor.clone());
            let (log, stream_log) = (self.log.sink(), self.stream_log.sink());
            // The first worker is always there.
            let quic = if id == 0 && self.is_open { self.quic.all() } else { vec![] };
            let orders = Box::new(Orders { config, sockets, quic, acceptor, log, stream_log });
            match self.workers.get(id) {
                Some(worker) => {
                    let _ = worker.commands.send(Command::Configure(orders));
                }
                None => self.workers.push(Handle::start(id, Arc::clone(&self.shared), orders)?),
            }
        }
        self.leaving.retain(|worker| !worker.thread.is_finished());
        for worker in self.workers.drain(count..) {
            let _ = worker.commands.send(Command::Retire);
            self.leaving.push(worker);
        }
        Ok(())
    }

    /// The address bound for the one configured: they differ where port 0 was asked for.
    pub fn address(&self, configured: SocketAddr) -> Option<SocketAddr> {
        self.listeners.bound(configured)
    }

    /// Opens the access logs anew, after they have been moved away.
    pub fn reopen_log(&self) {
        self.log.reopen();
        self.stream_log.reopen();
    }

    /// Takes no new connections, lets the old ones end for as long as they may, and returns when all have. Blocks.
    pub fn drain(mut self) {
        self.listeners = Listeners::default();
        for worker in self.workers.iter().chain(&self.leaving) {
            let _ = worker.commands.send(Command::Stop);
        }
        for worker in self.workers.drain(..).chain(self.leaving.drain(..)) {
            drop(worker.commands);
            let _ = worker.thread.join();
        }
        self.log.finish();
        self.stream_log.finish();
    }
}

/// An access log; none where none is written.
#[derive(Default)]
struct Log(Option<(Writer, Sink)>);

impl Log {
    /// What goes to `path` in the place of this; none: it goes there already.
    fn prepare(&self, path: Option<&Path>) -> Result<Option<Self>> {
        if self.0.as_ref().map(|(writer, _)| writer.path()) == path {
            return Ok(None);
        }
        let opened = path.map(|path| {
            Writer::open(path).map_err(|error| {
                let told = format!("the access log {} can't be opened: {error}", path.display());
                Error::new(error.kind(), told)
            })
        });
        let opened = opened.transpose()?;
        Ok(Some(Self(opened)))
    }

    /// Takes what was prepared; gives what was there before.
    fn replace(&mut self, prepared: Option<Self>) -> Option<Self> {
        match prepared {
            Some(new) => Some(std::mem::replace(self, new)),
            None => {
                self.reopen();
                None
            }
        }
    }

    fn sink(&self) -> Option<Sink> {
        self.0.as_ref().map(|(_, sink)| sink.clone())
    }

    fn reopen(&self) {
        if let Some((_, sink)) = &self.0 {
            sink.reopen();
        }
    }

    /// Waits until everything is written.
    fn finish(self) {
        if let Some((writer, sink)) = self.0 {
            drop(sink);
            writer.finish();
        }
    }
}

impl Handle {
    fn start(id: usize, shared: Arc<Shared>, orders: Box<Orders>) -> Result<Self> {
        let (commands, receiver) = unbounded_channel();
        let number = u16::try_from(id).unwrap_or(u16::MAX);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || worker::run(number, shared, orders, receiver))?;
        Ok(Self { commands, thread })
    }
}
