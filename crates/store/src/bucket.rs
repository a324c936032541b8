//! Object storage: S3 and what speaks like it, Azure Blob, Google Cloud Storage, a folder.
//!
//! The rule to know: every call ends within its time limit, tries once, and fails with an [`Error`] that tells a
//! person what to change. Trying again is the caller's business ([`Backoff`]).

mod config;
mod error;
mod http;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path};

pub use config::{Azure, Config, Gcs, Local, S3};
pub use error::{Error, Kind};

/// The two buckets of a backup.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Manifests and instance configuration.
    pub config: Bucket,
    /// Snapshots. None where only the config bucket is configured: then the manifest names it.
    resource: Option<Bucket>,
    /// How to open a bucket the manifest names.
    backend: Option<Arc<Config>>,
}

impl Buckets {
    /// Opens both buckets. Does no I/O: a wrong key or a missing bucket shows at first use.
    pub fn open(config: Config) -> Result<Self, Error> {
        let names = config.buckets()?;
        let first = config.bucket(&names.config)?;
        let resource = names.resource.map(|name| config.bucket(&name)).transpose()?;
        Ok(Self { config: first, resource, backend: Some(Arc::new(config)) })
    }

    /// Over two buckets opened elsewhere.
    pub fn new(config: Bucket, resource: Bucket) -> Self {
        Self { config, resource: Some(resource), backend: None }
    }

    /// The resource bucket: the configured one, or else the one a manifest names.
    pub fn resource(&self, named: Option<&str>) -> Result<Bucket, Error> {
        if let Some(bucket) = &self.resource {
            return Ok(bucket.clone());
        }
        match (&self.backend, named) {
            (Some(backend), Some(name)) => backend.bucket(name),
            _ => Err(Error::config("`resource_bucket` is not set, and there is no manifest that names it")),
        }
    }
}

/// An object and what identifies its present content.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub etag: Option<String>,
}

/// The answer to a conditional read.
#[derive(Clone, Debug)]
pub enum Conditional {
    Missing,
    /// It still has the entity tag that was asked about.
    NotModified,
    Found(Object),
}

/// What came of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    /// The condition did not hold; nothing was written.
    Refused,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub size: u64,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect: Duration,
    /// A whole request with a small body. Larger bodies are given a second more for each [`SLOWEST`] bytes.
    pub request: Duration,
}

/// The slowest transfer that is still waited for, in bytes a second.
const SLOWEST: u64 = 256 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), request: Duration::from_secs(15) }
    }
}

/// One bucket, container or folder.
#[derive(Clone)]
pub struct Bucket {
    objects: Arc<dyn ObjectStore>,
    /// `aws_s3`, `azure_blob`, `gcs` or `local`.
    backend: &'static str,
    name: Arc<str>,
    limits: Limits,
}

impl std::fmt::Debug for Bucket {
    /// Names only: the client inside knows secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.backend, self.name)
    }
}

impl Bucket {
    pub fn new(objects: Arc<dyn ObjectStore>, backend: &'static str, name: impl Into<Arc<str>>) -> Self {
        Self { objects, backend, name: name.into(), limits: Limits::default() }
    }

    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// The whole object; none if there is no such object. Fails with [`Kind::TooLarge`] before it reads more than
    /// `limit` bytes.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, Error> {
        match self.get_unless(key, limit, None).await? {
            Conditional::Found(object) => Ok(Some(object)),
            Conditional::Missing | Conditional::NotModified => Ok(None),
        }
    }

    /// Like [`Self::get`], unless the object still has the entity tag `known`.
    pub async fn get_unless(&self, key: &str, limit: u64, known: Option<&str>) -> Result<Conditional, Error> {
        let options = GetOptions { if_none_match: known.map(str::to_owned), ..GetOptions::default() };
        let path = self.path(key)?;
        let head = self.objects.get_opts(&path, options);
        let got = match self.within(key, "read", 0, head).await {
            Ok(got) => got,
            Err(error) if error.kind == Kind::NotModified => return Ok(Conditional::NotModified),
            Err(error) if error.kind == Kind::NotFound => return Ok(Conditional::Missing),
            Err(error) => return Err(error),
        };
        let (etag, size) = (got.meta.e_tag.clone(), got.meta.size);
        if size > limit {
            return Err(self.error(
                key,
                Kind::TooLarge,
                format!("is {size} bytes; at most {limit} are accepted"),
            ));
        }
        let mut stream = got.into_stream();
        let read = async {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            while let Some(chunk) = stream.next().await {
                let chunk = chunk?;
                // The announced size is the server's word only.
                if bytes.len() as u64 + chunk.len() as u64 > limit {
                    return Ok(None);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Some(bytes))
        };
        match self.within(key, "read", size, read).await? {
            Some(bytes) => Ok(Conditional::Found(Object { bytes: bytes.into(), etag })),
            None => Err(self.error(key, Kind::TooLarge, format!("is larger than {limit} bytes"))),
        }
    }

    /// Writes it, whatever was there. Gives its entity tag.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<Option<String>, Error> {
        self.put_as(key, bytes, PutMode::Overwrite).await
    }

    /// Writes it if there is no such object. Of any number of racing writers one wins.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, Error> {
        match self.put_as(key, bytes, PutMode::Create).await {
            Ok(_) => Ok(Put::Done),
            Err(error) if matches!(error.kind, Kind::AlreadyExists | Kind::NotModified) => Ok(Put::Refused),
            Err(error) => Err(error),
        }
    }

    /// Writes it if it still has the entity tag `expected` (none: if it is still absent).
    ///
    /// Narrows the window for two writers, does not close it everywhere: a folder has no such operation and Ceph
    /// refuses every quoted tag, so there the object is read again, compared and then written.
    pub async fn put_if_match(&self, key: &str, bytes: Bytes, expected: Option<&str>) -> Result<Put, Error> {
        let Some(expected) = expected else { return self.put_if_absent(key, bytes).await };
        let version = UpdateVersion { e_tag: Some(expected.to_owned()), version: None };
        match self.put_as(key, bytes.clone(), PutMode::Update(version)).await {
            Ok(_) => return Ok(Put::Done),
            Err(error) if matches!(error.kind, Kind::AlreadyExists | Kind::Unsupported) => {}
            Err(error) => return Err(error),
        }
        if self.etag(key).await?.as_deref() != Some(expected) {
            return Ok(Put::Refused);
        }
        self.put(key, bytes).await.map(|_| Put::Done)
    }

    /// Deletes it. Not there is as good as deleted.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let path = self.path(key)?;
        let locations = futures_util::stream::once(std::future::ready(Ok(path))).boxed();
        let deleted =
            async { self.objects.delete_stream(locations).collect::<Vec<_>>().await.into_iter().collect() };
        match self.within::<Vec<Path>>(key, "delete", 0, deleted).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    /// Every object whose key starts with the folder `prefix`.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let path = self.path(prefix)?;
        let listing = async {
            let mut entries = Vec::new();
            let mut stream = self.objects.list(Some(&path));
            while let Some(meta) = stream.next().await {
                let meta = meta?;
                entries.push(Entry { key: meta.location.to_string(), size: meta.size });
            }
            Ok(entries)
        };
        match self.within(prefix, "list", 0, listing).await {
            Err(error) if error.kind == Kind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    async fn put_as(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Option<String>, Error> {
        let (path, size) = (self.path(key)?, bytes.len() as u64);
        let put = self.objects.put_opts(&path, PutPayload::from_bytes(bytes), PutOptions::from(mode));
        self.within(key, "write", size, put).await.map(|result| result.e_tag)
    }

    async fn etag(&self, key: &str) -> Result<Option<String>, Error> {
        let (path, options) = (self.path(key)?, GetOptions { head: true, ..GetOptions::default() });
        match self.within(key, "read", 0, self.objects.get_opts(&path, options)).await {
            Ok(got) => Ok(got.meta.e_tag),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the time limit and words the failure.
    async fn within<T>(
        &self,
        key: &str,
        action: &'static str,
        size: u64,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let limit = self.limits.request + Duration::from_secs(size / SLOWEST);
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(error::classify(self, key, action, &error)),
            Err(_) => Err(self.error(key, Kind::TimedOut, format!("no answer within {limit:?}"))),
        }
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        Path::parse(key).map_err(|error| self.error(key, Kind::Config, error.to_string()))
    }

    fn error(&self, key: &str, kind: Kind, reason: impl Into<String>) -> Error {
        Error {
            kind,
            backend: self.backend,
            bucket: self.name.to_string(),
            key: key.to_owned(),
            reason: reason.into(),
        }
    }
}

/// How long to wait before the next try: full jitter between nothing and a ceiling that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    ceiling: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { ceiling: first, first, most }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(rand::random::<f64>());
        self.ceiling = (self.ceiling * 2).min(self.most);
        wait
    }

    /// It worked: starts over.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests;
