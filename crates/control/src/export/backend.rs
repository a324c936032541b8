//! One back end of an exporter: it writes what is offered, reads it back and proves it.
//!
//! The rule to know: back ends know nothing of each other. One that is down, slow or held keeps no other waiting.

mod report;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use model::{Manifest, Snapshot, secrets::Keyring};
use store::{
    backup::{self, Buckets, Head, Known, Latest, Publication, PublishError, Trust, Verified},
    bucket::Backoff,
};
use tokio::{sync::watch, time::sleep};

use super::{
    Config, Held, Offer, Shared,
    compare::{concealed, differences},
    guard::total,
    status::Brief,
};

/// So often is a race with another writer run again before waiting.
const TRIES: usize = 5;

pub(super) struct Backend {
    at: usize,
    shared: Shared,
    config: Arc<Config>,
    buckets: Buckets,
    /// What the credentials of secret managers are encrypted with.
    keyring: Keyring,
    /// What is published, as it was read back.
    published: Option<Verified>,
    /// The highest sequence ever seen here: a bucket that was emptied goes on from it.
    floor: u64,
    /// The instance configuration this process has published already.
    instance_written: bool,
    /// The last order by a person that was taken up.
    asked: u64,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What came of an offer.
enum Outcome {
    /// The backup is what was offered.
    Same(Box<Manifest>),
    Held(Held),
    /// There is neither a backup nor anything to back up.
    Nothing,
}

impl Backend {
    pub fn new(at: usize, shared: Shared) -> Self {
        let (config, buckets) = (shared.config.clone(), shared.config.backends[at].1.clone());
        let apisix = config.instance.config_payload.apisix.as_ref();
        let keyring = apisix.map(|apisix| Keyring::new(&apisix.data_encryption)).transpose();
        // Settings with such a key are refused before anything begins.
        let keyring = keyring.inspect_err(|error| tracing::error!(%error, "nothing is encrypted"));
        let keyring = keyring.ok().flatten().unwrap_or_default();
        Self {
            at,
            shared,
            config,
            buckets,
            keyring,
            published: None,
            floor: 0,
            instance_written: false,
            asked: 0,
        }
    }

    /// Takes the newest offer, again and again.
    pub async fn run(mut self, mut offers: watch::Receiver<Option<Offer>>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        while offers.changed().await.is_ok() {
            loop {
                let Some(offer) = offers.borrow_and_update().clone() else { break };
                if offer.asked > std::mem::replace(&mut self.asked, offer.asked) {
                    // Who asks wants to know that the backup is good, not that it was.
                    self.published = None;
                }
                let outcome = self.take(offer.snapshot.clone(), offer.at).await;
                let failed = outcome.is_err();
                self.report(outcome, &offer);
                if !failed {
                    backoff.reset();
                    break;
                }
                let asked = offer.asked;
                tokio::select! {
                    () = sleep(backoff.wait()) => {}
                    // A person asks, or it ends: waiting on would help nobody.
                    changed = offers.wait_for(|offer| offer.as_ref().is_some_and(|offer| offer.asked > asked)) => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Makes the backup what is offered, if it may be.
    async fn take(&mut self, mut offered: Snapshot, mut at: DateTime<Utc>) -> Result<Outcome, Failure> {
        let mut lost = None;
        for _ in 0..TRIES {
            let head = backup::head(&self.buckets, &self.config.group).await?;
            self.floor = self.floor.max(head.sequence);
            self.shared.sequences.saw(head.sequence).await;
            self.look_at(&head).await;
            let behind = |manifest: &Manifest| {
                *offered.store_id == *manifest.store_id && offered.revision < manifest.revision
            };
            if head.manifest.as_ref().is_some_and(behind) {
                // Another control plane has read the same store later than we have.
                (offered, at) = (self.shared.store.snapshot().await?, Utc::now());
            }
            if head.sequence == 0 && offered.is_empty() && !self.config.guard.allow_empty {
                return Ok(Outcome::Nothing);
            }
            if self.is_published(&head, &offered) {
                let signing = self.config.signing.as_deref();
                let manifest = backup::renew(&self.buckets, &self.config.group, at, signing).await?;
                if manifest.sequence == head.sequence {
                    return Ok(Outcome::Same(Box::new(manifest)));
                }
                continue;
            }
            if let Some(held) = self.guard(&head, &offered) {
                return Ok(Outcome::Held(held));
            }
            match self.publish(&head, &offered).await {
                Ok(manifest) => return Ok(Outcome::Same(Box::new(manifest))),
                Err(error @ PublishError::Overtaken { .. }) => lost = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(lost.unwrap_or(PublishError::Overtaken { head: self.floor }).into())
    }

    /// Reads what is published, if it is not what was read before.
    async fn look_at(&mut self, head: &Head) {
        let Some(manifest) = &head.manifest else {
            self.published = None;
            return;
        };
        self.found(manifest);
        let same = |published: &Verified| {
            published.manifest.as_ref().is_some_and(|m| m.sequence == manifest.sequence)
                && published.digest == backup::digest(manifest)
        };
        if self.published.as_ref().is_some_and(same) {
            return;
        }
        self.published = None;
        if let Some(note) = &manifest.note {
            self.found_by_hand(manifest, note);
        }
        let (group, trust) = (&self.config.group, Trust::default());
        match backup::read_sequence(&self.buckets, group, &trust, manifest.sequence).await {
            Ok(verified) => {
                self.verify(&verified, None).await;
                self.published = Some(verified);
            }
            Err(error) => {
                let error = format!("sequence {} can't be used: {error}", manifest.sequence);
                tracing::warn!(backend = self.name(), "{error}; it will be published anew");
                self.set_verified(Some(error));
            }
        }
    }

    /// Whether `offered` is what the head holds already, written as we would write it.
    fn is_published(&self, head: &Head, offered: &Snapshot) -> bool {
        let (Some(published), Some(manifest)) = (&self.published, &head.manifest) else { return false };
        let signed_alike = manifest.signature.as_ref().map(|s| s.key_id.clone())
            == self.config.signing.as_ref().map(|signing| signing.key_id());
        // Two control planes with different settings would take turns for ever: each says its own once.
        let instance_alike = published.instance == *self.config.instance
            || (self.instance_written && manifest.writer != self.config.writer);
        manifest.note.is_none()
            && *manifest.store_id == *offered.store_id
            && signed_alike
            && instance_alike
            && published.rejected.is_empty()
            && differences(offered, &published.snapshot, &self.keyring) == 0
    }

    fn guard(&self, head: &Head, offered: &Snapshot) -> Option<Held> {
        if self.shared.status.borrow().backends[self.at].accepted {
            return None;
        }
        let current = head.manifest.as_ref()?;
        let reason = self.config.guard.objects(offered, current)?;
        let offered = Brief {
            store_id: offered.store_id.to_string(),
            revision: offered.revision,
            resources: offered.len(),
        };
        let current = Brief {
            store_id: current.store_id.clone(),
            revision: current.revision,
            resources: total(current),
        };
        let held = self.shared.status.borrow().backends[self.at].held.clone();
        let since = held.filter(|held| held.reason == reason).map_or_else(Utc::now, |held| held.since);
        Some(Held { reason, since, offered, current })
    }

    async fn publish(&mut self, head: &Head, offered: &Snapshot) -> Result<Manifest, PublishError> {
        let written = &concealed(offered, &self.keyring);
        let sequence = self.shared.sequences.of(offered).await;
        let publication = Publication {
            group: &self.config.group,
            snapshot: written,
            instance: &self.config.instance,
            writer: &self.config.writer,
            signing: self.config.signing.as_deref(),
            expected_head: Some(head.sequence),
            floor: self.floor.max(sequence.saturating_sub(1)),
            note: None,
        };
        let manifest = backup::publish(&self.buckets, &publication).await?;
        self.floor = manifest.sequence;
        self.shared.sequences.saw(manifest.sequence).await;
        self.instance_written = true;
        tracing::info!(
            backend = self.name(),
            group = self.config.group,
            sequence = manifest.sequence,
            revision = manifest.revision,
            bytes = manifest.resource.size,
            "backup published"
        );
        self.read_back(&manifest, written).await;
        let pruned = backup::prune(&self.buckets, &self.config.group, self.config.keep).await;
        let error = pruned.err().map(|error| error.to_string());
        self.update(|status| {
            if let Some(error) = error.as_ref().filter(|error| status.prune_error.as_ref() != Some(error)) {
                tracing::warn!(backend = status.name, %error, "old publications can't be deleted");
            }
            status.prune_error.clone_from(&error);
        });
        Ok(manifest)
    }

    /// Reads the publication back the way a data plane would.
    async fn read_back(&mut self, manifest: &Manifest, written: &Snapshot) {
        let trust = match &self.config.signing {
            Some(signing) => Trust { public_keys: vec![signing.public_key()], require_signature: true },
            None => Trust::default(),
        };
        match backup::read_latest(&self.buckets, &self.config.group, &trust, &Known::default()).await {
            Ok(Latest::New(mut verified)) => {
                let sequence = verified.manifest.as_ref().map(|manifest| manifest.sequence);
                if verified.fallen_back.is_none() && sequence == Some(manifest.sequence) {
                    if self.verify(&verified, Some(written)).await {
                        // The same resources once, not twice, in memory.
                        verified.snapshot = written.clone();
                    }
                    self.published = Some(*verified);
                } else if sequence <= Some(manifest.sequence) {
                    let reason =
                        verified.fallen_back.unwrap_or_else(|| format!("sequence {sequence:?} was read"));
                    self.set_verified(Some(format!("reading back sequence {}: {reason}", manifest.sequence)));
                }
            }
            Ok(_) => {}
            Err(error) => self.set_verified(Some(format!("reading back: {error}"))),
        }
    }

    /// Compiles what was read, and compares it with what was written.
    async fn verify(&self, verified: &Verified, written: Option<&Snapshot>) -> bool {
        let (snapshot, instance, prove) =
            (verified.snapshot.clone(), verified.instance.clone(), self.shared.prove.clone());
        let proof = tokio::task::spawn_blocking(move || prove(&snapshot, &instance)).await;
        let problem = match proof {
            Err(error) => Some(error.to_string()),
            Ok(Err(error)) => Some(format!("it does not compile: {error}")),
            Ok(Ok(_)) => None,
        };
        let differs = |written: &Snapshot| {
            let changes = differences(written, &verified.snapshot, &self.keyring);
            (changes > 0).then(|| format!("{changes} resources read back differ from the store's"))
        };
        let instance = (written.is_some() && verified.instance != *self.config.instance)
            .then(|| "the instance configuration read back differs".to_owned());
        let problem = problem.or_else(|| written.and_then(differs)).or(instance);
        let verified = problem.is_none();
        self.set_verified(problem);
        verified
    }
}
