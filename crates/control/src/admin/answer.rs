//! What the Admin API answers, in APISIX's shapes.
//!
//! The rule to know: a refusal is an [`Answer`] too, so handlers return `Result<Answer, Answer>` and use `?`.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

/// A status and a body, not yet dressed with the headers every answer has.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Content,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// APISIX answers JSON with a line feed, and a few places with bare text.
#[derive(Debug)]
pub enum Content {
    Empty,
    Json(Value),
    Text(String),
}

/// What a handler gives: an answer, or a refusal on its way out.
pub type Outcome = Result<Answer, Answer>;

impl Answer {
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self { status, body: Content::Json(body), headers: vec![] }
    }

    pub fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, body: Content::Text(body.into()), headers: vec![] }
    }

    pub fn empty(status: StatusCode) -> Self {
        Self { status, body: Content::Empty, headers: vec![] }
    }

    /// Adds a header; one that can't be sent is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// `{"error_msg":"…"}`.
    pub fn refusal(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::json(status, json!({ "error_msg": reason.into() }))
    }

    /// 400 `{"error_msg":"…"}`.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::refusal(StatusCode::BAD_REQUEST, reason)
    }

    /// 404 as APISIX passes it on from etcd.
    pub fn no_such_key() -> Self {
        Self::json(StatusCode::NOT_FOUND, json!({ "message": "Key not found" }))
    }

    /// 404 for a path that means nothing.
    pub fn no_such_path() -> Self {
        Self::refusal(StatusCode::NOT_FOUND, "not found")
    }
}

/// A store's error, by what the client can do about it.
impl From<store::Error> for Answer {
    fn from(error: store::Error) -> Self {
        use store::Error;
        let status = match &error {
            Error::Unavailable { .. } | Error::Conflict { .. } | Error::Compacted { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Error::ReadOnly(_) => StatusCode::FORBIDDEN,
            Error::Corrupt { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::warn!(%error, status = status.as_u16(), "the store refused an admin request");
        Self::refusal(status, error.to_string())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = match self.body {
            Content::Empty => Body::empty(),
            Content::Text(text) => Body::from(text),
            Content::Json(value) => {
                let mut text = value.to_string();
                text.push('\n');
                Body::from(text)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // One given by a handler takes the place of the one above.
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
