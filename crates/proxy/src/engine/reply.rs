//! Answers of the gateway's own, when no plugin has made one.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::plugin::Reply;

/// APISIX's answer where no route matches.
pub fn no_route() -> Reply {
    const BODY: &[u8] = b"{\"error_msg\":\"404 Route Not Found\"}\n";
    let mut reply =
        Reply { status: StatusCode::NOT_FOUND, body: Bytes::from_static(BODY), ..Reply::default() };
    reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

/// The page nginx and APISIX show for an error.
pub fn error(status: StatusCode) -> Reply {
    let title = format!("{} {}", status.as_u16(), reason(status));
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         </body>\r\n</html>\r\n"
    );
    let mut reply = Reply { status, body: page.into(), ..Reply::default() };
    reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    reply
}

/// nginx's wording, where it is not the standard's.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => "Service Temporarily Unavailable",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        StatusCode::METHOD_NOT_ALLOWED => "Not Allowed",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}
