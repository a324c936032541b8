//! What a back end says of itself, in the status and in the log.
//!
//! The rule to know: the log has a line when something changes, not each time it is found to be so still.

use chrono::DateTime;
use model::Manifest;

use super::{
    super::{BackendStatus, ByHand, Offer},
    Backend, Failure, Outcome,
};

impl Backend {
    pub(super) fn found_by_hand(&self, manifest: &Manifest, note: &str) {
        let Manifest { sequence, writer, created_at: at, .. } = manifest;
        let (note, writer, at) = (note.to_owned(), writer.clone(), at.clone());
        tracing::warn!(backend = self.name(), sequence, writer, at, note, "the backup was changed by hand");
        self.update(|status| {
            status.by_hand = Some(ByHand { sequence: *sequence, note, writer, at });
        });
    }

    /// What is published now, whoever did it.
    pub(super) fn found(&self, manifest: &Manifest) {
        let verified_at = DateTime::parse_from_rfc3339(&manifest.verified_at).ok().map(|at| at.to_utc());
        self.update(|status| {
            (status.sequence, status.revision) = (manifest.sequence, manifest.revision);
            status.last_success = status.last_success.max(verified_at);
        });
    }

    pub(super) fn set_verified(&self, problem: Option<String>) {
        self.update(|status| {
            if let Some(problem) = &problem {
                tracing::warn!(backend = status.name, problem, "the backup is not verified");
            }
            status.verified = Some(problem.is_none());
            status.problem = problem;
        });
    }

    pub(super) fn report(&self, outcome: Result<Outcome, Failure>, offer: &Offer) {
        self.update(|status| {
            status.asked = offer.asked;
            let error = outcome.as_ref().err().map(ToString::to_string);
            match (&error, &status.last_error) {
                (Some(new), old) if old.as_ref() != Some(new) => {
                    tracing::warn!(backend = status.name, error = new, "the backup can't be written");
                }
                (None, Some(_)) => tracing::info!(backend = status.name, "the backup can be written again"),
                _ => {}
            }
            status.errors_total += u64::from(error.is_some());
            status.last_error = error;
            match outcome {
                Ok(Outcome::Same(manifest)) => {
                    status.last_success = Some(offer.at);
                    (status.sequence, status.revision) = (manifest.sequence, manifest.revision);
                    (status.held, status.accepted) = (None, false);
                }
                Ok(Outcome::Held(held)) => {
                    if status.held.as_ref().is_none_or(|old| old.reason != held.reason) {
                        tracing::warn!(
                            backend = status.name,
                            reason = held.reason,
                            "the backup is held as it is: `keelgate config accept` exports the store all the same"
                        );
                    }
                    status.held = Some(held);
                }
                Ok(Outcome::Nothing) => status.held = None,
                Err(_) => {}
            }
        });
    }

    pub(super) fn name(&self) -> &str {
        &self.config.backends[self.at].0
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut BackendStatus)) {
        self.shared.status.send_modify(|status| change(&mut status.backends[self.at]));
    }
}
