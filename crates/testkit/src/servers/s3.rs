//! A small S3 client that a test can make lie: about its keys, its region, its clock.
//!
//! Signs by AWS's Signature Version 4; path-style addresses only.

use std::fmt::Write;

use anyhow::{Result, ensure};
use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::{Response, request};

/// What a signature leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// An S3 endpoint and the keys to it.
#[derive(Debug, Clone)]
pub struct S3 {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    /// How far our clock is off.
    pub skew: TimeDelta,
}

impl S3 {
    pub fn new(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let [endpoint, access_key, secret_key] = [endpoint, access_key, secret_key].map(str::to_owned);
        Self { endpoint, access_key, secret_key, region: "us-east-1".into(), skew: TimeDelta::zero() }
    }

    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.must(Method::PUT, &format!("/{bucket}"), "").await.map(|_| ())
    }

    /// The keys in a bucket that begin with a prefix, sorted; a thousand at most.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let query = format!("/{bucket}?list-type=2&prefix={}", utf8_percent_encode(prefix, UNRESERVED));
        let text = self.must(Method::GET, &query, "").await?.text();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        Ok(keys.map(|(key, _)| key.replace("&amp;", "&").replace("&quot;", "\"")).collect())
    }

    pub async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        Ok(self.must(Method::GET, &path(bucket, key), "").await?.body)
    }

    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Result<()> {
        self.must(Method::PUT, &path(bucket, key), body).await.map(|_| ())
    }

    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.must(Method::DELETE, &path(bucket, key), "").await.map(|_| ())
    }

    /// Replaces an object by what `change` makes of it: cut off, a bit flipped, whatever.
    pub async fn corrupt(&self, bucket: &str, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut body = self.get(bucket, key).await?.to_vec();
        change(&mut body);
        self.put(bucket, key, body).await
    }

    async fn must(&self, method: Method, target: &str, body: impl Into<Bytes>) -> Result<Response> {
        let response = self.request(method.clone(), target, &[], body).await?;
        ensure!(
            (200..300).contains(&response.status),
            "{method} {target}: {} {}",
            response.status,
            response.text()
        );
        Ok(response)
    }

    /// A signed request for a path with its query, both percent-encoded, parameters in alphabetical order.
    pub async fn request(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response> {
        let url = format!("{}{target}", self.endpoint);
        let body = body.into();
        let signed = self.sign("s3", &method, &url, &body);
        let mut all = headers.to_vec();
        all.extend(signed.iter().map(|(name, value)| (*name, value.as_str())));
        request(method, &url, &all, body).await
    }

    /// The headers that sign a request to a service of AWS.
    pub fn sign(
        &self,
        service: &str,
        method: &Method,
        url: &str,
        body: &[u8],
    ) -> [(&'static str, String); 3] {
        let time = (Utc::now() + self.skew).format("%Y%m%dT%H%M%SZ").to_string();
        let (day, _) = time.split_at(8);
        let hash = hex::encode(digest::digest(&digest::SHA256, body));
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        let query = canonical_query(query);
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{time}\n\n\
             host;x-amz-content-sha256;x-amz-date\n{hash}"
        );
        let scope = format!("{day}/{}/{service}/aws4_request", self.region);
        let canonical_hash = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical_hash}");
        let secret = format!("AWS4{}", self.secret_key).into_bytes();
        let key =
            [day, &self.region, service, "aws4_request"].iter().fold(secret, |key, part| mac(&key, part));
        let signature = hex::encode(mac(&key, &to_sign));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
             Signature={signature}",
            self.access_key
        );
        [("x-amz-date", time), ("x-amz-content-sha256", hash), ("authorization", authorization)]
    }
}

fn path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", utf8_percent_encode(key, IN_PATH))
}

/// Sorted, and `=` after a name without a value.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    pairs.iter().fold(String::new(), |mut all, pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let separator = if all.is_empty() { "" } else { "&" };
        let _ = write!(all, "{separator}{name}={value}");
        all
    })
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
