//! The request's head for a stream of HTTP/2, as gRPC wants it.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use model::byte_text;

use super::{FORWARDED_FOR, REAL_IP, UNSAFE, is_ours};
use crate::{
    ctx::Ctx,
    engine::{client::Client, h1::Error},
};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The head for an upstream called `host`, whose body is so long, if that is known.
pub fn for_stream(
    ctx: &Ctx,
    client: &Client,
    host: &[u8],
    length: Option<u64>,
) -> Result<Request<()>, Error> {
    let request = &ctx.request;
    let target = match &request.upstream_target {
        None => Cow::Borrowed(request.target()),
        Some(target) => {
            percent_encoding::percent_encode(&byte_text::write(target), UNSAFE).to_string().into()
        }
    };
    let tls = ctx.upstream.as_ref().is_some_and(|upstream| upstream.scheme.is_tls());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(host).map_err(|_| Error::Unsendable("host"))?);
    parts.path_and_query =
        Some(PathAndQuery::try_from(&*target).map_err(|_| Error::Unsendable("request target"))?);
    let mut head = Request::new(());
    *head.uri_mut() = Uri::from_parts(parts).map_err(|_| Error::Unsendable("request target"))?;
    *head.method_mut() = request.method.clone();
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = fields(ctx, client, length);
    Ok(head)
}

fn fields(ctx: &Ctx, client: &Client, length: Option<u64>) -> HeaderMap {
    let headers = &ctx.request.headers;
    let mut fields = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let stays = is_ours(name);
        if !stays && *name != header::CONTENT_LENGTH {
            fields.append(name, value.clone());
        }
    }
    if let Some(length) = length.filter(|length| *length > 0 || headers.contains_key(header::CONTENT_LENGTH))
    {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    if !fields.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        fields.insert(header::CONTENT_TYPE, GRPC);
    }
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    let address = address(ctx, client);
    fields.insert(FORWARDED_FOR, forwarded_for(headers, &address));
    fields.insert(REAL_IP, address);
    fields
}

/// Whether it is gRPC's type, whichever way its messages are written.
fn is_grpc(kind: &HeaderValue) -> bool {
    let rest = kind.as_bytes().strip_prefix(GRPC.as_bytes());
    rest.is_some_and(|rest| rest.first().is_none_or(|next| matches!(next, b'+' | b';')))
}

fn address(ctx: &Ctx, client: &Client) -> HeaderValue {
    if ctx.client == client.peer {
        return client.peer_text.clone();
    }
    let text = ctx.client.ip().to_canonical().to_string();
    HeaderValue::try_from(text).unwrap_or_else(|_| client.peer_text.clone())
}

/// What came with the request, with the client at its end.
fn forwarded_for(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
    let mut list = BytesMut::new();
    for before in headers.get_all(FORWARDED_FOR) {
        list.put_slice(before.as_bytes());
        list.put_slice(b", ");
    }
    if list.is_empty() {
        return address.clone();
    }
    list.put_slice(address.as_bytes());
    HeaderValue::from_maybe_shared(list.freeze()).unwrap_or_else(|_| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_has_many_types() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(kind)), is, "{kind}");
        }
    }
}
