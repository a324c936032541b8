//! One thread with its runtime: its share of the connections, its pool, its timers, its log buffer.
//!
//! The rule to know: a worker shares nothing it writes. It learns of changes by commands, between requests.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, RawFd},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::Cache;
use http::HeaderValue;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, error::TryRecvError},
    },
    task::spawn_local,
};

use super::{
    PlanCell, Shared,
    config::{Config, Listener},
    h1, h2, http3, io,
    listen::{self, Assignment},
    timer::Timers,
};
use crate::{
    access_log::{Buffer, Sink},
    plan::Plan,
    status::Counters,
    stream::{self, Scratch},
    tls,
    upstream::pool::Pool,
};

/// What a worker is told.
pub enum Command {
    /// Serve by this from now on.
    Configure(Box<Orders>),
    /// Others take over: take no new connections, and end when the old ones have.
    Retire,
    /// The process ends: as before, but idle connections are closed.
    Stop,
}

/// A configuration, as far as one worker is concerned.
pub struct Orders {
    pub config: Arc<Config>,
    pub sockets: Assignment,
    /// For HTTP/3, with the addresses they were asked for.
    pub quic: Vec<(SocketAddr, Arc<UdpSocket>)>,
    pub acceptor: tls::Acceptor,
    pub log: Option<Sink>,
    pub stream_log: Option<Sink>,
}

/// The state of one worker, shared by its tasks.
pub struct Worker {
    pub id: u16,
    pub shared: Arc<Shared>,
    pub timers: Rc<Timers>,
    pub pool: RefCell<Pool<h1::Connection<io::Upstream>>>,
    pub lanes: RefCell<h2::Lanes>,
    pub log: RefCell<Buffer>,
    pub stream_log: RefCell<Buffer>,
    pub scratch: Scratch,
    pub counters: Arc<Counters>,
    plan: RefCell<Cache<PlanCell, Arc<Plan>>>,
    config: RefCell<Rc<Config>>,
    acceptor: RefCell<tls::Acceptor>,
    leaving: Cell<Leaving>,
    /// The time as `Date` has it, and the second since 1970 that it is of.
    date: RefCell<(u64, HeaderValue)>,
}

/// How far a worker is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaving {
    Not,
    Retiring,
    Stopping,
    Over,
}

impl Worker {
    /// The configuration in force.
    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// The plan in force.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(self.plan.borrow_mut().load())
    }

    pub fn acceptor(&self) -> tls::Acceptor {
        self.acceptor.borrow().clone()
    }

    /// What `Date` says now.
    pub fn date(&self) -> HeaderValue {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second
            && let Ok(text) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            *date = (second, text);
        }
        date.1.clone()
    }

    /// Whether connections are to end once they have answered.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get() >= Leaving::Retiring
    }

    /// Whether idle connections are to end too.
    pub fn is_stopping(&self) -> bool {
        self.leaving.get() >= Leaving::Stopping
    }

    /// Whether nothing is waited for any more.
    pub fn is_over(&self) -> bool {
        self.leaving.get() == Leaving::Over
    }

    /// Drops dead and old connections and plans, and hands over log lines, now and then.
    async fn sweep(&self) {
        /// nginx's `flush=3`.
        const EVERY: Duration = Duration::from_secs(3);
        loop {
            tokio::time::sleep(EVERY).await;
            self.pool.borrow_mut().sweep(Instant::now(), h1::Connection::is_usable);
            self.lanes.borrow_mut().sweep(Instant::now());
            self.log.borrow_mut().flush();
            self.stream_log.borrow_mut().flush();
            drop(self.plan());
        }
    }
}

/// Runs a worker until it is told to drain and has done so, or nobody is left to tell it anything.
pub fn run(
    id: u16,
    shared: Arc<Shared>,
    first: Box<Orders>,
    mut commands: UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let worker = Rc::new(Worker {
            id,
            timers: Rc::default(),
            pool: RefCell::default(),
            lanes: RefCell::default(),
            log: RefCell::default(),
            stream_log: RefCell::default(),
            scratch: RefCell::new(vec![0; stream::BUFFER].into()),
            counters: shared.status.worker(),
            plan: RefCell::new(Cache::new(Arc::clone(&shared.plan))),
            config: RefCell::new(Rc::new(Config::clone(&first.config))),
            acceptor: RefCell::new(first.acceptor.clone()),
            leaving: Cell::new(Leaving::Not),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            shared,
        });
        let timers = Rc::clone(&worker.timers);
        spawn_local(async move { timers.run().await });
        let sweeper = Rc::clone(&worker);
        spawn_local(async move { sweeper.sweep().await });
        let leaving = obey(&worker, first, &mut commands).await;
        worker.leaving.set(leaving);
        drain(&worker, &mut commands).await;
        worker.log.borrow_mut().set_sink(None);
        worker.stream_log.borrow_mut().set_sink(None);
        worker.counters.set_running(false);
    });
    Ok(())
}

/// Follows commands until one is to leave.
async fn obey(worker: &Rc<Worker>, first: Box<Orders>, commands: &mut UnboundedReceiver<Command>) -> Leaving {
    let mut accepting = Accepting::default();
    let mut endpoints = http3::Endpoints::default();
    let mut orders = Some(first);
    let leaving = loop {
        if let Some(orders) = orders.take() {
            let Orders { config, sockets, quic, acceptor, log, stream_log } = *orders;
            worker.config.replace(Rc::new(Config::clone(&config)));
            worker.acceptor.replace(acceptor);
            worker.log.borrow_mut().set_sink(log);
            worker.stream_log.borrow_mut().set_sink(stream_log);
            accepting.change(worker, sockets);
            endpoints.change(worker, quic);
            worker.counters.set_running(true);
        }
        match commands.recv().await {
            Some(Command::Configure(next)) => orders = Some(next),
            Some(Command::Retire) => break Leaving::Retiring,
            Some(Command::Stop) | None => break Leaving::Stopping,
        }
    };
    accepting.change(worker, Assignment::default());
    endpoints.change(worker, vec![]);
    leaving
}

/// Lets connections end by themselves, for as long as they may.
async fn drain(worker: &Worker, commands: &mut UnboundedReceiver<Command>) {
    const GRAIN: Duration = Duration::from_millis(20);
    let until = Instant::now() + worker.config().timeouts.shutdown;
    // Once more round, so that what was accepted last is a connection too.
    tokio::task::yield_now().await;
    worker.timers.wake_all();
    while worker.counters.connections() > 0 && Instant::now() < until {
        tokio::time::sleep(GRAIN).await;
        if let Ok(Command::Stop) | Err(TryRecvError::Disconnected) = commands.try_recv() {
            worker.leaving.set(Leaving::Stopping);
        }
        if worker.is_stopping() {
            worker.timers.wake_all();
        }
    }
    worker.leaving.set(Leaving::Over);
}

/// The sockets a worker listens on.
#[derive(Default)]
struct Accepting {
    tcp: HashMap<(Listener, RawFd), Rc<Notify>>,
    udp: HashMap<(SocketAddr, RawFd), Rc<Notify>>,
}

impl Accepting {
    /// Listens on these sockets and no others.
    fn change(&mut self, worker: &Rc<Worker>, sockets: Assignment) {
        let tcp = sockets.tcp.into_iter().map(|(listener, socket)| ((listener, socket.as_raw_fd()), socket));
        let tcp: HashMap<_, _> = tcp.collect();
        stop_others(&mut self.tcp, |key| tcp.contains_key(key));
        for (key, socket) in tcp {
            self.tcp.entry(key).or_insert_with(|| accept(worker, key.0, &socket));
        }
        let udp = sockets.udp.into_iter().map(|(address, socket)| ((address, socket.as_raw_fd()), socket));
        let udp: HashMap<_, _> = udp.collect();
        stop_others(&mut self.udp, |key| udp.contains_key(key));
        for (key, socket) in udp {
            self.udp.entry(key).or_insert_with(|| receive(worker, key.0, &socket));
        }
    }
}

fn stop_others<K>(tasks: &mut HashMap<K, Rc<Notify>>, stays: impl Fn(&K) -> bool) {
    tasks.retain(|key, stop| {
        let stays = stays(key);
        if !stays {
            stop.notify_one();
        }
        stays
    });
}

fn accept(worker: &Rc<Worker>, listener: Listener, socket: &TcpListener) -> Rc<Notify> {
    let stop = Rc::new(Notify::new());
    match socket.try_clone() {
        Ok(socket) => {
            spawn_local(listen::accept(Rc::clone(worker), socket, listener, Rc::clone(&stop)));
        }
        Err(error) => tracing::error!(%error, address = %listener.address, "a socket can't be taken over"),
    }
    stop
}

fn receive(worker: &Rc<Worker>, address: SocketAddr, socket: &UdpSocket) -> Rc<Notify> {
    let stop = Rc::new(Notify::new());
    match socket.try_clone() {
        Ok(socket) => {
            spawn_local(stream::udp::receive(Rc::clone(worker), socket, address, Rc::clone(&stop)));
        }
        Err(error) => tracing::error!(%error, %address, "a socket can't be taken over"),
    }
    stop
}
