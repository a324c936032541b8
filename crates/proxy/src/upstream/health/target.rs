//! The health of one node as one word, so that a report is one compare-and-swap, from whichever thread.
//!
//! The rule to know: these are the four states and four counters of APISIX. A success counts towards *up* only while
//! something is wrong, and clears the failures; a failure clears the successes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::{Serialize, Serializer};
use std::net::SocketAddr;

/// What is checked of an upstream: once, also where several nodes come down to it.
#[derive(Debug)]
pub struct Target {
    pub id: Id,
    /// None: `id.ip` is a name.
    pub address: Option<SocketAddr>,
    word: AtomicU64,
}

/// What makes it another target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Id {
    pub ip: Arc<str>,
    pub port: u16,
    /// What it is asked for.
    pub hostname: Arc<str>,
    /// What it is told it is asked for, where that is not `hostname`.
    #[serde(rename = "hostheader", skip_serializing_if = "Option::is_none")]
    pub header: Option<Arc<str>>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Success,
    HttpFailure,
    TcpFailure,
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Healthy,
    Unhealthy,
    /// Up, and something failed.
    MostlyHealthy,
    /// Down, and something worked.
    MostlyUnhealthy,
}

/// So far towards the next state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub success: u8,
    pub http_failure: u8,
    pub tcp_failure: u8,
    pub timeout_failure: u8,
}

impl Target {
    pub fn new(id: Id, address: Option<SocketAddr>) -> Self {
        Self { id, address, word: AtomicU64::new(0) }
    }

    /// Counts a finding, of which `limit` turn the node; 0: they never do. Some: it is up now, or down.
    pub fn report(&self, finding: Finding, limit: u8) -> Option<bool> {
        // The common case writes nothing: a success where all is well.
        if limit == 0 || State::of(self.word.load(Relaxed)) == finding.leads_to() {
            return None;
        }
        let mut after = 0;
        let before = self.word.fetch_update(Relaxed, Relaxed, |word| {
            after = next(word, finding, limit);
            Some(after)
        });
        let was_up = State::of(before.unwrap_or(after)).is_up();
        let is_up = State::of(after).is_up();
        (was_up != is_up).then_some(is_up)
    }

    pub fn is_up(&self) -> bool {
        State::of(self.word.load(Relaxed)).is_up()
    }

    pub fn state(&self) -> State {
        State::of(self.word.load(Relaxed))
    }

    pub fn counters(&self) -> Counters {
        let [success, http_failure, tcp_failure, timeout_failure, ..] = self.word.load(Relaxed).to_le_bytes();
        Counters { success, http_failure, tcp_failure, timeout_failure }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            id: &'a Id,
            status: State,
            counter: Counters,
        }
        Shown { id: &self.id, status: self.state(), counter: self.counters() }.serialize(serializer)
    }
}

/// The word that follows: counters in its bytes 0 to 3, the state in byte 4.
fn next(word: u64, finding: Finding, limit: u8) -> u64 {
    let (state, leads_to) = (State::of(word), finding.leads_to());
    if state == leads_to {
        return word;
    }
    let mut bytes = word.to_le_bytes();
    let count = &mut bytes[finding as usize];
    *count = count.saturating_add(1);
    let reached = *count >= limit;
    match finding {
        Finding::Success => bytes[1..4].fill(0),
        _ => bytes[0] = 0,
    }
    bytes[4] = match state {
        _ if reached => leads_to,
        State::Healthy => State::MostlyHealthy,
        State::Unhealthy => State::MostlyUnhealthy,
        mostly => mostly,
    } as u8;
    u64::from_le_bytes(bytes)
}

impl State {
    fn of(word: u64) -> Self {
        match word.to_le_bytes()[4] {
            0 => Self::Healthy,
            1 => Self::Unhealthy,
            2 => Self::MostlyHealthy,
            _ => Self::MostlyUnhealthy,
        }
    }

    pub const fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }
}

impl Finding {
    const fn leads_to(self) -> State {
        match self {
            Self::Success => State::Healthy,
            Self::HttpFailure | Self::TcpFailure | Self::Timeout => State::Unhealthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Finding::*;

    fn target() -> Target {
        let id = Id { ip: "127.0.0.1".into(), port: 1980, hostname: "127.0.0.1".into(), header: None };
        Target::new(id, None)
    }

    #[test]
    fn a_node_goes_down_and_comes_up_at_the_limits() {
        let target = target();
        assert_eq!((target.report(Success, 2), target.counters()), (None, Counters::default()));
        assert_eq!((target.report(TcpFailure, 2), target.state()), (None, State::MostlyHealthy));
        assert_eq!((target.report(TcpFailure, 2), target.state()), (Some(false), State::Unhealthy));
        // Nothing more is counted against a node that is down, and what brought it there stays.
        assert_eq!((target.report(TcpFailure, 2), target.report(Timeout, 1)), (None, None));
        assert_eq!(target.counters(), Counters { tcp_failure: 2, ..Counters::default() });
        assert_eq!((target.report(Success, 2), target.state()), (None, State::MostlyUnhealthy));
        assert_eq!(target.counters(), Counters { success: 1, ..Counters::default() });
        assert_eq!((target.report(HttpFailure, 5), target.counters().success), (None, 0));
        assert_eq!(target.report(Success, 2), None);
        assert_eq!((target.report(Success, 2), target.state()), (Some(true), State::Healthy));
    }

    #[test]
    fn failures_of_each_kind_have_a_limit_of_their_own_and_a_success_clears_them() {
        let target = target();
        for finding in [HttpFailure, TcpFailure, Timeout, HttpFailure, TcpFailure, Timeout] {
            assert_eq!(target.report(finding, 3), None);
        }
        assert_eq!(target.report(Success, 2), None);
        assert_eq!(target.counters(), Counters { success: 1, ..Counters::default() });
        assert_eq!((target.report(Success, 2), target.state()), (None, State::Healthy));
        assert_eq!(target.report(HttpFailure, 0), None);
        assert_eq!(target.report(HttpFailure, 1), Some(false));
    }

    #[test]
    fn a_target_is_shown_as_apisix_shows_it() {
        let target = target();
        target.report(Timeout, 3);
        let shown = serde_json::json!({
            "ip": "127.0.0.1", "port": 1980, "hostname": "127.0.0.1", "status": "mostly_healthy",
            "counter": {"success": 0, "http_failure": 0, "tcp_failure": 0, "timeout_failure": 1},
        });
        assert_eq!(serde_json::to_value(&target).unwrap(), shown);
    }
}
