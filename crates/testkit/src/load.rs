//! Traffic that does not let a failure pass.
//!
//! Some connections are kept, one request after the other; others are opened at a rate, for one request each. The one
//! rule: whatever a client would have noticed is a failure. A server may close a kept connection between two requests
//! only if it said so with its last answer (`Connection: close`); one that is found closed when the next request is
//! sent is a failure.

mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use tokio::sync::watch;

use crate::background::Task;
use crate::http::{Options, Response};
use crate::wait::eventually;
use worker::Worker;

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

#[cfg(test)]
mod tests;
