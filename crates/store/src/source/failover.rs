//! Whom to believe: which of the snapshots on offer a data plane serves.
//!
//! The rule to know: nothing here does anything. [`Failover::hear`] notes what a source said, [`Failover::decide`]
//! says what should be served *now* as if it looked for the first time, and the caller makes it so. So there are no
//! transitions to forget: a lost message, a late one or one said twice leads to the same decision.
//!
//! The order of belief, which [`Failover::choice`] is to be read as:
//!
//! 1. The authority (a control plane; a backup or a file where the data plane stands alone), while it can be heard
//!    and nothing speaks against what it offers ([`guard`](super::guard)).
//! 2. What is in force already.
//! 3. Once the authority was waited for long enough: the newer of backup and disk, if it is newer than 2.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    Config, Guard, OnStale, Origin,
    facts::Facts,
    guard::{self, Doubt},
};

mod hear;

/// The time, as a decision needs it: a clock that never jumps, and the one that people read.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the data plane started to look for a snapshot.
    pub elapsed: Duration,
    pub wall: DateTime<Utc>,
}

/// What a source said.
#[derive(Clone, Debug)]
pub enum Event {
    /// It offers this. `whole` is a snapshot read afresh, the others are what became of it by changes since.
    Offer { from: Origin, facts: Facts, whole: bool },
    /// It was heard, and has nothing.
    Nothing { from: Origin },
    /// It can't be heard. `refused`: nobody is there, so that waiting is of little use.
    Lost { from: Origin, refused: bool },
    /// The operator wants what is held.
    Accept,
}

/// What should be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Serve the newest offer of this source instead of what is in force.
    pub serve: Option<Origin>,
    /// Ask the backup again and again, until told otherwise.
    pub poll: bool,
    /// Decide again then, even if nothing is heard.
    pub wake: Option<Duration>,
}

/// An offer of the authority that is not believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    pub doubt: Doubt,
    pub since: DateTime<Utc>,
    pub offered: Facts,
}

/// The rules, from [`Config`].
#[derive(Clone, Debug)]
pub struct Policy {
    pub authority: Origin,
    /// There is a backup to fall back to.
    pub bucket: bool,
    /// There is a disk to fall back to.
    pub disk: bool,
    pub guard: Guard,
    pub startup_grace: Duration,
    pub fallback_after: Duration,
    /// Fallbacks older than this are not taken.
    pub refuse_after: Option<Duration>,
}

impl Policy {
    pub fn of(config: &Config) -> Self {
        Self {
            authority: config.authority.origin(),
            bucket: config.fallback().is_some(),
            disk: config.data_dir.is_some(),
            guard: config.guard,
            startup_grace: config.startup_grace,
            fallback_after: config.fallback_after,
            refuse_after: config.max_age.filter(|_| config.on_stale == OnStale::Refuse),
        }
    }
}

/// What was heard, and what is served.
#[derive(Clone, Debug)]
pub struct Failover {
    policy: Policy,
    in_force: Option<(Origin, Facts)>,
    link: Link,
    /// The authority's newest offer, and what is thought of it.
    offer: Option<(Facts, Standing)>,
    bucket: Answer,
    disk: Answer,
    held: Option<Hold>,
    /// The newest that was served of each store: what came before is not served again.
    revisions: BTreeMap<Arc<str>, u64>,
    marks: Marks,
}

/// What a restart must not undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The highest sequence that was served.
    pub sequence: Option<u64>,
    /// When an operator last accepted what was held: fallbacks from before then are what was decided against.
    pub accepted_at: Option<DateTime<Utc>>,
}

/// How the authority can be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not yet. `refused`: nobody is there.
    Asking {
        refused: bool,
    },
    Up,
    Down {
        since: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not judged yet; `whole` asks for the full measure.
    Unjudged {
        whole: bool,
    },
    Believed,
    Held,
    /// Believed, but the data plane could not use it.
    Unusable,
}

/// What a fallback had to say.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Awaited,
    Failed,
    Nothing,
    Offer(Facts),
}

impl Answer {
    fn offer(&self) -> Option<&Facts> {
        match self {
            Self::Offer(facts) => Some(facts),
            Self::Awaited | Self::Failed | Self::Nothing => None,
        }
    }

    fn offer_mut(&mut self) -> Option<&mut Facts> {
        match self {
            Self::Offer(facts) => Some(facts),
            Self::Awaited | Self::Failed | Self::Nothing => None,
        }
    }
}

impl Failover {
    /// `marks` are from this node's earlier lives.
    pub fn new(policy: Policy, marks: Marks) -> Self {
        let answer = |there| if there { Answer::Awaited } else { Answer::Nothing };
        Self {
            in_force: None,
            link: Link::Asking { refused: false },
            offer: None,
            bucket: answer(policy.bucket),
            disk: answer(policy.disk),
            held: None,
            revisions: BTreeMap::new(),
            marks,
            policy,
        }
    }

    /// What is served, and which source it came from.
    pub fn in_force(&self) -> Option<(Origin, &Facts)> {
        self.in_force.as_ref().map(|(origin, facts)| (*origin, facts))
    }

    /// What is to be kept for the next life.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// What the authority offers and is not believed.
    pub fn held(&self) -> Option<&Hold> {
        self.held.as_ref()
    }

    /// The authority is heard and believed, so what is in force is as new as can be.
    pub fn following(&self) -> bool {
        self.link == Link::Up && matches!(self.offer, Some((_, Standing::Believed)))
    }

    /// Goes on from what this node serves already.
    pub fn resume(&mut self, facts: Facts) {
        self.disk = Answer::Offer(facts);
        self.served(Origin::Disk);
    }

    /// Notes that the newest offer of `from` is now in force.
    pub fn served(&mut self, from: Origin) {
        let Some(facts) = self.newest(from).cloned() else { return };
        let newest = self.revisions.entry(facts.store_id.clone()).or_default();
        *newest = facts.revision.max(*newest);
        self.marks.sequence = self.marks.sequence.max(facts.sequence);
        self.in_force = Some((from, facts));
    }

    /// Notes that the newest offer of `from` could not be used. It is not tried again; the next one is.
    pub fn unusable(&mut self, from: Origin) {
        match from {
            _ if self.is_authority(from) => {
                if let Some((_, standing)) = &mut self.offer {
                    *standing = Standing::Unusable;
                }
            }
            Origin::Bucket => self.bucket = Answer::Nothing,
            _ => self.disk = Answer::Nothing,
        }
    }

    /// What should be served now.
    pub fn decide(&mut self, now: Now) -> Decision {
        self.judge(now);
        Decision { serve: self.choice(now), poll: self.wants_backup(now), wake: self.next_deadline(now) }
    }

    fn choice(&self, now: Now) -> Option<Origin> {
        if let Some((facts, Standing::Believed)) = &self.offer {
            let authority = self.policy.authority;
            let served =
                self.in_force().is_some_and(|(origin, held)| origin == authority && held.same(facts));
            return (!served).then_some(authority);
        }
        if !self.may_fall_back(now) {
            return None;
        }
        let (origin, best) = self.best_fallback(now)?;
        self.in_force().is_none_or(|(_, facts)| best.newer_than(facts)).then_some(origin)
    }

    /// Whether the authority was waited for long enough.
    fn may_fall_back(&self, now: Now) -> bool {
        let patience = self.policy.startup_grace;
        let late = now.elapsed >= patience;
        // Before it is late, the newer of both fallbacks is worth waiting for.
        let compared = late || self.bucket != Answer::Awaited && self.disk != Answer::Awaited;
        let held = matches!(self.offer, Some((_, Standing::Held)));
        match self.link {
            Link::Up => held && compared || late && !self.following(),
            // Where nobody answers the door, a third of the patience tells a control plane that is just being
            // started from one that is gone.
            Link::Asking { refused } => late || refused && compared && now.elapsed >= patience / 3,
            Link::Down { since } => {
                let own = self.in_force().is_some_and(|(origin, _)| self.is_authority(origin));
                held || !own || now.elapsed >= since + self.policy.fallback_after
            }
        }
    }

    /// The newer of backup and disk. The backup where neither is: it is what other data planes see too.
    fn best_fallback(&self, now: Now) -> Option<(Origin, &Facts)> {
        let overruled =
            |facts: &Facts| facts.verified_at.is_some_and(|at| Some(at) <= self.marks.accepted_at);
        let usable =
            |facts: &&Facts| !self.is_replayed(facts) && !overruled(facts) && !self.is_stale(facts, now);
        let bucket = self.bucket.offer().filter(usable);
        // Nobody replays our own disk: where the newest generation is torn, the one before is what we have.
        let disk = self.disk.offer().filter(|facts| match self.in_force {
            None => !self.is_stale(facts, now),
            Some(_) => usable(facts),
        });
        match (bucket, disk) {
            (Some(bucket), Some(disk)) if !bucket.newer_than(disk) && disk.newer_than(bucket) => {
                Some((Origin::Disk, disk))
            }
            (Some(bucket), _) => Some((Origin::Bucket, bucket)),
            (None, disk) => disk.map(|disk| (Origin::Disk, disk)),
        }
    }

    /// From before what was served already. Only an operator may go back.
    fn is_replayed(&self, facts: &Facts) -> bool {
        let newest = self.revisions.get(&facts.store_id).filter(|_| facts.has_lineage());
        facts.sequence.is_some_and(|sequence| Some(sequence) < self.marks.sequence)
            || !facts.by_hand && newest.is_some_and(|newest| facts.revision < *newest)
    }

    /// Too old to begin with. Instead of something older still it is welcome.
    fn is_stale(&self, facts: &Facts, now: Now) -> bool {
        let age = facts.verified_at.and_then(|verified| (now.wall - verified).to_std().ok());
        self.in_force.is_none()
            && self.policy.refuse_after.is_some_and(|limit| age.is_some_and(|age| age > limit))
    }

    /// Makes up its mind about the authority's offer, as soon as it knows enough to compare it with.
    fn judge(&mut self, now: Now) {
        let Some((facts, Standing::Unjudged { whole })) = &self.offer else { return };
        let base = self.in_force.as_ref().map(|(_, facts)| facts);
        if base.is_none() && self.is_too_soon(facts, now) {
            return;
        }
        let (facts, whole) = (facts.clone(), *whole);
        let base = base.or_else(|| self.best_fallback(now).map(|(_, facts)| facts)).cloned();
        let doubt = match &base {
            _ if self.is_replayed(&facts) => Some(Doubt::Older),
            _ if self.is_authority(Origin::Bucket) && self.is_stale(&facts, now) => Some(Doubt::Stale),
            Some(base) => guard::doubt(self.policy.authority, self.policy.guard, (&facts, whole), base),
            None => None,
        };
        let standing = if doubt.is_some() { Standing::Held } else { Standing::Believed };
        if let (Standing::Believed, Some((_, in_force))) = (standing, &mut self.in_force) {
            in_force.level_with(&facts);
        }
        self.held = doubt.map(|doubt| {
            let since =
                self.held.as_ref().filter(|held| held.doubt == doubt).map_or(now.wall, |held| held.since);
            Hold { doubt, since, offered: facts.clone() }
        });
        self.offer = Some((facts, standing));
    }

    /// At start, what the disk remembers is worth a moment's wait; and before an empty control plane is believed,
    /// so is what the backup has to say.
    fn is_too_soon(&self, facts: &Facts, now: Now) -> bool {
        let unknown = matches!(self.bucket, Answer::Awaited | Answer::Failed);
        let awaited = self.disk == Answer::Awaited || (facts.resources == 0 && unknown);
        awaited && now.elapsed < self.policy.startup_grace
    }

    fn wants_backup(&self, now: Now) -> bool {
        let starting = self.in_force.is_none() || matches!(self.link, Link::Asking { .. });
        let fallback = self.policy.bucket && !self.following() && (starting || self.may_fall_back(now));
        fallback || self.is_authority(Origin::Bucket)
    }

    fn next_deadline(&self, now: Now) -> Option<Duration> {
        let patience = self.policy.startup_grace;
        let lost = match self.link {
            Link::Down { since } => since + self.policy.fallback_after,
            Link::Up | Link::Asking { .. } => patience,
        };
        [patience / 3, patience, lost].into_iter().filter(|at| *at > now.elapsed).min()
    }

    /// The newest offer of a source.
    pub fn newest(&self, from: Origin) -> Option<&Facts> {
        match from {
            _ if self.is_authority(from) => self.offer.as_ref().map(|(facts, _)| facts),
            Origin::Bucket => self.bucket.offer(),
            _ => self.disk.offer(),
        }
    }

    fn is_authority(&self, origin: Origin) -> bool {
        origin == self.policy.authority
    }
}

#[cfg(test)]
mod tests;
