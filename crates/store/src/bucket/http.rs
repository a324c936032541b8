//! Keeps what a server says when it refuses, which object_store reduces to a status and a text.
//!
//! The rule to know: every answer that is not a success becomes a [`Refusal`] in the error's chain of sources.

use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService, ReqwestConnector,
};

/// What a server said instead of yes.
#[derive(Debug, Default, thiserror::Error)]
#[error("{status} {code} {message}")]
pub(super) struct Refusal {
    pub status: u16,
    /// `NoSuchBucket`, `AccessDenied`, …; empty where the answer has none.
    pub code: String,
    pub message: String,
    /// The region the bucket is in, where the answer tells.
    pub region: Option<String>,
    /// How many seconds this machine's clock is ahead of the server's, by its `Date`.
    pub ahead: Option<i64>,
}

/// Answers of refusal are read no further than this.
const LONGEST: usize = 64 * 1024;

/// Connects as object_store does by default, and explains refusals.
#[derive(Debug)]
pub(super) struct Explaining;

impl HttpConnector for Explaining {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Explained(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Explained(HttpClient);

#[async_trait]
impl HttpService for Explained {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(HttpError::new(HttpErrorKind::Unknown, explain(response).await))
    }
}

async fn explain(response: HttpResponse) -> Refusal {
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ahead = header("date").and_then(|date| seconds_ahead_of(&date));
    let region = header("x-amz-bucket-region");
    // Azure names the code in a header too, also where the answer has no body.
    let code = header("x-ms-error-code");
    let mut text = Vec::new();
    let mut body = response.into_body().bytes_stream();
    while let Some(Ok(chunk)) = body.next().await {
        text.extend_from_slice(&chunk[..chunk.len().min(LONGEST - text.len())]);
        if text.len() == LONGEST {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let message = element(&text, "Message").or_else(|| element(&text, "ErrorDescription"));
    Refusal {
        status,
        code: code.or_else(|| element(&text, "Code")).or_else(|| element(&text, "Error")).unwrap_or_default(),
        message: message.unwrap_or_default(),
        region: region.or_else(|| element(&text, "Region")),
        ahead,
    }
}

/// The text of the first XML element of that name, if it holds nothing but text.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    (!inside.contains('<')).then(|| inside.trim().to_owned())
}

fn seconds_ahead_of(date: &str) -> Option<i64> {
    let server = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    let here = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
    Some((here - server.to_utc()).num_seconds())
}
