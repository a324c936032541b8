//! Writing a backup.
//!
//! The rule to know: creating `history/<sequence>.json` exclusively is the commit. Everything before it is named by
//! nothing, everything after it is a convenience that [`renew`] repairs.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use model::{Instance, Manifest, Snapshot, manifest::FORMAT};

use super::{
    Buckets, Layout, ReadError, Signing, Trust,
    layout::{BadGroup, numbered},
    part::{self, LARGEST_SNAPSHOT, Parts, sha256},
    read::LARGEST_MANIFEST,
    seal,
};
use crate::bucket::{self, Bucket, Put};

/// So often is a lost race run again.
const TRIES: usize = 20;

/// What to publish.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    pub group: &'a str,
    pub snapshot: &'a Snapshot,
    pub instance: &'a Instance,
    /// Instance id and host name.
    pub writer: &'a str,
    pub signing: Option<&'a Signing>,
    /// Publish only on top of this sequence (0: of nothing). None: on top of whatever is there.
    pub expected_head: Option<u64>,
    /// The sequence is greater than this, even if the bucket was emptied: readers refuse a lower one.
    pub floor: u64,
    /// What an operator did by hand.
    pub note: Option<String>,
}

/// Why nothing was published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    #[error(transparent)]
    Group(#[from] BadGroup),
    /// Look at what is there now, and decide anew.
    #[error("another writer published sequence {head} meanwhile")]
    Overtaken { head: u64 },
    #[error("there is nothing to renew")]
    Nothing,
    #[error("what is published can't be read: {0}")]
    Damaged(#[source] ReadError),
    #[error("the backup has manifests of format {found}, this version writes {FORMAT}: upgrade this node")]
    NewerFormat { found: u32 },
    #[error("can't be written: {0}")]
    Encode(String),
}

/// The newest publication, as a writer sees it.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The highest sequence ever committed; 0 if none.
    pub sequence: u64,
    /// Its manifest, if it can be read.
    pub manifest: Option<Manifest>,
    /// The digest of its bytes in the history.
    digest: Option<String>,
    /// What `manifest.json` holds.
    pointer: Pointer,
}

#[derive(Clone, Debug, Default)]
struct Pointer {
    manifest: Option<Manifest>,
    etag: Option<String>,
    /// Something is there that no manifest can be; its entity tag is not known.
    garbage: bool,
}

impl Head {
    /// Everything after the commit was done too.
    pub fn is_complete(&self) -> bool {
        self.pointer.manifest.as_ref().is_some_and(|pointed| pointed.sequence == self.sequence)
    }
}

/// Reads what is published, trusting no more than that it is a manifest of this group.
pub async fn head(buckets: &Buckets, group: &str) -> Result<Head, PublishError> {
    Writer::new(buckets, group)?.head().await
}

/// Publishes. Any number of writers may do so at once: each sequence is given to one of them.
pub async fn publish(buckets: &Buckets, publication: &Publication<'_>) -> Result<Manifest, PublishError> {
    let writer = Writer::new(buckets, publication.group)?;
    let (snapshot, instance) = (publication.snapshot.clone(), publication.instance.clone());
    // A hundred thousand routes take a while, and others run on this thread.
    let encoding = tokio::task::spawn_blocking(move || Parts::encode(&snapshot, &instance));
    let parts = encoding.await.map_err(encode)?.map_err(encode)?;
    for _ in 0..TRIES {
        let head = writer.head().await?;
        if publication.expected_head.is_some_and(|expected| expected != head.sequence) {
            return Err(PublishError::Overtaken { head: head.sequence });
        }
        let manifest = writer.manifest(publication, &parts, &head)?;
        if let Some(bytes) = writer.commit(&manifest, &parts).await? {
            writer.finish(&manifest, &bytes, &parts.plain, &parts.instance).await?;
            return Ok(manifest);
        }
    }
    Err(PublishError::Overtaken { head: writer.head().await?.sequence })
}

/// Confirms that the newest publication is still what the store holds, and finishes what a crash left undone.
pub async fn renew(
    buckets: &Buckets,
    group: &str,
    verified_at: DateTime<Utc>,
    signing: Option<&Signing>,
) -> Result<Manifest, PublishError> {
    let writer = Writer::new(buckets, group)?;
    let head = writer.head().await?;
    let complete = head.is_complete();
    let Some(mut manifest) = head.manifest else { return Err(PublishError::Nothing) };
    manifest.verified_at = timestamp(verified_at);
    let bytes = seal::close(&mut manifest, signing).map_err(encode)?;
    if complete {
        // Refused: another writer renewed or published, which is as good.
        let key = writer.layout.manifest();
        buckets.config.put_if_match(&key, bytes, head.pointer.etag.as_deref()).await?;
        return Ok(manifest);
    }
    let resource = buckets.resource(Some(&manifest.resource.bucket))?;
    let packed = part::fetch(&resource, &manifest.resource, super::What::Snapshot).await;
    let packed = packed.map_err(PublishError::Damaged)?;
    let plain = part::unpack(&packed, manifest.resource.plain_size).map_err(PublishError::Damaged)?;
    let instance = part::fetch(&buckets.config, &manifest.instance, super::What::Instance).await;
    let instance = instance.map_err(PublishError::Damaged)?;
    writer.finish(&manifest, &bytes, &plain.into(), &instance).await?;
    Ok(manifest)
}

struct Writer<'a> {
    buckets: &'a Buckets,
    resource: Bucket,
    layout: Layout,
}

impl<'a> Writer<'a> {
    fn new(buckets: &'a Buckets, group: &str) -> Result<Self, PublishError> {
        Ok(Self { buckets, resource: buckets.resource(None)?, layout: Layout::new(group)? })
    }

    async fn head(&self) -> Result<Head, PublishError> {
        let entries = numbered(self.buckets.config.list(&self.layout.history()).await?);
        let pointer = self.pointer().await?;
        let pointed = pointer.manifest.as_ref().map_or(0, |manifest| manifest.sequence);
        let committed = entries.first().map_or(0, |entry| entry.sequence);
        let mut head = Head { sequence: committed.max(pointed), pointer, ..Head::default() };
        if committed > 0 && committed >= pointed {
            let key = self.layout.history_entry(committed);
            match self.get_manifest(&key).await {
                Ok(Some(object)) => {
                    head.digest = Some(sha256(&object.bytes));
                    head.manifest = self.read(&object.bytes)?;
                }
                Ok(None) => {}
                Err(error) if error.kind == bucket::Kind::TooLarge => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            // The history was lost, the pointer was not.
            head.manifest.clone_from(&head.pointer.manifest);
        }
        Ok(head)
    }

    async fn pointer(&self) -> Result<Pointer, PublishError> {
        match self.get_manifest(&self.layout.manifest()).await {
            Ok(Some(object)) => {
                Ok(Pointer { manifest: self.read(&object.bytes)?, etag: object.etag, garbage: false })
            }
            Ok(None) => Ok(Pointer::default()),
            Err(error) if error.kind == bucket::Kind::TooLarge => {
                Ok(Pointer { garbage: true, ..Pointer::default() })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn get_manifest(&self, key: &str) -> Result<Option<bucket::Object>, bucket::Error> {
        self.buckets.config.get(key, LARGEST_MANIFEST).await
    }

    /// None: it is no manifest of this group, and will be written over.
    fn read(&self, bytes: &[u8]) -> Result<Option<Manifest>, PublishError> {
        match seal::open(bytes, self.layout.group(), &Trust::default()) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(ReadError::NewerFormat { found, .. }) => Err(PublishError::NewerFormat { found }),
            Err(_) => Ok(None),
        }
    }

    fn manifest(
        &self,
        publication: &Publication<'_>,
        parts: &Parts,
        head: &Head,
    ) -> Result<Manifest, PublishError> {
        let sequence = head.sequence.max(publication.floor).checked_add(1);
        let sequence = sequence.ok_or_else(|| encode("there is no higher sequence"))?;
        let mut resource = parts.resource_part(&self.layout, sequence, &self.resource);
        resource.counts = publication.snapshot.counts();
        if resource.plain_size > LARGEST_SNAPSHOT {
            return Err(encode(format!("the snapshot is larger than {LARGEST_SNAPSHOT} bytes")));
        }
        let now = timestamp(Utc::now());
        let mut manifest = Manifest {
            format: FORMAT,
            group: publication.group.to_owned(),
            store_id: publication.snapshot.store_id.to_string(),
            revision: publication.snapshot.revision,
            sequence,
            created_at: now.clone(),
            verified_at: now,
            writer: publication.writer.to_owned(),
            resource,
            instance: parts.instance_part(&self.layout, sequence, &self.buckets.config),
            previous: head.digest.clone(),
            note: publication.note.clone(),
            signature: None,
        };
        seal::close(&mut manifest, publication.signing).map_err(encode)?;
        Ok(manifest)
    }

    /// Writes the immutable objects, then the history entry. None: another writer has this sequence.
    async fn commit(&self, manifest: &Manifest, parts: &Parts) -> Result<Option<Bytes>, PublishError> {
        tokio::try_join!(
            self.resource.put(&manifest.resource.key, parts.packed.clone()),
            self.buckets.config.put(&manifest.instance.key, parts.instance.clone()),
        )?;
        let (key, bytes) =
            (self.layout.history_entry(manifest.sequence), seal::bytes(manifest).map_err(encode)?);
        let created = self.buckets.config.put_if_absent(&key, bytes.clone()).await;
        if let Err(error) = &created
            // It may have been written all the same, and only the answer was lost.
            && !error.is_ambiguous()
        {
            return Err(error.clone().into());
        }
        // Not every server's exclusive creation is exclusive, and a refused try may be the echo of our own.
        match self.get_manifest(&key).await? {
            Some(object) if object.bytes == bytes => Ok(Some(bytes)),
            Some(_) => Ok(None),
            None => created.map(|_| None).map_err(PublishError::from),
        }
    }

    /// Mirrors and pointer, unless a newer publication has written its own.
    async fn finish(
        &self,
        manifest: &Manifest,
        bytes: &Bytes,
        plain: &Bytes,
        instance: &Bytes,
    ) -> Result<(), PublishError> {
        let overtaken = |pointer: &Pointer| {
            pointer.manifest.as_ref().is_some_and(|pointed| pointed.sequence > manifest.sequence)
        };
        if overtaken(&self.pointer().await?) {
            return Ok(());
        }
        let mirror = self.layout.mirror();
        tokio::try_join!(
            self.resource.put(mirror, plain.clone()),
            self.buckets.config.put(mirror, instance.clone())
        )?;
        for _ in 0..TRIES {
            let pointer = self.pointer().await?;
            if overtaken(&pointer) {
                return Ok(());
            }
            let key = self.layout.manifest();
            if pointer.garbage {
                self.buckets.config.put(&key, bytes.clone()).await?;
                return Ok(());
            }
            let put = self.buckets.config.put_if_match(&key, bytes.clone(), pointer.etag.as_deref()).await?;
            if put == Put::Done {
                return Ok(());
            }
        }
        Err(PublishError::Overtaken { head: manifest.sequence })
    }
}

pub(super) fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn encode(error: impl std::fmt::Display) -> PublishError {
    PublishError::Encode(error.to_string())
}
