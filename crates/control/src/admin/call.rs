//! A request taken apart: path segments, query, JSON body.
//!
//! The rule to know: the path is decoded first and split then, as nginx does it, so a segment never holds a `/`.

use std::time::Duration;

use axum::{body::Body, extract::Query};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Uri,
    header::{CONTENT_LENGTH, EXPECT},
};
use http_body_util::BodyExt as _;
use model::number;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{answer::Answer, cjson};

/// The largest body taken: APISIX's 1.5 MiB.
pub const MAX_BODY: usize = 1_572_864;

/// The largest whole configuration taken; APISIX sets no limit.
pub const MAX_WHOLE: usize = 256 * 1024 * 1024;

/// How long a body that is too big is read on: nginx's `lingering_time`.
const LINGER: Duration = Duration::from_secs(30);

/// The query, decoded. Where a name is given twice the first counts.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<(String, String)>);

impl Args {
    pub fn of(uri: &Uri) -> Self {
        Query::try_from_uri(uri).map(|Query(pairs)| Self(pairs)).unwrap_or_default()
    }

    /// The pairs in a text, as in `filter=service_id%3D1`.
    pub fn parse(text: &str) -> Self {
        let decode =
            |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `ttl`, in whole seconds; none for 0.
    pub fn ttl(&self) -> Result<Option<u64>, Answer> {
        let Some(text) = self.get("ttl") else { return Ok(None) };
        match text.trim().parse::<f64>() {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be in range"
            )]
            Ok(seconds) if (0.0..1e15).contains(&seconds) => {
                Ok(Some(seconds.ceil() as u64).filter(|seconds| *seconds > 0))
            }
            _ => Err(Answer::bad("invalid argument ttl: should be a number")),
        }
    }
}

/// The segments of a path after `/apisix/admin`; none of another path. Empty segments, `.` and `..` are resolved.
pub fn segments(path: &str) -> Option<Vec<String>> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            name => segments.push(name.to_owned()),
        }
    }
    let own = segments.split_off(segments.len().min(2));
    (segments == ["apisix", "admin"]).then_some(own)
}

/// The bytes of a body, refused when there are more than `largest`.
pub async fn bytes(headers: &HeaderMap, mut body: Body, largest: usize) -> Result<Bytes, Answer> {
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(size) = told.filter(|size| *size > largest as u64) {
        // Who waits to be asked for the body has sent nothing yet.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(Answer::bad(format!(
            "invalid request body: request size {size} is greater than the maximum size {largest} allowed"
        )));
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Answer::bad(format!("invalid request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > largest {
            drain(body).await;
            return Err(Answer::bad(format!(
                "invalid request body: request size is greater than the maximum size {largest} allowed"
            )));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Reads what is still sent and throws it away: who is cut off while sending does not read the answer.
async fn drain(mut body: Body) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, all).await;
}

/// The JSON in a body; none where the body is empty.
pub fn json_body(bytes: &[u8]) -> Result<Option<Value>, Answer> {
    if bytes.is_empty() {
        return Ok(None);
    }
    parse(bytes).map(Some).map_err(|reason| {
        let body = String::from_utf8_lossy(bytes);
        Answer::json(
            http::StatusCode::BAD_REQUEST,
            json!({ "error_msg": format!("invalid request body: {reason}"), "req_body": body }),
        )
    })
}

/// Parses JSON as APISIX does, its numbers settled, with its words for what is wrong.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let lenient =
        |error| serde_json::from_slice(&escape_controls(bytes)).map_err(|_: serde_json::Error| error);
    let mut value = serde_json::from_slice(bytes)
        .or_else(lenient)
        .map_err(|error| cjson::complaint(bytes).unwrap_or_else(|| told(&error)))?;
    number::settle(&mut value);
    Ok(value)
}

fn told(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    match reason.strip_prefix("recursion limit exceeded") {
        Some(place) => format!("more than 127 levels of objects and lists in each other{place}"),
        None => reason,
    }
}

/// Line feeds and tabs inside strings are no JSON, but APISIX takes them, and users paste whole `.proto` files.
fn escape_controls(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(bytes.len() + 64);
    let (mut in_string, mut after_backslash) = (false, false);
    for &byte in bytes {
        if in_string && byte < 0x20 {
            escaped.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            escaped.push(byte);
        }
        in_string ^= byte == b'"' && !after_backslash;
        after_backslash = in_string && byte == b'\\' && !after_backslash;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn paths_are_split_as_nginx_does() {
        for (path, own) in [
            ("/apisix/admin/routes//1/", "routes 1"),
            ("/apisix/admin/routes/a%2Fb", "routes a b"),
            ("//apisix/admin/routes", "routes"),
            ("/apisix//admin/./routes/1/../2", "routes 2"),
            ("/x/%2e%2e/apisix/%2E/admin/routes/.", "routes"),
            ("/apisix/admin/", ""),
        ] {
            assert_eq!(segments(path).map(|own| own.join(" ")).as_deref(), Some(own), "{path}");
        }
        for path in ["/", "/apisix", "/apisix/adminx", "/apisix/admin/../v1", "/../apisix/admin", "*"] {
            assert_eq!(segments(path), None, "{path}");
        }
    }

    #[test]
    fn line_feeds_in_strings_are_taken() {
        let body = "{\"a\": \"x\\\"\ny\",\n\"b\": 1}";
        assert_eq!(json_body(body.as_bytes()).unwrap(), Some(json!({ "a": "x\"\ny", "b": 1 })));
        assert!(json_body(b"{a}").is_err());
        assert_eq!(json_body(b"").unwrap(), None);
    }

    #[test]
    fn what_is_too_deep_is_told() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(deep(127).as_bytes()).is_ok());
        let error = parse(deep(128).as_bytes()).unwrap_err();
        assert_eq!(error, "more than 127 levels of objects and lists in each other at line 1 column 128");
    }

    #[tokio::test]
    async fn a_body_that_is_too_big_is_read_to_its_end() {
        let taken = Arc::new(AtomicUsize::new(0));
        let pieces = |taken: &Arc<AtomicUsize>| {
            let taken = taken.clone();
            let pieces = (0..10).map(move |_| {
                taken.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Bytes::from_static(b"1234567890"))
            });
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let none = HeaderMap::new();
        let answer = bytes(&none, pieces(&taken), 25).await.unwrap_err();
        assert_eq!((answer.status.as_u16(), taken.swap(0, Ordering::Relaxed)), (400, 10));
        let mut told = HeaderMap::from_iter([(CONTENT_LENGTH, 100.into())]);
        bytes(&told, pieces(&taken), 25).await.unwrap_err();
        assert_eq!(taken.swap(0, Ordering::Relaxed), 10);
        told.insert(EXPECT, http::HeaderValue::from_static("100-continue"));
        bytes(&told, pieces(&taken), 25).await.unwrap_err();
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        assert_eq!(bytes(&none, pieces(&taken), 100).await.unwrap().len(), 100);
    }

    #[test]
    fn ttl_is_a_number_of_seconds() {
        let ttl = |text: &str| Args::of(&format!("/?ttl={text}").parse().unwrap()).ttl().ok();
        assert_eq!(ttl("5"), Some(Some(5)));
        assert_eq!(ttl("1.2"), Some(Some(2)));
        assert_eq!(ttl("0"), Some(None));
        assert_eq!(ttl("-1"), None);
        assert_eq!(ttl("xxx"), None);
    }
}
