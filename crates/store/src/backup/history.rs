//! What was published before: looked at, compared, restored, tidied up.
//!
//! The rule to know: going back is going on. An old snapshot is published again with a new sequence and a note.

use std::collections::BTreeMap;

use model::{Change, Instance, Kind, Manifest, Snapshot};
use serde::Serialize;

use super::{
    Buckets, Layout, Publication, PublishError, ReadError, Rejected, Signing, Trust, Verified, What, head,
    layout::numbered,
    part, publish,
    read::{self, LARGEST_MANIFEST, malformed, read_sequence},
    seal,
};

/// One line of `keelgate backup list`.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    pub sequence: u64,
    /// None where the entry can't be read; then `problem` says why.
    pub manifest: Option<Manifest>,
    pub problem: Option<String>,
}

/// A publication, all of it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub manifest: Manifest,
    pub counts: BTreeMap<Kind, usize>,
    pub rejected: Vec<Rejected>,
    /// Secrets included: not for logs.
    #[serde(skip)]
    pub snapshot: Snapshot,
    #[serde(skip)]
    pub instance: Instance,
}

/// In what two publications differ.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub from: u64,
    pub to: u64,
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub deleted: Vec<String>,
    pub instance_changed: bool,
}

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub from: u64,
    pub manifest: Manifest,
}

/// Who writes by hand, and why.
#[derive(Clone, Debug, Default)]
pub struct Publish<'a> {
    pub writer: &'a str,
    pub signing: Option<&'a Signing>,
    pub note: Option<String>,
}

/// Every kept publication, newest first, by what the manifests say.
pub async fn list(buckets: &Buckets, group: &str, trust: &Trust) -> Result<Vec<Listed>, ReadError> {
    let layout = Layout::new(group)?;
    let entries = numbered(buckets.config.list(&layout.history()).await?);
    let mut listed = Vec::with_capacity(entries.len());
    for entry in entries {
        let read = match buckets.config.get(&entry.key, LARGEST_MANIFEST).await {
            Ok(Some(object)) => seal::open(&object.bytes, group, trust),
            // Tidied up since it was listed.
            Ok(None) => continue,
            Err(error) => Err(error.into()),
        };
        listed.push(match read {
            Ok(manifest) => Listed { sequence: entry.sequence, manifest: Some(manifest), problem: None },
            Err(error) => {
                Listed { sequence: entry.sequence, manifest: None, problem: Some(error.to_string()) }
            }
        });
    }
    Ok(listed)
}

/// One publication with its contents.
pub async fn show(buckets: &Buckets, group: &str, trust: &Trust, sequence: u64) -> Result<Shown, ReadError> {
    let verified = read_sequence(buckets, group, trust, sequence).await?;
    shown(verified)
}

/// Checks a publication (the newest, where none is named) as a data plane does before it serves it.
pub async fn verify(
    buckets: &Buckets,
    group: &str,
    trust: &Trust,
    sequence: Option<u64>,
) -> Result<Shown, ReadError> {
    match sequence {
        Some(sequence) => show(buckets, group, trust, sequence).await,
        None => shown(read::read_pointed(buckets, group, trust).await?),
    }
}

/// What changed from one publication to another.
pub async fn diff(
    buckets: &Buckets,
    group: &str,
    trust: &Trust,
    (from, to): (u64, u64),
) -> Result<Difference, ReadError> {
    let old = read_sequence(buckets, group, trust, from).await?;
    let new = read_sequence(buckets, group, trust, to).await?;
    let instance_changed = old.instance != new.instance;
    let mut difference =
        Difference { from, to, added: vec![], changed: vec![], deleted: vec![], instance_changed };
    for change in new.snapshot.changes_since(&old.snapshot) {
        match change {
            Change::Put(resource) if old.snapshot.get(&resource.key).is_some() => {
                difference.changed.push(resource.key.to_string());
            }
            Change::Put(resource) => difference.added.push(resource.key.to_string()),
            Change::Delete(key) => difference.deleted.push(key.to_string()),
        }
    }
    Ok(difference)
}

/// Publishes what an older sequence held as a new one.
pub async fn restore(
    buckets: &Buckets,
    group: &str,
    trust: &Trust,
    (sequence, by): (u64, Publish<'_>),
) -> Result<Restored, PublishError> {
    let old = read_sequence(buckets, group, trust, sequence).await.map_err(PublishError::Damaged)?;
    let note = by.note.unwrap_or_else(|| format!("restored from sequence {sequence}"));
    let manifest =
        by_hand(buckets, group, &old.snapshot, &old.instance, (by.writer, by.signing, note)).await?;
    Ok(Restored { from: sequence, manifest })
}

/// Publishes an edited `apisix.json` or `apisix.yaml`, keeping lineage, revision and instance configuration of what
/// is published now. Gives the entries it could not read too.
pub async fn publish_file(
    buckets: &Buckets,
    group: &str,
    file: &[u8],
    by: Publish<'_>,
) -> Result<(Manifest, Vec<Rejected>), PublishError> {
    let now = head(buckets, group).await?;
    let (store_id, revision) =
        now.manifest.as_ref().map_or(("", 0), |manifest| (manifest.store_id.as_str(), manifest.revision));
    let (snapshot, rejected) = part::snapshot(file, store_id, revision).map_err(PublishError::Damaged)?;
    let instance = match &now.manifest {
        Some(manifest) => {
            let bytes = part::fetch(&buckets.config, &manifest.instance, What::Instance).await;
            bytes.and_then(|bytes| part::instance(&bytes)).map_err(PublishError::Damaged)?
        }
        None => Instance::default(),
    };
    let note = by.note.unwrap_or_else(|| "published by hand".to_owned());
    let manifest = by_hand(buckets, group, &snapshot, &instance, (by.writer, by.signing, note)).await?;
    Ok((manifest, rejected))
}

/// Deletes all but the newest `keep` publications, and what no kept one names. Gives the number of deleted objects.
pub async fn prune(buckets: &Buckets, group: &str, keep: usize) -> Result<usize, PublishError> {
    let layout = Layout::new(group)?;
    let history = numbered(buckets.config.list(&layout.history()).await?);
    // The newest stays, whatever `keep` says.
    let kept = &history[..history.len().min(keep.max(1))];
    let Some(newest) = kept.first().map(|entry| entry.sequence) else { return Ok(0) };
    let mut deleted = 0;
    for entry in &history[kept.len()..] {
        buckets.config.delete(&entry.key).await?;
        deleted += 1;
    }
    let resource = buckets.resource(None)?;
    for (bucket, folder) in [(&resource, layout.snapshots()), (&buckets.config, layout.instances())] {
        for part in numbered(bucket.list(&folder).await?) {
            // Above the newest are those of a publication under way.
            if part.sequence < newest && !kept.iter().any(|entry| entry.sequence == part.sequence) {
                bucket.delete(&part.key).await?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

async fn by_hand(
    buckets: &Buckets,
    group: &str,
    snapshot: &Snapshot,
    instance: &Instance,
    (writer, signing, note): (&str, Option<&Signing>, String),
) -> Result<Manifest, PublishError> {
    let publication = Publication {
        group,
        snapshot,
        instance,
        writer,
        signing,
        expected_head: None,
        floor: 0,
        note: Some(note),
    };
    publish(buckets, &publication).await
}

fn shown(verified: Verified) -> Result<Shown, ReadError> {
    let manifest = verified.manifest.ok_or_else(|| malformed("there is none".to_owned()))?;
    let Verified { snapshot, instance, rejected, .. } = verified;
    Ok(Shown { manifest, counts: snapshot.counts(), rejected, snapshot, instance })
}
