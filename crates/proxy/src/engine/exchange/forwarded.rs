//! `X-Forwarded-*`: how the request reached us. What the client says of that counts only if it is trusted.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::byte_text;

use super::Client;
use crate::{ctx::Ctx, engine::config::Config};

const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the client had said and is not said any more, by the variables that still tell it.
#[derive(Default)]
pub(super) struct Told(Vec<(&'static str, HeaderValue)>);

impl Told {
    fn note(&mut self, variable: &'static str, before: Option<HeaderValue>) {
        self.0.extend(before.map(|value| (variable, value)));
    }

    /// Makes it readable for this request.
    pub(super) fn remember(self, ctx: &mut Ctx) {
        for (variable, value) in self.0 {
            ctx.set_var(variable, byte_text::read(value.as_bytes()).into_owned());
        }
    }
}

/// Says how the request reached us.
pub(super) fn tell(
    headers: &mut HeaderMap,
    host: Option<HeaderValue>,
    has_forwarded: bool,
    client: &Client,
    config: &Config,
) -> Told {
    let port = port(host.as_ref(), client);
    let observed = [
        (PROTO, HeaderValue::from_static(client.scheme)),
        // Where an old client names no host, nginx tells its server's name.
        (HOST, host.unwrap_or(HeaderValue::from_static("localhost"))),
        (PORT, port),
    ];
    if config.trusted.is_empty() {
        return overwrite(headers, observed, has_forwarded);
    }
    let peer = client.peer.ip().to_canonical();
    if config.trusted.iter().any(|net| net.contains(&peer)) {
        for (name, value) in observed {
            if headers.get(&name).is_none_or(HeaderValue::is_empty) {
                headers.insert(name, value);
            }
        }
        return Told::default();
    }
    let mut told = overwrite(headers, observed, has_forwarded);
    told.note("original_x_forwarded_for", headers.remove(FOR));
    told
}

fn overwrite(headers: &mut HeaderMap, observed: [(HeaderName, HeaderValue); 3], has_forwarded: bool) -> Told {
    const VARIABLES: [&str; 3] =
        ["original_x_forwarded_proto", "original_x_forwarded_host", "original_x_forwarded_port"];
    let mut told = Told::default();
    for (variable, (name, value)) in VARIABLES.into_iter().zip(observed) {
        told.note(variable, headers.insert(name, value));
    }
    if has_forwarded {
        told.note("original_forwarded", headers.remove(header::FORWARDED));
    }
    told
}

/// The port in `Host`, or ours.
fn port(host: Option<&HeaderValue>, client: &Client) -> HeaderValue {
    let host = host.map_or(&b""[..], HeaderValue::as_bytes);
    let digits = host.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, port) = host.split_at(host.len() - digits);
    if port.is_empty() || before.last() != Some(&b':') || port == client.port_text.as_bytes() {
        return client.port_text.clone();
    }
    HeaderValue::from_bytes(port).unwrap_or_else(|_| client.port_text.clone())
}
