//! Traffic that does not let a failure pass.
//!
//! Some connections are kept, one request after the other; others are opened at a rate, for one request each. The one
//! rule: whatever a client would have noticed is a failure. A server may close a kept connection between two requests
//! only if it said so with its last answer (`Connection: close`); one that is found closed when the next request is
//! sent is a failure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::background::{Task, handle};
use crate::http::{Client, Options, Response};
use crate::wait::eventually;

/// A request that is not answered within this has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failed connect, so that a dead server is not hammered.
const BREATH: Duration = Duration::from_millis(20);
/// Failures kept in full; all are counted.
const KEPT_FAILURES: usize = 1000;
const KEPT_BODIES: usize = 100;

type Check = dyn Fn(&Response) -> Result<(), String> + Send + Sync;

/// What load to make; [`Plan::start`] makes it.
#[derive(Clone)]
pub struct Plan {
    url: String,
    kept: usize,
    pause: Duration,
    fresh_per_second: u32,
    headers: Vec<(HeaderName, HeaderValue)>,
    options: Options,
    check: Arc<Check>,
}

/// Load under way; stops with its handle.
#[derive(Debug)]
pub struct Load {
    report: Arc<Mutex<Report>>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
    _task: Task,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests sent, failed ones included.
    pub requests: u64,
    /// Connections opened.
    pub connections: u64,
    /// How many failed.
    pub failed: u64,
    /// The first of those that failed.
    pub failures: Vec<Failure>,
    /// How often each body came, by its first 200 bytes.
    pub bodies: BTreeMap<String, u64>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

/// One request that a client would have complained about.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was noticed, from the start of the load.
    pub at: Duration,
    /// On a connection that had answered before.
    pub kept: bool,
    pub what: String,
}

impl Plan {
    /// Four kept connections with 5 ms between requests, 20 new connections a second, and 200 as the only good answer.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            kept: 4,
            pause: Duration::from_millis(5),
            fresh_per_second: 20,
            headers: Vec::new(),
            options: Options::default(),
            check: Arc::new(|response| match response.status {
                200 => Ok(()),
                other => Err(format!("status {other}: {}", response.text())),
            }),
        }
    }

    /// This many kept connections.
    pub fn kept(mut self, connections: usize) -> Self {
        self.kept = connections;
        self
    }

    /// This long between the requests of a kept connection.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// This many new connections a second.
    pub fn fresh(mut self, per_second: u32) -> Self {
        self.fresh_per_second = per_second;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.parse().expect("a header name"), value.parse().expect("a header value")));
        self
    }

    /// Connects as these say.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// What else makes an answer good or bad, in place of "the status is 200".
    pub fn expect(mut self, check: impl Fn(&Response) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.check = Arc::new(check);
        self
    }

    pub fn start(self) -> Load {
        let report = Arc::new(Mutex::new(Report::default()));
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let worker = Worker { plan: Arc::new(self), report: report.clone(), start: Instant::now(), stopped };
        let task = Task::spawn(async move {
            worker.all().await;
            finished.send_replace(true);
        });
        Load { report, stop, done, _task: task }
    }
}

impl Load {
    /// What came of it so far.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap().clone()
    }

    pub fn requests(&self) -> u64 {
        self.report.lock().unwrap().requests
    }

    pub fn failed(&self) -> u64 {
        self.report.lock().unwrap().failed
    }

    /// Waits until this many more requests have been made.
    pub async fn more(&self, requests: u64) {
        let goal = self.requests() + requests;
        eventually(Duration::from_secs(60), "more requests", async || {
            let made = self.requests();
            if made >= goal { Ok(()) } else { Err(format!("{made} of {goal}")) }
        })
        .await;
    }

    /// Lets what is under way finish, and gives the report.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        self.done.wait_for(|done| *done).await.expect("the load's task ends by itself");
        self.report()
    }
}

impl Report {
    /// Fails the test if a request failed, or if fewer were made than it takes to believe it.
    #[track_caller]
    pub fn assert_clean(&self, at_least: u64) {
        assert!(self.failed == 0, "{self}");
        assert!(self.requests >= at_least, "only {} requests were made, not {at_least}", self.requests);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, connections, failed, slowest, .. } = self;
        writeln!(
            f,
            "{failed} of {requests} requests failed ({connections} connections, slowest {slowest:?})"
        )?;
        for failure in self.failures.iter().take(10) {
            let kind = if failure.kept { "kept" } else { "new" };
            writeln!(f, "  at {:?}, {kind} connection: {}", failure.at, failure.what)?;
        }
        Ok(())
    }
}

/// What every connection of a load shares.
#[derive(Clone)]
struct Worker {
    plan: Arc<Plan>,
    report: Arc<Mutex<Report>>,
    start: Instant,
    stopped: watch::Receiver<bool>,
}

impl Worker {
    async fn all(mut self) {
        let mut connections = JoinSet::new();
        for _ in 0..self.plan.kept {
            connections.spawn_on(self.clone().kept(), handle());
        }
        if self.plan.fresh_per_second > 0 {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.plan.fresh_per_second);
            while !self.is_stopped() {
                tokio::select! {
                    _ = ticks.tick() => {
                        connections.spawn_on(self.clone().fresh(), handle());
                    }
                    _ = self.stopped.changed() => {}
                }
                while connections.try_join_next().is_some() {}
            }
        }
        connections.join_all().await;
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    async fn fresh(self) {
        if let Some(mut client) = self.connect().await {
            self.ask(&mut client, false).await;
        }
    }

    async fn kept(mut self) {
        let mut client = None;
        let mut used = false;
        while !self.is_stopped() {
            let Some(open) = client.as_mut() else {
                client = self.connect().await;
                used = false;
                continue;
            };
            if !self.ask(open, used).await {
                client = None;
            }
            used = true;
            tokio::select! {
                () = tokio::time::sleep(self.plan.pause) => {}
                _ = self.stopped.changed() => {}
            }
        }
    }

    async fn connect(&self) -> Option<Client> {
        let connected =
            tokio::time::timeout(PATIENCE, Client::connect_with(&self.plan.url, &self.plan.options));
        match connected.await.context("connecting timed out").flatten() {
            Ok(client) => {
                self.report.lock().unwrap().connections += 1;
                Some(client)
            }
            Err(error) => {
                self.record(Err(format!("connect: {error:#}")), false, Duration::ZERO);
                tokio::time::sleep(BREATH).await;
                None
            }
        }
    }

    /// One request; false if the connection can't be used again.
    async fn ask(&self, client: &mut Client, kept: bool) -> bool {
        let start = Instant::now();
        let answer =
            tokio::time::timeout(PATIENCE, self.exchange(client)).await.context("no answer").flatten();
        let took = start.elapsed();
        match answer {
            Err(error) => {
                self.record(Err(format!("{error:#}")), kept, took);
                false
            }
            Ok(response) => {
                let close = response.header("connection").eq_ignore_ascii_case("close");
                let verdict = (self.plan.check)(&response).map(|()| response);
                self.record(verdict, kept, took);
                !close
            }
        }
    }

    async fn exchange(&self, client: &mut Client) -> Result<Response> {
        let path = self.plan.url.parse::<Uri>()?.path_and_query().map_or("/".to_owned(), ToString::to_string);
        let mut request = Request::get(path).body(Bytes::new())?;
        request.headers_mut().extend(self.plan.headers.iter().cloned());
        Response::collect(client.send_raw(request).await?).await
    }

    fn record(&self, outcome: Result<Response, String>, kept: bool, took: Duration) {
        let mut report = self.report.lock().unwrap();
        report.requests += 1;
        report.slowest = report.slowest.max(took);
        match outcome {
            Ok(response) => {
                let shown = &response.body[..response.body.len().min(200)];
                let body = String::from_utf8_lossy(shown).into_owned();
                if report.bodies.len() < KEPT_BODIES || report.bodies.contains_key(&body) {
                    *report.bodies.entry(body).or_default() += 1;
                }
            }
            Err(what) => {
                report.failed += 1;
                if report.failures.len() < KEPT_FAILURES {
                    report.failures.push(Failure { at: self.start.elapsed(), kept, what });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::FaultProxy;
    use crate::upstream::{Behaviour, Upstream};

    #[tokio::test]
    async fn counts_a_clean_run() {
        let upstream = Upstream::start();
        let load = Plan::new(upstream.url("/ip")).kept(2).pause(Duration::ZERO).start();
        load.more(500).await;
        let report = load.stop().await;
        report.assert_clean(500);
        assert_eq!(report.bodies.values().sum::<u64>(), report.requests);
        assert_eq!(upstream.requests(), report.requests);
    }

    #[tokio::test]
    async fn notices_a_wrong_answer_a_reset_and_a_refused_connection() {
        let upstream = Upstream::start();
        let proxy = FaultProxy::start(upstream.address());
        let load = Plan::new(proxy.url("/ip")).kept(1).start();
        load.more(20).await;
        assert_eq!(load.failed(), 0);

        upstream.behave(Behaviour::Status(503));
        load.more(5).await;
        upstream.behave(Behaviour::Answer);
        let wrong = load.failed();
        assert!(wrong > 0);

        proxy.reset();
        load.more(20).await;
        let reset = load.failed();
        assert!(reset > wrong, "a kept connection that was reset is noticed");

        proxy.kill();
        load.more(20).await;
        let report = load.stop().await;
        assert!(report.failures.iter().any(|failure| failure.what.contains("no connection")), "{report}");
        assert!(report.failures.iter().any(|failure| failure.kept), "{report}");
    }
}
