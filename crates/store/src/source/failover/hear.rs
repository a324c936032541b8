//! What becomes of what a source said. Nothing is decided here, only noted.

use super::{Answer, Event, Failover, Link, Marks, Now, Standing};
use crate::source::{Origin, facts::Facts};

impl Failover {
    /// Notes what a source said.
    pub fn hear(&mut self, event: Event, now: Now) {
        match event {
            Event::Offer { from, facts, whole } => self.hear_offer(from, facts, whole),
            Event::Nothing { from } => self.hear_nothing(from, now),
            Event::Lost { from, refused } => self.hear_lost(from, refused, now),
            Event::Accept => self.accept(now),
        }
        self.level();
    }

    fn hear_offer(&mut self, from: Origin, facts: Facts, whole: bool) {
        if !self.is_authority(from) {
            match from {
                Origin::Bucket => self.bucket = Answer::Offer(facts),
                _ => self.disk = Answer::Offer(facts),
            }
            return;
        }
        // A change is somebody's deed only where the snapshot it changes is in force and the link never broke.
        let followed = self.link == Link::Up
            && self
                .in_force()
                .is_some_and(|(origin, old)| self.is_authority(origin) && old.store_id == facts.store_id);
        let measured = !matches!(self.offer, Some((_, Standing::Held | Standing::Unjudged { whole: true })));
        self.link = Link::Up;
        self.offer = Some((facts, Standing::Unjudged { whole: whole || !followed || !measured }));
    }

    fn hear_nothing(&mut self, from: Origin, now: Now) {
        match from {
            _ if self.is_authority(from) => self.hear_lost(from, true, now),
            Origin::Bucket => self.bucket = Answer::Nothing,
            _ => self.disk = Answer::Nothing,
        }
    }

    fn hear_lost(&mut self, from: Origin, refused: bool, now: Now) {
        if !self.is_authority(from) {
            if from == Origin::Bucket && self.bucket == Answer::Awaited {
                self.bucket = Answer::Failed;
            }
            return;
        }
        // A file and a control plane that are followed confirm at every moment what is in force; a backup says itself
        // when it was confirmed.
        if from != Origin::Bucket
            && self.following()
            && let Some((_, facts)) = &mut self.in_force
        {
            facts.verified_at = facts.verified_at.max(Some(now.wall));
        }
        self.link = match self.link {
            Link::Up => Link::Down { since: now.elapsed },
            Link::Asking { .. } => Link::Asking { refused },
            Link::Down { since } => Link::Down { since },
        };
        // What is held stays, so that an operator can still accept it.
        if !matches!(self.offer, Some((_, Standing::Held))) {
            self.offer = None;
        }
    }

    /// The operator's word: this store, from this revision on.
    fn accept(&mut self, now: Now) {
        if let Some((facts, standing @ Standing::Held)) = &mut self.offer {
            *standing = Standing::Believed;
            self.revisions.insert(facts.store_id.clone(), facts.revision);
            self.marks =
                Marks { sequence: facts.sequence.or(self.marks.sequence), accepted_at: Some(now.wall) };
            facts.verified_at = facts.verified_at.max(Some(now.wall));
            self.held = None;
        }
    }

    /// See [`Facts::level_with`]. What the authority offers is no witness before it is believed.
    fn level(&mut self) {
        let in_force = self.in_force.as_ref().map(|(_, facts)| facts);
        let witnesses: Vec<Facts> =
            [in_force, self.bucket.offer(), self.disk.offer()].into_iter().flatten().cloned().collect();
        let in_force = self.in_force.as_mut().map(|(_, facts)| facts);
        let offer = self.offer.as_mut().map(|(facts, _)| facts);
        for facts in [in_force, offer, self.bucket.offer_mut(), self.disk.offer_mut()].into_iter().flatten() {
            witnesses.iter().for_each(|witness| facts.level_with(witness));
        }
    }
}
