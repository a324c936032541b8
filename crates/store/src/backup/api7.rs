//! The objects API7 writes, which have no manifest: resources under the group's name in one bucket, instance
//! configuration under the same name in the other; first as YAML, then as JSON.
//!
//! The rule to know: they carry no sequence and no proof, so they are taken only where no manifest was ever seen.

use super::{
    Buckets, Known, Latest, Layout, ReadError, Verified,
    part::{self, LARGEST_INSTANCE, LARGEST_SNAPSHOT},
};
use crate::bucket::Conditional;

/// Marks our combination of two entity tags.
const TAGS: &str = "api7 ";

pub(super) async fn read(buckets: &Buckets, layout: &Layout, known: &Known) -> Result<Latest, ReadError> {
    let nothing =
        || ReadError::Nothing { group: layout.group().to_owned(), bucket: format!("{:?}", buckets.config) };
    let Ok(resource_bucket) = buckets.resource(None) else { return Err(nothing()) };
    let (resource_tag, instance_tag) = known.api7_tags();
    let mirror = layout.mirror();
    let resource = resource_bucket.get_unless(mirror, LARGEST_SNAPSHOT, resource_tag).await?;
    let instance = buckets.config.get_unless(mirror, LARGEST_INSTANCE, instance_tag).await?;
    let resource = match (resource, &instance) {
        (Conditional::NotModified, Conditional::NotModified) => return Ok(Latest::NotModified),
        (Conditional::Found(object), _) => object,
        (Conditional::NotModified, _) => {
            resource_bucket.get(mirror, LARGEST_SNAPSHOT).await?.ok_or_else(nothing)?
        }
        (Conditional::Missing, _) => return Err(nothing()),
    };
    let instance = match instance {
        Conditional::Found(object) => Some(object),
        Conditional::NotModified => buckets.config.get(mirror, LARGEST_INSTANCE).await?,
        Conditional::Missing => None,
    };
    let etag = tags(resource.etag.as_deref(), instance.as_ref().and_then(|object| object.etag.as_deref()));
    let parsing = move || -> Result<Verified, ReadError> {
        let (snapshot, rejected) = part::snapshot(&resource.bytes, "", 0)?;
        let instance_bytes = instance.map(|object| object.bytes).unwrap_or_default();
        let instance = if instance_bytes.is_empty() {
            model::Instance::default()
        } else {
            part::instance(&instance_bytes)?
        };
        let digest = part::digest_of(&part::sha256(&resource.bytes), &part::sha256(&instance_bytes));
        Ok(Verified { manifest: None, snapshot, instance, rejected, digest, etag, fallen_back: None })
    };
    let parsed = tokio::task::spawn_blocking(parsing).await;
    let verified = parsed.map_err(|error| super::read::malformed(error.to_string()))??;
    Ok(Latest::New(Box::new(verified)))
}

fn tags(resource: Option<&str>, instance: Option<&str>) -> Option<String> {
    Some(format!("{TAGS}{}|{}", resource?, instance.unwrap_or_default()))
}

impl Known {
    /// The manifest's entity tag.
    pub(super) fn etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with(TAGS))
    }

    fn api7_tags(&self) -> (Option<&str>, Option<&str>) {
        match self
            .etag
            .as_deref()
            .and_then(|etag| etag.strip_prefix(TAGS))
            .and_then(|tags| tags.split_once('|'))
        {
            Some((resource, instance)) => (Some(resource), Some(instance).filter(|tag| !tag.is_empty())),
            None => (None, None),
        }
    }
}
