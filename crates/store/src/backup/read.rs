//! Reading a backup the way a data plane does.
//!
//! The rule to know: what fails a check is passed over for the newest older publication that passes, but never for
//! one older than what the reader has seen.

use model::Manifest;

use super::{
    Buckets, Known, Latest, Layout, ReadError, Trust, Verified, What, api7,
    layout::{Numbered, numbered},
    part, seal,
};
use crate::bucket::{self, Conditional};

/// Manifests are small; nothing larger is read.
pub(super) const LARGEST_MANIFEST: u64 = 1 << 20;

/// So many publications are tried when the newest is damaged.
const TRIES: usize = 10;

/// Reads the newest publication of `group`, unless it is what is `known`.
///
/// One conditional request where nothing changed.
pub async fn read_latest(
    buckets: &Buckets,
    group: &str,
    trust: &Trust,
    known: &Known,
) -> Result<Latest, ReadError> {
    let layout = Layout::new(group)?;
    let reading = Reading { buckets, layout: &layout, trust, known };
    let pointer = buckets.config.get_unless(&layout.manifest(), LARGEST_MANIFEST, known.etag()).await;
    let refusal = match pointer {
        Ok(Conditional::NotModified) => return Ok(Latest::NotModified),
        Ok(Conditional::Missing) => return reading.without_manifest().await,
        Ok(Conditional::Found(object)) => match reading.follow(&object.bytes, object.etag.clone()).await {
            Err(refusal) if !matches!(refusal, ReadError::Bucket(_)) => refusal,
            found => return found,
        },
        Err(error) if error.kind == bucket::Kind::TooLarge => {
            ReadError::TooLarge { what: What::Manifest, limit: LARGEST_MANIFEST }
        }
        Err(error) if error.kind == bucket::Kind::Denied => return reading.denied(error).await,
        Err(error) => return Err(error.into()),
    };
    match reading.older(&refusal).await {
        // Without an entity tag: what could not be read may be whole by the next time.
        Some(verified) => {
            let fallen_back = Some(refusal.to_string());
            Ok(Latest::New(Box::new(Verified { fallen_back, ..verified })))
        }
        None => Err(refusal),
    }
}

/// Whether the newest publication of `group` could be believed if it were needed. Reads the manifest alone where there
/// is one.
pub async fn look(buckets: &Buckets, group: &str, trust: &Trust, known: &Known) -> Result<(), ReadError> {
    let layout = Layout::new(group)?;
    match buckets.config.get_unless(&layout.manifest(), LARGEST_MANIFEST, known.etag()).await {
        Ok(Conditional::NotModified) => Ok(()),
        Ok(Conditional::Found(object)) => {
            let found = seal::open(&object.bytes, layout.group(), trust)?.sequence;
            match known.sequence {
                Some(known) if found < known => Err(ReadError::Replayed { found, known }),
                _ => Ok(()),
            }
        }
        // There may be what API7 writes.
        Err(error) if error.kind != bucket::Kind::Denied => Err(error.into()),
        Ok(Conditional::Missing) | Err(_) => read_latest(buckets, group, trust, known).await.map(|_| ()),
    }
}

/// Reads and checks one publication of the history, whatever came after it.
pub async fn read_sequence(
    buckets: &Buckets,
    group: &str,
    trust: &Trust,
    sequence: u64,
) -> Result<Verified, ReadError> {
    let layout = Layout::new(group)?;
    let reading = Reading { buckets, layout: &layout, trust, known: &Known::default() };
    reading.entry(sequence).await
}

/// Reads and checks what the pointer names, and nothing else.
pub async fn read_pointed(buckets: &Buckets, group: &str, trust: &Trust) -> Result<Verified, ReadError> {
    let layout = Layout::new(group)?;
    let Some(object) = buckets.config.get(&layout.manifest(), LARGEST_MANIFEST).await? else {
        return Err(ReadError::Missing { what: What::Manifest, key: layout.manifest() });
    };
    let reading = Reading { buckets, layout: &layout, trust, known: &Known::default() };
    let manifest = reading.check(&object.bytes)?;
    let verified = reading.load(manifest).await?;
    Ok(Verified { etag: object.etag, ..verified })
}

struct Reading<'a> {
    buckets: &'a Buckets,
    layout: &'a Layout,
    trust: &'a Trust,
    known: &'a Known,
}

impl Reading<'_> {
    /// Takes what a manifest names.
    async fn follow(&self, bytes: &[u8], etag: Option<String>) -> Result<Latest, ReadError> {
        let manifest = self.check(bytes)?;
        if let Some(known) = self.known.sequence {
            if manifest.sequence < known {
                return Err(ReadError::Replayed { found: manifest.sequence, known });
            }
            if manifest.sequence == known && self.known.digest.is_some() {
                return if self.known.digest == Some(part::digest(&manifest)) {
                    Ok(Latest::Renewed { manifest: Box::new(manifest), etag })
                } else {
                    Err(ReadError::Forked { sequence: known })
                };
            }
        }
        let mut verified = self.load(manifest).await?;
        verified.etag = etag;
        Ok(Latest::New(Box::new(verified)))
    }

    fn check(&self, bytes: &[u8]) -> Result<Manifest, ReadError> {
        seal::open(bytes, self.layout.group(), self.trust)
    }

    /// Fetches, checks and parses both parts.
    async fn load(&self, manifest: Manifest) -> Result<Verified, ReadError> {
        let resource = self.buckets.resource(Some(&manifest.resource.bucket))?;
        let (packed, instance) = tokio::try_join!(
            part::fetch(&resource, &manifest.resource, What::Snapshot),
            part::fetch(&self.buckets.config, &manifest.instance, What::Instance),
        )?;
        let parsing = move || -> Result<Verified, ReadError> {
            let plain = part::unpack(&packed, manifest.resource.plain_size)?;
            let (snapshot, rejected) = part::snapshot(&plain, &manifest.store_id, manifest.revision)?;
            let (instance, digest) = (part::instance(&instance)?, part::digest(&manifest));
            let manifest = Some(manifest);
            Ok(Verified { manifest, snapshot, instance, rejected, digest, etag: None, fallen_back: None })
        };
        // A hundred thousand routes take a while, and others run on this thread.
        tokio::task::spawn_blocking(parsing).await.map_err(|error| malformed(error.to_string()))?
    }

    async fn entry(&self, sequence: u64) -> Result<Verified, ReadError> {
        let key = self.layout.history_entry(sequence);
        let Some(object) = self.buckets.config.get(&key, LARGEST_MANIFEST).await? else {
            return Err(ReadError::Missing { what: What::Manifest, key });
        };
        let manifest = self.check(&object.bytes)?;
        if manifest.sequence != sequence {
            return Err(ReadError::WrongSequence { found: manifest.sequence, wanted: sequence });
        }
        self.load(manifest).await
    }

    /// The newest publication of the history that passes all checks and is newer than what is known.
    async fn older(&self, refusal: &ReadError) -> Option<Verified> {
        let newer = |sequence: u64| self.known.sequence.is_none_or(|known| sequence > known);
        for Numbered { sequence, .. } in
            self.history().await.into_iter().filter(|entry| newer(entry.sequence)).take(TRIES)
        {
            match self.entry(sequence).await {
                Ok(verified) => return Some(verified),
                Err(error) => {
                    tracing::debug!(sequence, %error, newest = %refusal, "passed over in the history");
                }
            }
        }
        None
    }

    async fn history(&self) -> Vec<Numbered> {
        match self.buckets.config.list(&self.layout.history()).await {
            Ok(entries) => numbered(entries),
            Err(error) => {
                tracing::debug!(%error, "the history can't be listed");
                Vec::new()
            }
        }
    }

    /// Without the right to list, S3 answers "denied" for what is not there, and readers of API7's objects need no more
    /// than the right to get them.
    async fn denied(&self, error: bucket::Error) -> Result<Latest, ReadError> {
        if self.known.sequence.is_none()
            && !self.trust.require_signature
            && let Ok(latest) = api7::read(self.buckets, self.layout, self.known).await
        {
            return Ok(latest);
        }
        Err(error.into())
    }

    /// There is no pointer: a first publication was cut short, or the objects are API7's.
    async fn without_manifest(&self) -> Result<Latest, ReadError> {
        let missing = ReadError::Missing { what: What::Manifest, key: self.layout.manifest() };
        if let Some(mut verified) = self.older(&missing).await {
            verified.fallen_back = Some(missing.to_string());
            return Ok(Latest::New(Box::new(verified)));
        }
        if let Some(known) = self.known.sequence {
            // Whoever can delete the manifest must not get unsigned objects believed that way.
            return Err(ReadError::Vanished { known });
        }
        if self.trust.require_signature {
            return Err(ReadError::Unsigned);
        }
        api7::read(self.buckets, self.layout, self.known).await
    }
}

pub(super) fn malformed(reason: String) -> ReadError {
    ReadError::Malformed { what: What::Manifest, reason }
}
