//! Counters of the data plane under APISIX's names.
//!
//! The rule to know: a request finds its counters by walking a few pointers of its own route, without a lock and
//! without an allocation. A route that no request ever reached costs one empty pointer. Every worker counts for
//! itself; the sum is made when somebody asks.

mod counting;
mod exposition;

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustc_hash::FxBuildHasher;

pub use counting::{Counting, Family, Hidden};
pub use exposition::{Gauge, Writer};

/// Upper bounds of APISIX's latency histogram, in milliseconds.
pub const DEFAULT_BUCKETS: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 30_000.0,
    60_000.0,
];

/// What one request is counted under. Empty where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Labels<'a> {
    pub code: u16,
    /// The route's id, or its name where the plugin prefers names.
    pub route: &'a str,
    pub service: &'a str,
    pub matched_uri: &'a str,
    pub matched_host: &'a str,
    pub consumer: &'a str,
    /// The upstream node's address without port.
    pub node: &'a str,
    /// Who made the response: `upstream`, `apisix`, or `nginx` for an error on the way to the upstream.
    pub source: &'static str,
    /// What of these is not shown.
    pub hidden: Hidden,
}

/// What one request adds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub request: Duration,
    /// None: no upstream was asked.
    pub upstream: Option<Duration>,
    /// Bytes from the client, head and body.
    pub ingress: u64,
    /// Bytes to the client, head and body.
    pub egress: u64,
}

/// The handles of one route, found on the first request that is counted.
#[derive(Default)]
pub struct RouteMetrics {
    root: OnceLock<Box<Link>>,
}

impl RouteMetrics {
    /// Counts one request on worker `worker`.
    pub fn count(&self, metrics: &Metrics, worker: u16, labels: &Labels<'_>, sample: &Sample) {
        let mut hash = FxBuildHasher.hash_one((worker, labels));
        let mut slot = &self.root;
        loop {
            let link = slot.get_or_init(|| Box::new(Link::new(metrics.series(worker, labels))));
            if link.series.worker == worker && link.series.labels.matches(labels) {
                return link.series.add(&metrics.buckets, sample);
            }
            slot = &link.next[(hash >> 62) as usize];
            hash <<= 2;
        }
    }
}

/// A node of a tree by hash that only ever grows, so that walking it needs no lock.
struct Link {
    series: Arc<Series>,
    next: [OnceLock<Box<Link>>; 4],
}

impl Link {
    fn new(series: Arc<Series>) -> Self {
        Self { series, next: Default::default() }
    }
}

/// Writes gauges that are read when somebody asks.
type Write = dyn Fn(&mut Writer) + Send + Sync;

/// Every series there is, of all routes that ever counted, and process-wide gauges.
pub struct Metrics {
    buckets: Box<[f64]>,
    series: Mutex<HashMap<(u16, Names), Arc<Series>, FxBuildHasher>>,
    gauges: Mutex<Vec<Arc<Write>>>,
    /// For requests that no route matches.
    pub unrouted: RouteMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with_buckets(&DEFAULT_BUCKETS)
    }
}

impl Metrics {
    /// With `plugin_attr.prometheus.default_buckets`.
    pub fn with_buckets(buckets: &[f64]) -> Self {
        Self {
            buckets: buckets.into(),
            series: Mutex::default(),
            gauges: Mutex::default(),
            unrouted: RouteMetrics::default(),
        }
    }

    /// Adds gauges that are read when somebody asks: configuration sources, connections, etcd.
    pub fn register(&self, write: impl Fn(&mut Writer) + Send + Sync + 'static) {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(write));
    }

    /// Everything in Prometheus' text format; `prefix` is `apisix_` unless configured.
    pub fn render(&self, prefix: &str) -> String {
        let series: Vec<_> =
            self.series.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut writer = Writer::new(prefix);
        for write in gauges {
            write(&mut writer);
        }
        exposition::write_series(&mut writer, &self.buckets, &series);
        writer.finish()
    }

    fn series(&self, worker: u16, labels: &Labels<'_>) -> Arc<Series> {
        let names = Names::from(labels);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .entry((worker, names.clone()))
            .or_insert_with(|| Arc::new(Series::new(worker, names, self.buckets.len())))
            .clone()
    }
}

/// [`Labels`] to keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Names {
    code: u16,
    /// Route, service, matched URI, matched host, consumer, node.
    texts: [Box<str>; 6],
    source: &'static str,
    hidden: Hidden,
}

impl Names {
    fn matches(&self, labels: &Labels<'_>) -> bool {
        let [route, service, uri, host, consumer, node] = &self.texts;
        self.code == labels.code
            && **node == *labels.node
            && **consumer == *labels.consumer
            && **uri == *labels.matched_uri
            && **host == *labels.matched_host
            && **route == *labels.route
            && **service == *labels.service
            && self.source == labels.source
            && self.hidden == labels.hidden
    }
}

impl From<&Labels<'_>> for Names {
    fn from(l: &Labels<'_>) -> Self {
        let texts = [l.route, l.service, l.matched_uri, l.matched_host, l.consumer, l.node].map(Into::into);
        Self { code: l.code, texts, source: l.source, hidden: l.hidden }
    }
}

/// The counters of one worker under one set of labels.
struct Series {
    worker: u16,
    labels: Names,
    requests: AtomicU64,
    /// Request, upstream, apisix.
    latency: [Histogram; 3],
    ingress: AtomicU64,
    egress: AtomicU64,
}

impl Series {
    fn new(worker: u16, labels: Names, buckets: usize) -> Self {
        let zero = AtomicU64::default;
        let latency = std::array::from_fn(|_| Histogram::new(buckets));
        Self { worker, labels, requests: zero(), latency, ingress: zero(), egress: zero() }
    }

    fn add(&self, bounds: &[f64], sample: &Sample) {
        self.requests.fetch_add(1, Relaxed);
        self.ingress.fetch_add(sample.ingress, Relaxed);
        self.egress.fetch_add(sample.egress, Relaxed);
        let upstream = sample.upstream.unwrap_or_default();
        self.latency[0].add(bounds, sample.request);
        if sample.upstream.is_some() {
            self.latency[1].add(bounds, upstream);
        }
        self.latency[2].add(bounds, sample.request.saturating_sub(upstream));
    }
}

/// Counts below each bound and beyond the last; the sum in microseconds.
struct Histogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(buckets: usize) -> Self {
        Self { counts: (0..=buckets).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    fn add(&self, bounds: &[f64], value: Duration) {
        let milliseconds = value.as_secs_f64() * 1000.0;
        let bucket = bounds.iter().position(|&bound| milliseconds <= bound).unwrap_or(bounds.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests;
