//! The return guard: what speaks against an authority's snapshot.
//!
//! The rule to know: it is the *whole* snapshot on connecting that is measured, because a control plane that lost
//! its data looks just like one whose operator deleted everything. A change that arrives while a control plane is
//! followed is somebody's deed and is never held, even one that deletes all.

use super::{Guard, Origin, facts::Facts};

/// Why an offer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has nothing, while something is served.
    Empty,
    /// It comes from another store, which has less.
    OtherStore,
    /// It has much less.
    Shrunk,
    /// It is from before what was served already.
    Older,
    /// It is older than `max_age`, and `on_stale` says to refuse that.
    Stale,
}

impl Doubt {
    /// As the status names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::OtherStore => "other_store",
            Self::Shrunk => "shrunk",
            Self::Older => "older",
            Self::Stale => "stale",
        }
    }
}

/// What speaks against serving `offer` instead of `base`; `whole` asks for the full measure.
pub fn doubt(authority: Origin, guard: Guard, (offer, whole): (&Facts, bool), base: &Facts) -> Option<Doubt> {
    let empty = offer.resources == 0 && base.resources > 0 && !guard.allow_empty;
    match authority {
        // A file on this machine says what its owner wants.
        Origin::File => None,
        _ if offer.is_before(base) && !offer.by_hand => Some(Doubt::Older),
        // A backup was measured before it was written; one without a manifest was not.
        Origin::Bucket => (empty && offer.sequence.is_none()).then_some(Doubt::Empty),
        _ if !whole => None,
        // Its history is on this machine, whole: what it has less of was deleted through this process.
        _ if guard.own_store && offer.is_of_store(base) => None,
        _ if empty => Some(Doubt::Empty),
        _ if is_other_store(offer, base) && offer.resources < base.resources => Some(Doubt::OtherStore),
        _ if is_shrunk(offer, base, guard.max_shrink) => Some(Doubt::Shrunk),
        _ => None,
    }
}

fn is_other_store(offer: &Facts, base: &Facts) -> bool {
    offer.has_lineage() && base.has_lineage() && offer.store_id != base.store_id
}

#[expect(clippy::cast_precision_loss, reason = "a part of some thousands")]
fn is_shrunk(offer: &Facts, base: &Facts, max_shrink: f64) -> bool {
    let lost = base.resources.saturating_sub(offer.resources);
    lost as f64 > base.resources as f64 * max_shrink
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(store: &str, revision: u64, resources: usize) -> Facts {
        Facts { store_id: store.into(), revision, resources, ..Facts::default() }
    }

    #[test]
    fn measures_what_a_control_plane_returns_with() {
        let (guard, base) = (Guard::default(), facts("a", 10, 10));
        for (offer, expected) in [
            (facts("a", 11, 10), None),
            (facts("a", 11, 5), None),
            (facts("a", 11, 4), Some(Doubt::Shrunk)),
            (facts("a", 11, 0), Some(Doubt::Empty)),
            (facts("a", 9, 20), Some(Doubt::Older)),
            (facts("b", 1, 9), Some(Doubt::OtherStore)),
            (facts("b", 1, 10), None),
            (facts("", 1, 6), None),
            (facts("", 1, 1), Some(Doubt::Shrunk)),
        ] {
            let found = doubt(Origin::ControlPlane, guard, (&offer, true), &base);
            assert_eq!(found, expected, "{offer:?}");
        }
    }

    #[test]
    fn a_change_on_a_followed_control_plane_is_a_deed() {
        let (guard, base) = (Guard::default(), facts("a", 10, 10));
        assert_eq!(doubt(Origin::ControlPlane, guard, (&facts("a", 11, 0), false), &base), None);
        assert_eq!(doubt(Origin::ControlPlane, guard, (&facts("a", 9, 9), false), &base), Some(Doubt::Older));
    }

    #[test]
    fn may_be_told_to_let_empty_ones_pass() {
        let guard = Guard { max_shrink: 1.0, allow_empty: true, ..Guard::default() };
        let (offer, base) = (facts("a", 11, 0), facts("a", 10, 10));
        assert_eq!(doubt(Origin::ControlPlane, guard, (&offer, true), &base), None);
    }

    #[test]
    fn the_own_store_is_believed_unless_it_is_another() {
        let (guard, base) = (Guard { own_store: true, ..Guard::default() }, facts("a", 10, 10));
        let found = |offer: &Facts| doubt(Origin::ControlPlane, guard, (offer, true), &base);
        assert_eq!(found(&facts("a", 11, 0)), None);
        assert_eq!(found(&facts("a", 9, 10)), Some(Doubt::Older));
        assert_eq!(found(&facts("b", 1, 0)), Some(Doubt::Empty));
    }

    #[test]
    fn a_backup_was_measured_by_its_writer_and_a_file_is_its_owners() {
        let (guard, base) = (Guard::default(), facts("a", 10, 10));
        let backup = |sequence| Facts { sequence, ..facts("a", 11, 0) };
        assert_eq!(doubt(Origin::Bucket, guard, (&backup(Some(3)), true), &base), None);
        assert_eq!(doubt(Origin::Bucket, guard, (&backup(None), true), &base), Some(Doubt::Empty));
        assert_eq!(doubt(Origin::File, guard, (&facts("", 0, 0), true), &base), None);
    }
}
