//! The stories first, then what must hold in every story.

use proptest::prelude::*;

use super::*;
use crate::source::Origin::{Bucket, ControlPlane, Disk, File};

/// A data plane's decisions under a hand-moved clock.
struct Rig {
    failover: Failover,
    elapsed: Duration,
    poll: bool,
}

fn policy(authority: Origin) -> Policy {
    Policy {
        authority,
        bucket: authority == ControlPlane,
        disk: true,
        guard: Guard::default(),
        startup_grace: Duration::from_secs(3),
        fallback_after: Duration::from_secs(30),
        refuse_after: None,
    }
}

fn wall(elapsed: Duration) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + elapsed
}

fn facts(store: &str, revision: u64, resources: usize) -> Facts {
    Facts {
        store_id: store.into(),
        revision,
        resources,
        digest: format!("{store}@{revision}").into(),
        verified_at: Some(wall(Duration::ZERO)),
        ..Facts::default()
    }
}

fn backup(sequence: u64, facts: Facts) -> Facts {
    Facts { sequence: Some(sequence), ..facts }
}

impl Rig {
    fn new(policy: Policy) -> Self {
        Self { failover: Failover::new(policy, Marks::default()), elapsed: Duration::ZERO, poll: false }
    }

    fn control_plane() -> Self {
        Self::new(policy(ControlPlane))
    }

    /// One that follows a control plane at `facts`.
    fn following(facts: Facts) -> Self {
        let mut rig = Self::control_plane();
        rig.nothing(Disk);
        assert_eq!(rig.offer(ControlPlane, facts, true), Some(ControlPlane));
        rig
    }

    fn now(&self) -> Now {
        Now { elapsed: self.elapsed, wall: wall(self.elapsed) }
    }

    /// Does what is decided, and says what came into force.
    fn settle(&mut self) -> Option<Origin> {
        let mut served = None;
        for _ in 0..4 {
            let decision = self.failover.decide(self.now());
            self.poll = decision.poll;
            let Some(origin) = decision.serve else { return served };
            self.failover.served(origin);
            served = Some(origin);
        }
        panic!("it never settles");
    }

    fn hear(&mut self, event: Event) -> Option<Origin> {
        self.failover.hear(event, self.now());
        self.settle()
    }

    fn offer(&mut self, from: Origin, facts: Facts, whole: bool) -> Option<Origin> {
        self.hear(Event::Offer { from, facts, whole })
    }

    fn nothing(&mut self, from: Origin) -> Option<Origin> {
        self.hear(Event::Nothing { from })
    }

    fn lost(&mut self, refused: bool) -> Option<Origin> {
        self.hear(Event::Lost { from: self.failover.policy.authority, refused })
    }

    /// Lets time pass, waking when asked to.
    fn wait(&mut self, seconds: u64) -> Option<Origin> {
        let until = self.elapsed + Duration::from_secs(seconds);
        let mut served = None;
        while let Some(wake) = self.failover.decide(self.now()).wake.filter(|wake| *wake <= until) {
            self.elapsed = wake;
            served = self.settle().or(served);
        }
        self.elapsed = until;
        self.settle().or(served)
    }

    fn doubt(&self) -> Option<Doubt> {
        self.failover.held().map(|held| held.doubt)
    }

    fn revision(&self) -> u64 {
        self.failover.in_force().map_or(0, |(_, facts)| facts.revision)
    }
}

#[test]
fn the_control_plane_is_served_at_once_and_followed() {
    let mut rig = Rig::control_plane();
    rig.settle();
    assert!(rig.poll, "the backup is read ahead while nothing is served");
    assert_eq!(rig.offer(ControlPlane, facts("a", 5, 10), true), None, "the disk may know better");
    assert_eq!(rig.nothing(Disk), Some(ControlPlane));
    assert!(!rig.poll);
    assert_eq!(rig.offer(ControlPlane, facts("a", 6, 10), false), Some(ControlPlane));
    assert_eq!(rig.offer(ControlPlane, facts("a", 6, 10), false), None);
    assert_eq!(rig.offer(Bucket, backup(9, facts("a", 99, 10)), true), None);
    assert_eq!(rig.wait(1000), None);
}

#[test]
fn a_silent_control_plane_is_waited_for_the_grace_then_the_newer_fallback_is_served() {
    for (bucket, disk, expected) in [(7, 5, Bucket), (5, 7, Disk), (6, 6, Bucket)] {
        let mut rig = Rig::control_plane();
        rig.offer(Bucket, backup(1, facts("a", bucket, 10)), true);
        rig.offer(Disk, facts("a", disk, 10), true);
        assert_eq!(rig.wait(2), None);
        assert_eq!(rig.wait(1), Some(expected));
        assert!(rig.poll);
    }
}

#[test]
fn a_refused_connection_shortens_the_wait() {
    let mut rig = Rig::control_plane();
    rig.lost(true);
    rig.offer(Disk, facts("a", 5, 10), true);
    assert_eq!(rig.wait(2), None, "the backup has not answered yet and may be newer");
    assert_eq!(rig.nothing(Bucket), Some(Disk));
    let mut rig = Rig::control_plane();
    rig.nothing(Bucket);
    rig.offer(Disk, facts("a", 5, 10), true);
    assert_eq!(rig.wait(1), None);
    assert_eq!(rig.lost(true), Some(Disk));
}

#[test]
fn at_the_grace_whatever_is_there_is_served_and_something_newer_after_it() {
    let mut rig = Rig::control_plane();
    rig.offer(Disk, facts("a", 5, 10), true);
    assert_eq!(rig.wait(3), Some(Disk));
    assert_eq!(rig.offer(Bucket, backup(3, facts("a", 6, 10)), true), Some(Bucket));
    assert_eq!(rig.offer(Bucket, backup(2, facts("a", 9, 10)), true), None, "a replay");
    assert_eq!(rig.offer(ControlPlane, facts("a", 5, 10), true), None, "an older revision");
    assert_eq!(rig.doubt(), Some(Doubt::Older));
    assert_eq!(rig.offer(ControlPlane, facts("a", 8, 10), false), Some(ControlPlane), "it has caught up");
    assert_eq!((rig.doubt(), rig.poll), (None, false));
}

#[test]
fn equal_resources_are_as_new_as_the_newest_witness() {
    let mut rig = Rig::control_plane();
    let same = |revision| Facts { digest: "same".into(), ..facts("a", revision, 10) };
    rig.offer(Bucket, backup(1, same(5)), true);
    rig.offer(Disk, same(7), true);
    assert_eq!(rig.wait(3), Some(Bucket));
    assert_eq!(rig.revision(), 7);
}

#[test]
fn one_cut_off_asks_the_backup_after_a_while_and_takes_only_what_is_newer() {
    let mut rig = Rig::following(facts("a", 5, 10));
    assert_eq!(rig.lost(true), None);
    rig.wait(29);
    assert!(!rig.poll);
    rig.wait(1);
    assert!(rig.poll);
    assert_eq!(rig.offer(Bucket, backup(1, facts("a", 5, 10)), true), None);
    assert_eq!(rig.offer(Bucket, backup(2, facts("a", 6, 10)), true), Some(Bucket));
    assert_eq!(rig.offer(ControlPlane, facts("a", 6, 10), false), Some(ControlPlane));
    assert!(!rig.poll);
}

#[test]
fn a_control_plane_that_returns_empty_is_held_until_accepted() {
    let mut rig = Rig::following(facts("a", 5, 10));
    rig.lost(true);
    assert_eq!(rig.offer(ControlPlane, facts("b", 1, 0), true), None);
    assert_eq!(rig.doubt(), Some(Doubt::Empty));
    assert_eq!(rig.offer(ControlPlane, facts("b", 2, 3), false), None, "it is followed, and still has less");
    assert_eq!(rig.doubt(), Some(Doubt::OtherStore));
    rig.lost(true);
    assert!(rig.doubt().is_some(), "an operator can still accept it");
    assert_eq!(rig.hear(Event::Accept), Some(ControlPlane));
    assert_eq!(
        rig.offer(ControlPlane, facts("b", 3, 2), true),
        Some(ControlPlane),
        "now it is the one we know"
    );
    assert_eq!(rig.doubt(), None);
}

#[test]
fn what_was_accepted_is_not_undone_by_fallbacks_from_before() {
    let mut rig = Rig::following(facts("a", 50, 10));
    rig.wait(5);
    rig.lost(true);
    let restored = Facts { digest: "a@40 again".into(), ..facts("a", 40, 10) };
    assert_eq!(rig.offer(ControlPlane, restored, true), None);
    assert_eq!((rig.doubt(), rig.hear(Event::Accept)), (Some(Doubt::Older), Some(ControlPlane)));
    rig.lost(true);
    rig.wait(40);
    assert_eq!(rig.offer(Bucket, backup(3, facts("a", 50, 10)), true), None);
    let since = Facts { verified_at: Some(wall(rig.elapsed)), ..facts("a", 41, 10) };
    assert_eq!(rig.offer(Bucket, backup(4, since), true), Some(Bucket));
}

#[test]
fn a_held_control_plane_that_grows_back_is_served() {
    let mut rig = Rig::following(facts("a", 5, 10));
    rig.lost(false);
    rig.offer(ControlPlane, facts("b", 1, 0), true);
    for resources in 1..10 {
        assert_eq!(rig.offer(ControlPlane, facts("b", 1 + resources, resources as usize), false), None);
    }
    assert_eq!(rig.offer(ControlPlane, facts("b", 20, 10), false), Some(ControlPlane));
}

#[test]
fn an_empty_control_plane_at_start_is_measured_by_what_the_fallbacks_know() {
    let mut rig = Rig::control_plane();
    rig.nothing(Disk);
    assert_eq!(rig.offer(ControlPlane, facts("b", 1, 0), true), None);
    assert_eq!(rig.offer(Bucket, backup(4, facts("a", 9, 10)), true), Some(Bucket));
    assert_eq!(rig.doubt(), Some(Doubt::Empty));
    let mut rig = Rig::control_plane();
    rig.nothing(Disk);
    rig.offer(ControlPlane, facts("b", 1, 0), true);
    assert_eq!(rig.nothing(Bucket), Some(ControlPlane), "a new installation is just empty");
}

#[test]
fn what_an_operator_put_into_the_backup_may_go_back() {
    let mut rig = Rig::following(backup(1, facts("a", 50, 10)));
    rig.wait(5);
    rig.lost(true);
    rig.wait(40);
    let later = Some(wall(rig.elapsed));
    let deed = Facts { by_hand: true, verified_at: later, ..backup(12, facts("a", 30, 10)) };
    assert_eq!(rig.offer(Bucket, backup(11, facts("a", 30, 10)), true), None);
    assert_eq!(rig.offer(Bucket, deed.clone(), true), Some(Bucket));
    assert_eq!(rig.offer(Disk, facts("a", 50, 10), true), None);
    rig.wait(5);
    let returned = Facts { verified_at: Some(wall(rig.elapsed)), ..facts("a", 51, 10) };
    assert_eq!(rig.offer(ControlPlane, returned, true), Some(ControlPlane));
    rig.lost(true);
    rig.wait(40);
    assert_eq!(rig.offer(Bucket, deed, true), None, "the control plane has spoken since");
}

#[test]
fn a_backup_as_the_authority_is_never_taken_for_older_than_what_is_served() {
    let mut rig = Rig::new(policy(Bucket));
    rig.failover.resume(facts("a", 50, 10));
    assert_eq!(rig.offer(Bucket, backup(7, facts("a", 49, 10)), true), None);
    assert_eq!(rig.doubt(), Some(Doubt::Older));
    assert_eq!(rig.offer(Bucket, backup(8, facts("a", 50, 10)), true), Some(Bucket));
    assert_eq!(rig.offer(Bucket, backup(7, facts("a", 60, 10)), true), None);
    assert!(rig.poll);
}

#[test]
fn one_that_stands_alone_starts_from_disk_when_its_backup_is_gone() {
    let mut rig = Rig::new(policy(Bucket));
    rig.offer(Disk, backup(3, facts("a", 5, 10)), true);
    assert_eq!(rig.lost(true), None);
    assert_eq!(rig.wait(1), Some(Disk));
    assert_eq!(rig.offer(Bucket, backup(3, facts("a", 5, 10)), true), Some(Bucket));
    let mut rig = Rig::new(policy(File));
    rig.offer(Disk, facts("", 0, 10), true);
    rig.lost(true);
    assert_eq!(rig.wait(1), Some(Disk));
    assert_eq!(rig.offer(File, facts("", 0, 0), true), Some(File), "a file may empty everything");
}

#[test]
fn a_fallback_that_is_too_old_is_refused_where_asked_for() {
    let strict = Policy { refuse_after: Some(Duration::from_secs(60)), ..policy(ControlPlane) };
    let old =
        Facts { verified_at: Some(wall(Duration::ZERO) - Duration::from_secs(100)), ..facts("a", 5, 10) };
    let mut rig = Rig::new(strict.clone());
    rig.offer(Disk, old.clone(), true);
    assert_eq!(rig.wait(10), None);
    assert_eq!(rig.offer(Bucket, backup(1, facts("a", 5, 10)), true), Some(Bucket));
    let mut rig = Rig::new(Policy { authority: Bucket, bucket: false, ..strict });
    rig.nothing(Disk);
    assert_eq!(rig.offer(Bucket, backup(1, old), true), None);
    assert_eq!(rig.doubt(), Some(Doubt::Stale));
    assert_eq!(rig.hear(Event::Accept), Some(Bucket));
}

#[test]
fn the_previous_generation_on_disk_is_better_than_nothing() {
    let mut rig = Rig::control_plane();
    rig.failover = Failover::new(policy(ControlPlane), Marks { sequence: Some(12), ..Marks::default() });
    rig.offer(Disk, backup(11, facts("a", 5, 10)), true);
    assert_eq!(rig.offer(Bucket, backup(10, facts("a", 9, 10)), true), None);
    assert_eq!(rig.wait(3), Some(Disk));
    assert_eq!(rig.offer(Bucket, backup(12, facts("a", 6, 10)), true), Some(Bucket));
}

#[test]
fn what_cannot_be_used_is_not_tried_again_until_it_changes() {
    let mut rig = Rig::following(facts("a", 5, 10));
    rig.failover.hear(Event::Offer { from: ControlPlane, facts: facts("a", 6, 10), whole: false }, rig.now());
    assert_eq!(rig.failover.decide(rig.now()).serve, Some(ControlPlane));
    rig.failover.unusable(ControlPlane);
    assert_eq!((rig.settle(), rig.revision()), (None, 5));
    assert_eq!(rig.offer(ControlPlane, facts("a", 7, 10), false), Some(ControlPlane));
}

/// One line of a random script.
#[derive(Clone, Debug)]
enum Line {
    /// The control plane's operator adds or deletes so many, or all at once.
    Write(i32),
    /// The control plane loses its data, or gets an older copy back.
    Wipe,
    RollBack(u64),
    Connect,
    /// Connects and goes on with changes since.
    Resume,
    Cut(bool),
    /// The exporter runs; then the data plane may read what it wrote, or an older manifest.
    Export,
    /// An operator puts an older backup on top.
    Restore(usize),
    ReadBackup(usize),
    NoBackup,
    Wait(u64),
    Accept,
    Restart,
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        4 => (-3..4i32).prop_map(Line::Write),
        1 => Just(Line::Wipe),
        1 => (1..5u64).prop_map(Line::RollBack),
        3 => Just(Line::Connect),
        2 => Just(Line::Resume),
        3 => any::<bool>().prop_map(Line::Cut),
        3 => Just(Line::Export),
        1 => (0..4usize).prop_map(Line::Restore),
        1 => Just(Line::Accept),
        4 => (0..4usize).prop_map(Line::ReadBackup),
        1 => Just(Line::NoBackup),
        4 => (0..40u64).prop_map(Line::Wait),
        1 => Just(Line::Restart),
    ]
}

/// A control plane, its backup, and one data plane.
struct World {
    rig: Rig,
    store: u64,
    revision: u64,
    resources: i32,
    connected: bool,
    backups: Vec<Facts>,
    /// What the data plane keeps on disk.
    kept: Option<Facts>,
    /// A fallback that verified was offered in this life.
    offered: bool,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::control_plane();
        rig.nothing(Disk);
        let (store, revision, resources) = (1, 1, 5);
        Self {
            rig,
            store,
            revision,
            resources,
            connected: false,
            backups: vec![],
            kept: None,
            offered: false,
        }
    }

    fn facts(&self) -> Facts {
        let resources = usize::try_from(self.resources).unwrap_or_default();
        let verified_at = Some(wall(self.rig.elapsed));
        // Two histories with equal numbers, as after a roll-back, have different contents.
        let digest = format!("{}@{}#{resources}", self.store, self.revision).into();
        Facts { verified_at, digest, ..facts(&format!("store-{}", self.store), self.revision, resources) }
    }

    fn play(&mut self, line: &Line) {
        match *line {
            Line::Write(by) => {
                self.resources = (self.resources + by).max(0);
                self.revision += 1;
                if self.connected {
                    self.offer(ControlPlane, self.facts(), false);
                }
            }
            Line::Wipe => (self.store, self.revision, self.resources) = (self.store + 1, 1, 0),
            Line::RollBack(by) => self.revision = self.revision.saturating_sub(by).max(1),
            Line::Connect | Line::Resume => {
                self.connected = true;
                self.offer(ControlPlane, self.facts(), matches!(line, Line::Connect));
            }
            Line::Cut(refused) => {
                self.connected = false;
                self.step(|rig| rig.lost(refused));
            }
            Line::Export => {
                let sequence = self.backups.len() as u64 + 1;
                self.backups.push(backup(sequence, self.facts()));
            }
            Line::Restore(back) => {
                if let Some(old) = self.backups.iter().rev().nth(back).cloned() {
                    let (sequence, now) = (self.backups.len() as u64 + 1, wall(self.rig.elapsed));
                    self.backups.push(Facts {
                        by_hand: true,
                        verified_at: Some(now),
                        ..backup(sequence, old)
                    });
                }
            }
            Line::Accept => self.deed(|rig| rig.hear(Event::Accept)),
            Line::ReadBackup(back) => {
                if let Some(facts) = self.backups.iter().rev().nth(back).filter(|_| self.rig.poll).cloned() {
                    self.offered = true;
                    self.offer(Bucket, facts, true);
                }
            }
            Line::NoBackup => self.step(|rig| rig.hear(Event::Lost { from: Bucket, refused: true })),
            Line::Wait(seconds) => self.step(|rig| rig.wait(seconds)),
            Line::Restart => self.restart(),
        }
        if matches!(line, Line::Wipe | Line::RollBack(_)) {
            self.play(&Line::Cut(true));
        }
    }

    fn restart(&mut self) {
        let marks = self.rig.failover.marks();
        let elapsed = self.rig.elapsed;
        self.rig = Rig::control_plane();
        self.rig.failover = Failover::new(policy(ControlPlane), marks);
        // The clock on the wall goes on.
        self.rig.elapsed = elapsed;
        (self.connected, self.offered) = (false, self.kept.is_some());
        match self.kept.clone() {
            Some(facts) => self.offer(Disk, facts, true),
            None => self.step(|rig| rig.nothing(Disk)),
        }
    }

    fn offer(&mut self, from: Origin, facts: Facts, whole: bool) {
        self.step(|rig| rig.offer(from, facts, whole));
    }

    /// What an operator tells the data plane to do is not held against it.
    fn deed(&mut self, step: impl FnOnce(&mut Rig) -> Option<Origin>) {
        step(&mut self.rig);
        self.kept = self.rig.failover.in_force().map(|(_, facts)| facts.clone());
    }

    /// One step of the data plane, and what must hold of each.
    fn step(&mut self, step: impl FnOnce(&mut Rig) -> Option<Origin>) {
        let before = self.rig.failover.clone();
        let served = step(&mut self.rig);
        let failover = &self.rig.failover;
        let Some((origin, new)) = failover.in_force() else {
            assert!(before.in_force.is_none(), "what is in force stays");
            return;
        };
        self.kept = Some(new.clone());
        assert!(failover.marks.sequence >= before.marks.sequence);
        let Some((_, old)) = before.in_force() else { return };
        let restored = new.by_hand && new.sequence > before.marks.sequence;
        assert!(restored || !new.is_before(old), "an older revision: {old:?} -> {new:?}");
        if served.is_some() && origin != ControlPlane {
            assert!(new.sequence >= before.marks.sequence, "an older sequence: {old:?} -> {new:?}");
        }
        let deed = before.following() && origin == ControlPlane;
        if new.resources == 0 && old.resources > 0 && origin == ControlPlane {
            assert!(deed, "emptied by itself: {old:?} -> {new:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(script in prop::collection::vec(line(), 1..60)) {
        let mut world = World::new();
        for line in &script {
            world.play(line);
        }
        // A fallback that was ever seen is served in the end, control plane or not.
        world.play(&Line::Cut(false));
        world.play(&Line::Wait(40));
        prop_assert!(!world.offered || world.rig.failover.in_force.is_some());
        // A control plane that comes back and stays is followed in the end, or held by name.
        world.play(&Line::Connect);
        world.play(&Line::Wait(40));
        let failover = &world.rig.failover;
        prop_assert!(failover.following() != failover.held().is_some());
    }

    #[test]
    fn accepting_always_ends_with_the_control_plane(script in prop::collection::vec(line(), 1..60)) {
        let mut world = World::new();
        for line in &script {
            world.play(line);
        }
        world.play(&Line::Connect);
        world.play(&Line::Wait(40));
        let rig = &mut world.rig;
        rig.hear(Event::Accept);
        let facts = rig.failover.newest(ControlPlane).cloned();
        prop_assert_eq!(rig.failover.in_force().map(|(origin, facts)| (origin, facts.clone())), facts.map(|facts| (ControlPlane, facts)));
        prop_assert!(rig.failover.following() && !rig.poll);
    }
}
