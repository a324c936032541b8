//! Answers of the gateway's own, when no plugin has made one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::h1::write_field;
use crate::plugin::Reply;

/// APISIX's answer where no route matches.
pub fn no_route() -> Reply {
    const BODY: &[u8] = b"{\"error_msg\":\"404 Route Not Found\"}\n";
    let mut reply =
        Reply { status: StatusCode::NOT_FOUND, body: Bytes::from_static(BODY), ..Reply::default() };
    reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

/// The answer while no configuration has ever been in force: a route that is missing then is no route that is not
/// there.
pub fn no_configuration() -> Reply {
    const BODY: &[u8] =
        b"{\"error_msg\":\"503 no configuration yet: nothing has been received since the start\"}\n";
    let mut reply =
        Reply { status: StatusCode::SERVICE_UNAVAILABLE, body: Bytes::from_static(BODY), ..Reply::default() };
    reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// The page nginx and APISIX show for an error.
pub fn error(status: StatusCode) -> Reply {
    let title = format!("{} {}", status.as_u16(), reason(status));
    page(status, &title, &format!("<center><h1>{title}</h1></center>"))
}

/// nginx's own 494, which it gives out as 400: the head, or a part of it, is too large.
pub fn head_too_large() -> Reply {
    bad_request("Request Header Or Cookie Too Large")
}

/// nginx's own 497, which it gives out as 400.
pub fn plain_to_tls() -> Reply {
    bad_request("The plain HTTP request was sent to HTTPS port")
}

fn bad_request(what: &str) -> Reply {
    let text = format!("<center><h1>400 Bad Request</h1></center>\r\n<center>{what}</center>");
    page(StatusCode::BAD_REQUEST, &format!("400 {what}"), &text)
}

/// The last line is that of OpenResty, which APISIX runs on.
fn page(status: StatusCode, title: &str, text: &str) -> Reply {
    let page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n{text}\r\n\
         <hr><center>openresty</center>\r\n</body>\r\n</html>\r\n"
    );
    let mut reply = Reply { status, body: page.into(), ..Reply::default() };
    reply.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    reply
}

/// A plugin's answer. Where it says no more than a status, it gets the page.
pub fn complete(mut reply: Reply) -> Reply {
    let needs_none = reply.status.as_u16() < 300 || reply.status == StatusCode::NOT_MODIFIED;
    if reply.body.is_empty() && !needs_none {
        let page = error(reply.status);
        reply.body = page.body;
        reply.headers.extend(page.headers);
    }
    reply
}

/// An answer as bytes, for a connection on which HTTP has ended.
pub fn on_the_wire(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let mut out = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), reason(status)).into_bytes();
    write_field(&mut out, "date", date.as_bytes());
    write_field(&mut out, "content-length", body.len().to_string().as_bytes());
    for (name, value) in headers {
        write_field(&mut out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// nginx's wording, where it is not the standard's.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "Authorization Required",
        StatusCode::REQUEST_TIMEOUT => "Request Time-out",
        StatusCode::URI_TOO_LONG => "Request-URI Too Large",
        StatusCode::SERVICE_UNAVAILABLE => "Service Temporarily Unavailable",
        StatusCode::GATEWAY_TIMEOUT => "Gateway Time-out",
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        StatusCode::METHOD_NOT_ALLOWED => "Not Allowed",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_gets_a_page() {
        let found = complete(Reply::empty(StatusCode::FOUND));
        assert!(found.body.starts_with(b"<html>\r\n<head><title>302 Found</title>"), "{found:?}");
        assert_eq!(found.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        for status in [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            assert!(complete(Reply::empty(status)).body.is_empty(), "{status}");
        }
        assert_eq!(complete(Reply::message(StatusCode::FORBIDDEN, "no")).body, "{\"message\":\"no\"}\n");
    }
}
