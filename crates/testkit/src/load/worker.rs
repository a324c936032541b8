//! The connections of a load: kept ones, and fresh ones at a rate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Uri};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Failure, Plan, Report};
use crate::background::handle;
use crate::http::{Client, Response};

/// A request that is not answered within this has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failed connect, so that a dead server is not hammered.
const BREATH: Duration = Duration::from_millis(20);
/// Failures kept in full; all are counted.
const KEPT_FAILURES: usize = 1000;
const KEPT_BODIES: usize = 100;

/// What every connection of a load shares.
#[derive(Clone)]
pub struct Worker {
    pub plan: Arc<Plan>,
    pub report: Arc<Mutex<Report>>,
    pub start: Instant,
    pub stopped: watch::Receiver<bool>,
}

impl Worker {
    pub async fn all(mut self) {
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
