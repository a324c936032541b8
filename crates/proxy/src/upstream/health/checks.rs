//! What is checked, and what counts. APISIX's `checks`.
//!
//! The rule to know: what is not written at all is not done; what is written in part has APISIX's defaults.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// `checks` of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Checks {
    pub kind: Kind,
    /// For connecting, and again for the answer.
    pub timeout: Duration,
    /// Nodes asked at the same time.
    pub concurrency: usize,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub verify: bool,
    /// The head up to the value of `Host`, and what follows it.
    pub request: (Box<str>, Box<str>),
    /// From one check to the next of nodes that are up; none: they are not asked.
    pub up: Option<Duration>,
    /// The same of nodes that are down.
    pub down: Option<Duration>,
    /// What our own checks count for.
    pub active: Limits,
    /// What clients' requests count for.
    pub passive: Limits,
}

/// How a node is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Http,
    Https,
    Tcp,
}

/// What counts, and how much of it turns a node. 0: nothing of it ever does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub good: Box<[u16]>,
    pub bad: Box<[u16]>,
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
}

#[derive(Deserialize)]
struct Written {
    active: Option<Active>,
    passive: Option<Passive>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Active {
    #[serde(rename = "type")]
    kind: Kind,
    timeout: f64,
    concurrency: usize,
    host: Option<Box<str>>,
    port: Option<u16>,
    http_method: Box<str>,
    http_path: Box<str>,
    http_req_body: Box<str>,
    https_verify_certificate: bool,
    req_headers: Vec<Box<str>>,
    healthy: Option<Healthy>,
    unhealthy: Option<Unhealthy>,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            kind: Kind::Http,
            timeout: 1.0,
            concurrency: 10,
            host: None,
            port: None,
            http_method: "GET".into(),
            http_path: "/".into(),
            http_req_body: "".into(),
            https_verify_certificate: true,
            req_headers: Vec::new(),
            healthy: None,
            unhealthy: None,
        }
    }
}

#[derive(Deserialize)]
struct Passive {
    healthy: Option<Healthy>,
    unhealthy: Option<Unhealthy>,
}

#[derive(Default, Deserialize)]
struct Healthy {
    interval: Option<u32>,
    http_statuses: Option<Box<[u16]>>,
    successes: Option<u8>,
}

#[derive(Default, Deserialize)]
struct Unhealthy {
    interval: Option<u32>,
    http_statuses: Option<Box<[u16]>>,
    http_failures: Option<u8>,
    tcp_failures: Option<u8>,
    timeouts: Option<u8>,
}

impl Checks {
    pub fn read(written: &Value) -> Result<Self, String> {
        let Written { active, passive } =
            Written::deserialize(written).map_err(|e| format!("checks: {e}"))?;
        let active = active.unwrap_or_default();
        let request = active.request()?;
        let every = |interval: Option<u32>| Duration::from_secs(interval.unwrap_or(1).max(1).into());
        let timeout =
            Duration::try_from_secs_f64(active.timeout)
                .ok()
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| format!("checks: active.timeout: {} is no time to wait", active.timeout))?;
        Ok(Self {
            kind: active.kind,
            timeout,
            concurrency: active.concurrency.max(1),
            request,
            host: active.host,
            port: active.port,
            verify: active.https_verify_certificate,
            up: active.healthy.as_ref().map(|healthy| every(healthy.interval)),
            down: active.unhealthy.as_ref().map(|unhealthy| every(unhealthy.interval)),
            active: Limits::active(active.healthy.unwrap_or_default(), active.unhealthy.unwrap_or_default()),
            passive: Limits::passive(passive.unwrap_or(Passive { healthy: None, unhealthy: None })),
        })
    }
}

impl Active {
    /// What is sent, around the name of the host.
    fn request(&self) -> Result<(Box<str>, Box<str>), String> {
        let mut texts =
            [&self.http_method, &self.http_path].into_iter().chain(&self.req_headers).chain(&self.host);
        if let Some(broken) = texts.find(|text| text.contains(|c: char| c.is_ascii_control())) {
            return Err(format!("checks: active: {broken:?} can't be part of a request's head"));
        }
        let headers: String = self.req_headers.iter().flat_map(|header| [header, "\r\n"]).collect();
        let body = &*self.http_req_body;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let (method, path) = (&self.http_method, &self.http_path);
        let before = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{length}{headers}Host: ");
        Ok((before.into(), format!("\r\n\r\n{body}").into()))
    }
}

impl Limits {
    fn active(healthy: Healthy, unhealthy: Unhealthy) -> Self {
        Self {
            good: healthy.http_statuses.unwrap_or([200, 302].into()),
            bad: unhealthy.http_statuses.unwrap_or([429, 404, 500, 501, 502, 503, 504, 505].into()),
            successes: healthy.successes.unwrap_or(2),
            http_failures: unhealthy.http_failures.unwrap_or(5),
            tcp_failures: unhealthy.tcp_failures.unwrap_or(2),
            timeouts: unhealthy.timeouts.unwrap_or(3),
        }
    }

    /// Answers count only as far as it is written which. That a node can't be reached always counts.
    fn passive(written: Passive) -> Self {
        const GOOD: [u16; 19] =
            [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308];
        let good = written.healthy.as_ref().map(|h| h.http_statuses.clone().unwrap_or(GOOD.into()));
        let bad =
            written.unhealthy.as_ref().map(|u| u.http_statuses.clone().unwrap_or([429, 500, 503].into()));
        let (healthy, unhealthy) =
            (written.healthy.unwrap_or_default(), written.unhealthy.unwrap_or_default());
        Self {
            good: good.unwrap_or_default(),
            bad: bad.unwrap_or_default(),
            successes: healthy.successes.unwrap_or(5),
            http_failures: unhealthy.http_failures.unwrap_or(5),
            tcp_failures: unhealthy.tcp_failures.unwrap_or(2),
            timeouts: unhealthy.timeouts.unwrap_or(7),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_written_is_not_done_and_the_rest_has_defaults() {
        let none = Checks::read(&json!({"active": {}})).unwrap();
        assert_eq!((none.up, none.down), (None, None));
        assert!(none.passive.good.is_empty() && none.passive.bad.is_empty());
        assert_eq!((none.passive.tcp_failures, none.passive.timeouts), (2, 7));
        assert_eq!(&*none.request.0, "GET / HTTP/1.1\r\nConnection: close\r\nHost: ");

        let some = json!({
            "active": {"healthy": {}, "unhealthy": {"interval": 3, "tcp_failures": 1}, "http_path": "/up",
                "http_method": "POST", "http_req_body": "ping", "req_headers": ["A: b", "C: d"]},
            "passive": {"healthy": {}, "unhealthy": {"http_statuses": [500]}},
        });
        let some = Checks::read(&some).unwrap();
        assert_eq!((some.up, some.down), (Some(Duration::from_secs(1)), Some(Duration::from_secs(3))));
        assert_eq!((some.active.tcp_failures, some.active.http_failures), (1, 5));
        assert_eq!((some.passive.good.len(), &*some.passive.bad), (19, &[500][..]));
        assert_eq!(
            [&*some.request.0, &*some.request.1],
            [
                "POST /up HTTP/1.1\r\nConnection: close\r\nContent-Length: 4\r\nA: b\r\nC: d\r\nHost: ",
                "\r\n\r\nping"
            ]
        );
    }

    #[test]
    fn what_can_not_be_done_is_refused() {
        for (written, error) in [
            (json!({"active": {"type": "udp"}}), "checks: unknown variant `udp`"),
            (json!({"active": {"timeout": 0}}), "checks: active.timeout: 0 is no time to wait"),
            (
                json!({"active": {"req_headers": ["a: b\r\nc: d"]}}),
                "checks: active: \"a: b\\r\\nc: d\" can't be",
            ),
        ] {
            let found = Checks::read(&written).unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
    }
}
