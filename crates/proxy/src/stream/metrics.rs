//! APISIX's counters of streams.
//!
//! The rule to know: bytes and active sessions are counted while they are, by listening address and worker; a session
//! is counted under its route, status and node when it is over, where its route has the `prometheus` plugin.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    ctx::Ctx,
    metrics::{Counting, Writer},
};

/// What streams are counted by.
#[derive(Default)]
pub struct Metrics {
    /// By worker and listening address.
    traffic: Mutex<HashMap<(u16, SocketAddr), Arc<Traffic>>>,
    over: Mutex<Over>,
}

/// Sessions that are over.
#[derive(Default)]
struct Over {
    /// By route.
    total: BTreeMap<String, u64>,
    /// By status, listening address and node.
    by_status: BTreeMap<[String; 3], u64>,
}

/// What goes through one listening address on one worker. The sides are the client's and the node's.
#[derive(Default)]
pub struct Traffic {
    active: AtomicU64,
    /// From clients, and to nodes: the same bytes, but for those on their way.
    up: AtomicU64,
    /// From nodes, and to clients.
    down: AtomicU64,
}

impl Traffic {
    pub(super) fn moved(&self, up: u64, down: u64) {
        self.up.fetch_add(up, Relaxed);
        self.down.fetch_add(down, Relaxed);
    }

    /// Counts a session as active until it is dropped.
    pub(super) fn session(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }
}

/// A session that counts.
pub(super) struct Active(pub Arc<Traffic>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    pub(super) fn traffic(&self, worker: u16, listener: SocketAddr) -> Arc<Traffic> {
        Arc::clone(lock(&self.traffic).entry((worker, listener)).or_default())
    }

    /// Counts a session that is over.
    pub(super) fn count(&self, ctx: &Ctx, how: Counting) {
        let named = how.by_name.then(|| ctx.route_name()).flatten();
        let route = named.or(ctx.route_id()).unwrap_or_default().to_owned();
        let listener = ctx.session.as_ref().map(|session| session.listener.to_string());
        let node = ctx.attempts.last().map(|attempt| {
            attempt.address.map_or_else(|| attempt.node.label.to_string(), |address| address.to_string())
        });
        let status = ctx.response.status.as_str().to_owned();
        let mut over = lock(&self.over);
        *over.total.entry(route).or_default() += 1;
        let by_status = [status, listener.unwrap_or_default(), node.unwrap_or_default()];
        *over.by_status.entry(by_status).or_default() += 1;
    }

    #[allow(clippy::cast_precision_loss, reason = "a sample is a float")]
    pub(crate) fn write(&self, writer: &mut Writer) {
        let mut ports: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for ((_, listener), traffic) in &*lock(&self.traffic) {
            let sum = ports.entry(listener.to_string()).or_default();
            for (sum, part) in sum.iter_mut().zip([&traffic.active, &traffic.up, &traffic.down]) {
                *sum += part.load(Relaxed);
            }
        }
        if ports.is_empty() {
            return;
        }
        let active: Vec<_> =
            ports.iter().map(|(listener, [active, ..])| ([("listen_addr", &**listener)], *active)).collect();
        let active: Vec<_> = active.iter().map(|(labels, value)| (&labels[..], *value as f64)).collect();
        let help = "Number of stream sessions currently being proxied per listening address";
        writer.gauges("stream_active_connections", help, &active);
        let bytes: Vec<_> = ports
            .iter()
            .flat_map(|(listener, &[_, up, down])| {
                let labels = |kind, side| [("listen_addr", &**listener), ("type", kind), ("side", side)];
                [
                    (labels("ingress", "downstream"), up),
                    (labels("egress", "downstream"), down),
                    (labels("egress", "upstream"), up),
                    (labels("ingress", "upstream"), down),
                ]
            })
            .collect();
        let bytes: Vec<_> = bytes.iter().map(|(labels, value)| (&labels[..], *value as f64)).collect();
        writer.counters(
            "stream_bandwidth",
            "Total bandwidth in bytes proxied by the stream subsystem in APISIX",
            &bytes,
        );
        self.write_sessions(writer);
    }

    #[allow(clippy::cast_precision_loss, reason = "a sample is a float")]
    fn write_sessions(&self, writer: &mut Writer) {
        let over = lock(&self.over);
        let total: Vec<_> =
            over.total.iter().map(|(route, count)| ([("route", &**route)], *count as f64)).collect();
        let total: Vec<_> = total.iter().map(|(labels, count)| (&labels[..], *count)).collect();
        let help = "Total number of connections handled per stream route in APISIX";
        writer.counters("stream_connection_total", help, &total);
        let by_status: Vec<_> = over
            .by_status
            .iter()
            .map(|([code, listener, node], count)| {
                ([("code", &**code), ("listen_addr", &**listener), ("node", &**node)], *count as f64)
            })
            .collect();
        let by_status: Vec<_> = by_status.iter().map(|(labels, count)| (&labels[..], *count)).collect();
        writer.counters("stream_status", "Stream sessions per termination status in APISIX", &by_status);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
