//! Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Family, Histogram, Names, Series};

/// One value with its labels.
pub type Gauge<'a> = (&'a [(&'a str, &'a str)], f64);

/// A page of metrics in the making.
pub struct Writer {
    prefix: String,
    page: String,
}

impl Writer {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), page: String::new() }
    }

    pub(super) fn finish(self) -> String {
        self.page
    }

    /// A family of gauges whose name gets the prefix: `apisix_` + `name`.
    pub fn gauges(&mut self, name: &str, help: &str, values: &[Gauge<'_>]) {
        let name = format!("{}{name}", self.prefix);
        self.own_gauges(&name, help, values);
    }

    /// A family of gauges under a full name of its own: `keelgate_config_age_seconds`.
    pub fn own_gauges(&mut self, name: &str, help: &str, values: &[Gauge<'_>]) {
        self.family(name, help, "gauge", values);
    }

    fn family(&mut self, name: &str, help: &str, kind: &str, values: &[Gauge<'_>]) {
        self.head(name, help, kind);
        for (labels, value) in values {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", Escaped(value))).collect();
            self.line(name, &labels.join(","), value);
        }
    }

    /// A family of counters whose name gets the prefix.
    pub fn counters(&mut self, name: &str, help: &str, values: &[Gauge<'_>]) {
        let name = format!("{}{name}", self.prefix);
        self.family(&name, help, "counter", values);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = if labels.is_empty() {
            writeln!(self.page, "{name} {value}")
        } else {
            writeln!(self.page, "{name}{{{labels}}} {value}")
        };
    }
}

/// The families counted per request, workers added up.
pub(super) fn write_series(writer: &mut Writer, bounds: &[f64], series: &[Arc<Series>]) {
    let mut status = BTreeMap::<String, u64>::new();
    let mut bandwidth = BTreeMap::<String, u64>::new();
    let mut latency = BTreeMap::<String, Sum>::new();
    for one in series {
        *status.entry(status_labels(&one.labels)).or_default() += one.requests.load(Relaxed);
        let key = |kind| labels_by_type(&one.labels, Family::Bandwidth, kind);
        *bandwidth.entry(key("ingress")).or_default() += one.ingress.load(Relaxed);
        *bandwidth.entry(key("egress")).or_default() += one.egress.load(Relaxed);
        for (kind, histogram) in ["request", "upstream", "apisix"].into_iter().zip(&one.latency) {
            latency.entry(labels_by_type(&one.labels, Family::Latency, kind)).or_default().add(histogram);
        }
    }
    write_counters(writer, "http_status", "HTTP status codes per service in APISIX", &status);
    write_counters(
        writer,
        "bandwidth",
        "Total bandwidth in bytes consumed per service in APISIX",
        &bandwidth,
    );
    write_latency(writer, bounds, &latency);
}

fn status_labels(names: &Names) -> String {
    let [route, service, uri, host, consumer, node] = &names.texts;
    let mut labels = format!("code=\"{}\"", names.code);
    let shown = [("route", &**route), ("matched_uri", uri), ("matched_host", host), ("service", service)];
    add_labels(&mut labels, names, Family::Status, &shown);
    add_labels(&mut labels, names, Family::Status, &[("consumer", consumer), ("node", node)]);
    add_labels(&mut labels, names, Family::Status, &TRADITIONAL);
    add_labels(&mut labels, names, Family::Status, &[("response_source", names.source)]);
    labels
}

fn labels_by_type(names: &Names, family: Family, kind: &str) -> String {
    let [route, service, _, _, consumer, node] = &names.texts;
    let mut labels = format!("type=\"{kind}\"");
    let shown = [("route", &**route), ("service", service), ("consumer", consumer), ("node", node)];
    add_labels(&mut labels, names, family, &shown);
    add_labels(&mut labels, names, family, &TRADITIONAL);
    labels
}

fn add_labels(line: &mut String, names: &Names, family: Family, labels: &[(&str, &str)]) {
    for (label, value) in labels {
        let value = if names.hidden.hides(family, label) { "" } else { value };
        let _ = write!(line, ",{label}=\"{}\"", Escaped(value));
    }
}

/// The labels that only requests to language models fill otherwise.
const TRADITIONAL: [(&str, &str); 3] =
    [("request_type", "traditional_http"), ("request_llm_model", ""), ("llm_model", "")];

fn write_counters(writer: &mut Writer, name: &str, help: &str, values: &BTreeMap<String, u64>) {
    if values.is_empty() {
        return;
    }
    let name = format!("{}{name}", writer.prefix);
    writer.head(&name, help, "counter");
    for (labels, value) in values {
        writer.line(&name, labels, value);
    }
}

fn write_latency(writer: &mut Writer, bounds: &[f64], values: &BTreeMap<String, Sum>) {
    if values.is_empty() {
        return;
    }
    let name = format!("{}http_latency", writer.prefix);
    writer.head(&name, "HTTP request latency in milliseconds per service in APISIX", "histogram");
    for (labels, sum) in values.iter().filter(|(_, sum)| sum.counts.iter().any(|&n| n > 0)) {
        let mut total = 0;
        for (place, count) in sum.counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(place).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            writer.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total);
        }
        writer.line(&format!("{name}_count"), labels, total);
        #[allow(clippy::cast_precision_loss)]
        writer.line(&format!("{name}_sum"), labels, sum.microseconds as f64 / 1000.0);
    }
}

/// Histograms added up.
#[derive(Default)]
struct Sum {
    counts: Vec<u64>,
    microseconds: u64,
}

impl Sum {
    fn add(&mut self, histogram: &Histogram) {
        self.counts.resize(histogram.counts.len(), 0);
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Relaxed);
        }
        self.microseconds += histogram.sum.load(Relaxed);
    }
}

/// A label's value as the format wants it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.as_bytes().last() {
                Some(b'\\') => write!(f, "{}\\\\", &part[..part.len() - 1])?,
                Some(b'"') => write!(f, "{}\\\"", &part[..part.len() - 1])?,
                Some(b'\n') => write!(f, "{}\\n", &part[..part.len() - 1])?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}
