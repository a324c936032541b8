//! Which object storage, and how it is reached. Field names are those of `fallback_cp` in `config.yaml`.
//!
//! The rule to know: `Debug` shows no secret.

use std::{fmt, path::PathBuf, sync::Arc};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem,
};
use serde::{Deserialize, Serialize};

use super::{Bucket, Error, Limits, http::Explaining};

/// One back end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    AwsS3(S3),
    AzureBlob(Azure),
    Gcs(Gcs),
    Local(Local),
}

/// `aws_s3`: Amazon's, or any server that speaks its protocol. Without keys: instance role, web identity, environment.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct S3 {
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub session_token: Option<String>,
    pub region: Option<String>,
    #[serde(alias = "bucket")]
    pub config_bucket: Option<String>,
    pub resource_bucket: Option<String>,
    /// `http://` or `https://`, host and port; not set: Amazon's.
    #[serde(alias = "custom_endpoint")]
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`. Not set: yes where there is an `endpoint`.
    pub use_path_style: Option<bool>,
}

/// `azure_blob`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Azure {
    pub account_name: String,
    pub account_key: Option<String>,
    #[serde(alias = "container")]
    pub config_container: Option<String>,
    pub resource_container: Option<String>,
    pub endpoint: Option<String>,
}

/// `gcs`: Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Gcs {
    pub service_account_path: Option<String>,
    #[serde(alias = "bucket")]
    pub config_bucket: Option<String>,
    pub resource_bucket: Option<String>,
    pub endpoint: Option<String>,
}

/// `local`: two folders, made if they are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Local {
    pub config_dir: PathBuf,
    pub resource_dir: Option<PathBuf>,
}

pub(super) struct Names {
    pub config: String,
    pub resource: Option<String>,
}

impl Config {
    /// `aws_s3`, `azure_blob`, `gcs` or `local`.
    pub const fn backend(&self) -> &'static str {
        match self {
            Self::AwsS3(_) => "aws_s3",
            Self::AzureBlob(_) => "azure_blob",
            Self::Gcs(_) => "gcs",
            Self::Local(_) => "local",
        }
    }

    /// What can't be meant, before anything is tried: keys below the back end's name, and what is wrong with each.
    /// A back end that is written to must name both buckets.
    pub fn flaws(&self, written: bool) -> Vec<(&'static str, String)> {
        let (endpoint, resource) = match self {
            Self::AwsS3(s3) => (&s3.endpoint, ("resource_bucket", s3.resource_bucket.is_some())),
            Self::AzureBlob(azure) => {
                (&azure.endpoint, ("resource_container", azure.resource_container.is_some()))
            }
            Self::Gcs(gcs) => (&gcs.endpoint, ("resource_bucket", gcs.resource_bucket.is_some())),
            Self::Local(local) => (&None, ("resource_dir", local.resource_dir.is_some())),
        };
        let mut flaws = Vec::new();
        if let Some(error) = endpoint.as_deref().and_then(|endpoint| no_endpoint(endpoint).err()) {
            flaws.push(("endpoint", error));
        }
        if let Self::AwsS3(s3) = self {
            match (&s3.access_key, &s3.secret_key) {
                (Some(_), None) => flaws.push(("access_key", "`secret_key` goes with it".to_owned())),
                (None, Some(_)) => flaws.push(("secret_key", "`access_key` goes with it".to_owned())),
                _ => {}
            }
        }
        if written && !resource.1 {
            flaws.push((resource.0, "it is missing: snapshots are written there".to_owned()));
        }
        flaws
    }

    pub(super) fn buckets(&self) -> Result<Names, Error> {
        let (config, resource) = match self {
            Self::AwsS3(s3) => (s3.config_bucket.clone(), s3.resource_bucket.clone()),
            Self::AzureBlob(azure) => (azure.config_container.clone(), azure.resource_container.clone()),
            Self::Gcs(gcs) => (gcs.config_bucket.clone(), gcs.resource_bucket.clone()),
            Self::Local(local) => (Some(text(&local.config_dir)), local.resource_dir.as_deref().map(text)),
        };
        let backend = self.backend();
        let config = config
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::config(format!("{backend}: the config bucket is not named")))?;
        if resource.as_ref() == Some(&config) {
            return Err(Error::config(format!("{backend}: both buckets are `{config}`; they must differ")));
        }
        Ok(Names { config, resource })
    }

    /// Opens a bucket of this back end by name.
    pub(super) fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let limits = Limits::default();
        let objects = match self {
            Self::AwsS3(s3) => s3.open(name, limits),
            Self::AzureBlob(azure) => azure.open(name, limits),
            Self::Gcs(gcs) => gcs.open(name, limits),
            Self::Local(_) => folder(name),
        };
        let objects =
            objects.map_err(|error| Error::config(format!("{} bucket `{name}`: {error}", self.backend())))?;
        Ok(Bucket::new(objects, self.backend(), name).with_limits(limits))
    }
}

/// Whether clients of object storage could use this as the address of a server. Theirs panic where they can't.
fn no_endpoint(endpoint: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        // There may be a password before an `@`.
        let shown = endpoint.rsplit('@').next().unwrap_or_default();
        format!("`{shown}` {why}; right would be http://127.0.0.1:9000 or https://storage.example.com")
    };
    if endpoint.trim() != endpoint {
        return Err(wrong("begins or ends with a blank"));
    }
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(wrong("must begin with http:// or https://"));
    }
    let uri: http::Uri = endpoint.parse().map_err(|error| wrong(&format!("is no URL: {error}")))?;
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return Err(wrong("names no host"));
    };
    let after_host = authority.as_str().rsplit(authority.host()).next().unwrap_or_default();
    if !after_host.is_empty() && authority.port_u16().is_none() {
        return Err(wrong("has no port between 0 and 65535"));
    }
    if uri.query().is_some() { Err(wrong("has a query")) } else { Ok(()) }
}

type Opened = object_store::Result<Arc<dyn ObjectStore>>;

impl S3 {
    fn open(&self, name: &str, limits: Limits) -> Opened {
        // Keys of our own or the ambient ones, never a mixture: `from_env` would let AWS_SESSION_TOKEN of some
        // other user slip in beside configured keys.
        let keys = self.access_key.as_deref().zip(self.secret_key.as_deref());
        let mut builder = match keys {
            Some((access, secret)) => {
                AmazonS3Builder::new().with_access_key_id(access).with_secret_access_key(secret)
            }
            None => AmazonS3Builder::from_env(),
        };
        if let Some(token) = &self.session_token {
            builder = builder.with_token(token);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        let path_style = self.use_path_style.unwrap_or(self.endpoint.is_some());
        if let Some(endpoint) = &self.endpoint {
            // For the virtual-hosted style the builder wants the bucket as part of the endpoint.
            let endpoint = match endpoint.split_once("://") {
                Some((scheme, host)) if !path_style => format!("{scheme}://{name}.{host}"),
                _ => endpoint.clone(),
            };
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let builder = builder
            .with_bucket_name(name)
            .with_virtual_hosted_style_request(!path_style)
            // Not every server knows the request for many, and its refusals are hidden in a 200.
            .with_disable_bulk_delete(true)
            .with_client_options(options(limits))
            .with_http_connector(Explaining)
            .with_retry(once());
        Ok(Arc::new(builder.build()?))
    }
}

impl Azure {
    fn open(&self, name: &str, limits: Limits) -> Opened {
        let mut builder = match &self.account_key {
            Some(key) => MicrosoftAzureBuilder::new().with_access_key(key),
            None => MicrosoftAzureBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let builder = builder
            .with_account(&self.account_name)
            .with_container_name(name)
            .with_client_options(options(limits))
            .with_http_connector(Explaining)
            .with_retry(once());
        Ok(Arc::new(builder.build()?))
    }
}

impl Gcs {
    fn open(&self, name: &str, limits: Limits) -> Opened {
        let mut builder = match &self.service_account_path {
            Some(path) => GoogleCloudStorageBuilder::new().with_service_account_path(path),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        let builder = builder
            .with_bucket_name(name)
            .with_client_options(options(limits))
            .with_http_connector(Explaining)
            .with_retry(once());
        Ok(Arc::new(builder.build()?))
    }
}

fn folder(name: &str) -> Opened {
    std::fs::create_dir_all(name)
        .map_err(|error| object_store::Error::Generic { store: "local", source: Box::new(error) })?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(name)?.with_fsync(true)))
}

fn options(limits: Limits) -> ClientOptions {
    // The whole request is timed by `Bucket`, which knows how large the body is.
    ClientOptions::new().with_allow_http(true).with_connect_timeout(limits.connect).with_timeout_disabled()
}

fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn text(path: impl AsRef<std::path::Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("access_key", &self.access_key)
            .field("secret_key", &self.secret_key.as_ref().map(|_| "…"))
            .field("region", &self.region)
            .field("config_bucket", &self.config_bucket)
            .field("resource_bucket", &self.resource_bucket)
            .field("endpoint", &self.endpoint)
            .field("use_path_style", &self.use_path_style)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure")
            .field("account_name", &self.account_name)
            .field("config_container", &self.config_container)
            .field("resource_container", &self.resource_container)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
