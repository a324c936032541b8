//! Reads a backup again and again, and offers what is new in it.
//!
//! The rule to know: one conditional request where nothing changed. What fails a check is not offered, and what was
//! offered before stays on offer. While nobody wants it, it is looked at now and then: an error that shows only in an
//! outage shows too late.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{Origin, Update, digest::Digest, notice::Board};
use crate::{
    backup::{self, Buckets, Known, Latest, ReadError, Trust, Verified},
    bucket::{Backoff, Kind},
};

/// Which backup.
#[derive(Clone, Debug)]
pub struct Config {
    /// Asked in this order until one answers.
    pub buckets: Vec<Buckets>,
    pub trust: Trust,
    /// How often it is asked; a tenth more or less each time, so that data planes don't ask all at once.
    pub poll_interval: Duration,
}

/// The first wait after a failure; each further one is longer, up to [`SLOWEST`] or the poll interval.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(30);
/// While the control plane is followed: so often it is looked whether the backup could be read.
const LOOK: Duration = Duration::from_secs(300);

/// Reads one group's backup while it is wanted.
pub(super) struct Poller {
    places: Vec<Place>,
    trust: Trust,
    interval: Duration,
    group: String,
    board: Board,
    wanted: watch::Receiver<bool>,
    /// The place whose update is on offer.
    offered: Option<usize>,
}

/// One back end, and what was read there.
struct Place {
    buckets: Buckets,
    known: Known,
    last: Option<Update>,
    /// Why `last` is not the newest there is.
    flaw: Option<String>,
}

impl Poller {
    /// `sequence` is the highest this node has served: nothing before it is read.
    pub fn new(
        config: Config,
        (group, sequence): (&str, Option<u64>),
        board: Board,
        wanted: watch::Receiver<bool>,
    ) -> Self {
        let place = |buckets| Place {
            buckets,
            known: Known { sequence, ..Known::default() },
            last: None,
            flaw: None,
        };
        Self {
            places: config.buckets.into_iter().map(place).collect(),
            trust: config.trust,
            interval: config.poll_interval,
            group: group.to_owned(),
            board,
            wanted,
            offered: None,
        }
    }

    /// Goes on until nobody can want it any more.
    pub async fn run(mut self) {
        let interval = self.interval;
        let mut backoff = Backoff::new(FIRST_RETRY, SLOWEST.max(interval));
        while self.until_wanted().await {
            let wait = if self.poll().await {
                backoff.reset();
                interval.mul_f64(0.9 + rand::random::<f64>() / 5.0)
            } else {
                backoff.wait()
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => continue,
                unwanted = self.wanted.wait_for(|wanted| !wanted) => drop(unwanted),
            }
            // Wanted again means that a control plane is gone, and that all its other data planes come too.
            if self.until_wanted().await {
                tokio::time::sleep(interval.mul_f64(rand::random::<f64>() / 10.0)).await;
            }
        }
    }

    /// Waits until the backup is wanted, and looks at it meanwhile. False: nobody can want it any more.
    async fn until_wanted(&mut self) -> bool {
        let mut backoff = Backoff::new(self.interval.min(LOOK), LOOK);
        let mut wait = backoff.wait();
        loop {
            tokio::select! {
                wanted = self.wanted.wait_for(|wanted| *wanted) => return wanted.is_ok(),
                () = tokio::time::sleep(wait) => {}
            }
            wait = if self.look().await {
                backoff.reset();
                LOOK.mul_f64(0.9 + rand::random::<f64>() / 5.0)
            } else {
                backoff.wait()
            };
        }
    }

    /// Looks whether anybody could give the backup.
    async fn look(&self) -> bool {
        let mut errors = Vec::new();
        for place in &self.places {
            match backup::look(&place.buckets, &self.group, &self.trust, &place.known).await {
                Ok(()) => {
                    self.board.heard();
                    return true;
                }
                Err(error) => errors.push(error),
            }
        }
        self.disappointed(&errors, false);
        false
    }

    /// Tells that nobody gave a backup, and why. `refused`: without keeping us waiting. Says whether all have answered
    /// that there is none.
    fn disappointed(&self, errors: &[ReadError], refused: bool) -> bool {
        self.board.asked();
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let nothing = errors.iter().all(|error| matches!(error, ReadError::Nothing { .. }));
        if nothing {
            self.board.nothing(&text);
        } else {
            self.board.lost(&text, refused);
        }
        nothing
    }

    /// Asks once. Says whether anybody answered.
    async fn poll(&mut self) -> bool {
        let mut errors = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            match place.read(&self.group, &self.trust).await {
                Ok(fresh) => {
                    self.board.asked();
                    let afresh = self.offered.replace(at) != Some(at) || fresh == Fresh::New;
                    match &place.last {
                        Some(last) if afresh || fresh == Fresh::Renewed => {
                            self.board.offer(last.clone(), afresh, place.flaw.clone());
                        }
                        _ => self.board.confirm(place.flaw.clone()),
                    }
                    return true;
                }
                Err(error) => errors.push(error),
            }
        }
        let slow =
            |error: &ReadError| matches!(error, ReadError::Bucket(error) if error.kind == Kind::TimedOut);
        let refused = !errors.iter().any(slow);
        self.disappointed(&errors, refused)
    }
}

/// What a read changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    New,
    /// Only the time at which it was confirmed.
    Renewed,
    Same,
}

impl Place {
    async fn read(&mut self, group: &str, trust: &Trust) -> Result<Fresh, ReadError> {
        match backup::read_latest(&self.buckets, group, trust, &self.known).await? {
            Latest::New(verified) => {
                self.known = verified.known();
                self.flaw.clone_from(&verified.fallen_back);
                self.last = Some(update(*verified));
                Ok(Fresh::New)
            }
            Latest::Renewed { manifest, etag } => {
                self.known.etag = etag;
                self.flaw = None;
                if let Some(last) = &mut self.last {
                    last.verified_at = time(&manifest.verified_at);
                }
                Ok(Fresh::Renewed)
            }
            Latest::NotModified => Ok(Fresh::Same),
        }
    }
}

fn update(verified: Verified) -> Update {
    let Verified { manifest, snapshot, instance, rejected, .. } = verified;
    Update {
        origin: Origin::Bucket,
        digest: Digest::of(&snapshot).to_string(),
        instance: Some(Arc::new(instance)),
        sequence: manifest.as_ref().map(|manifest| manifest.sequence),
        verified_at: manifest.as_ref().and_then(|manifest| time(&manifest.verified_at)),
        by_hand: manifest.is_some_and(|manifest| manifest.note.is_some()),
        snapshot,
        rejected,
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}
