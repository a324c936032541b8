//! Variables: what APISIX and nginx call by name of a request.
//!
//! The rule to know: a name is understood once, when configuration is compiled, and read many times. Reading copies
//! only what is put together on the spot. A text stands for bytes as [`byte_text`] has it.

pub(crate) mod body;
mod clock;
mod condition;
mod graphql;
mod json;
mod ssl;
mod template;

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use model::{byte_text, expr::Operand};
use serde_json::Value;
use serde_json_path::JsonPath;

pub use clock::Clock;
pub use condition::Condition;
pub use template::Template;

use crate::ctx::{Attempt, Ctx};

/// A variable, its name understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// One that has a fixed name.
    Fixed(Fixed),
    /// `ssl_*`: of the TLS connection.
    Ssl(ssl::Ssl),
    /// `arg_*`: a parameter of the query, decoded.
    Arg(Box<str>),
    /// `http_*`: a header of the request.
    Http(HeaderName),
    /// `sent_http_*`: a header of the response.
    Sent(HeaderName),
    /// `upstream_http_*`: a header of the upstream's response, whatever became of it.
    Received(HeaderName),
    /// `sent_trailer_*` and `upstream_trailer_*`: what came after the body of the response.
    Trailer(HeaderName),
    /// `cookie_*`.
    Cookie(Box<str>),
    /// `uri_param_*`: a named segment of the route's URI.
    UriParam(Box<str>),
    /// `post_arg_*`: a field of a form in the request's body.
    PostArg(Box<str>),
    /// `post_arg.*`: a path into a JSON body or a form.
    PostPath(Box<str>),
    /// The same with wildcards: everything they find, as a list.
    PostQuery(Box<JsonPath>),
    /// `graphql_*`: of the operation in the query or body.
    GraphQl(GraphQl),
    /// Any other: set by a plugin, or never.
    Other(Box<str>),
}

/// What is known of a GraphQL operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphQl {
    Name,
    Operation,
    RootFields,
}

macro_rules! fixed {
    ($($name:literal => $variant:ident,)*) => {
        /// Variables with fixed names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fixed { $($variant,)* }

        fn fixed(name: &str) -> Option<Fixed> {
            Some(match name { $($name => Fixed::$variant,)* _ => return None })
        }
    };
}

fixed! {
    "apisix_request_id" => ApisixRequestId,
    "args" => Args,
    "balancer_ip" => BalancerIp,
    "balancer_port" => BalancerPort,
    "binary_remote_addr" => BinaryRemoteAddr,
    "body_bytes_sent" => BodyBytesSent,
    "bytes_sent" => BytesSent,
    "connection" => Connection,
    "connection_requests" => ConnectionRequests,
    "consumer_group_id" => ConsumerGroupId,
    "consumer_name" => ConsumerName,
    "content_length" => ContentLength,
    "content_type" => ContentType,
    "document_root" => DocumentRoot,
    "host" => Host,
    "hostname" => Hostname,
    "http2" => Http2,
    "https" => Https,
    "is_args" => IsArgs,
    "msec" => Msec,
    "nginx_version" => NginxVersion,
    "pid" => Pid,
    "pipe" => Pipe,
    "protocol" => Protocol,
    "proxy_add_x_forwarded_for" => ProxyAddXForwardedFor,
    "proxy_host" => ProxyHost,
    "proxy_port" => ProxyPort,
    "real_request_uri" => RealRequestUri,
    "realip_remote_addr" => RealipRemoteAddr,
    "realip_remote_port" => RealipRemotePort,
    "remote_addr" => RemoteAddr,
    "remote_port" => RemotePort,
    "remote_user" => RemoteUser,
    "request" => Request,
    "request_body" => RequestBody,
    "request_completion" => RequestCompletion,
    "request_id" => RequestId,
    "request_length" => RequestLength,
    "request_method" => RequestMethod,
    "request_time" => RequestTime,
    "request_uri" => RequestUri,
    "route_id" => RouteId,
    "route_name" => RouteName,
    "scheme" => Scheme,
    "server_addr" => ServerAddr,
    "server_name" => ServerName,
    "server_port" => ServerPort,
    "server_protocol" => ServerProtocol,
    "service_id" => ServiceId,
    "service_name" => ServiceName,
    "status" => Status,
    "time_iso8601" => TimeIso8601,
    "time_local" => TimeLocal,
    "upstream_addr" => UpstreamAddr,
    "upstream_bytes_received" => UpstreamBytesReceived,
    "upstream_bytes_sent" => UpstreamBytesSent,
    "upstream_connect_time" => UpstreamConnectTime,
    "upstream_header_time" => UpstreamHeaderTime,
    "upstream_host" => UpstreamHost,
    "upstream_response_length" => UpstreamResponseLength,
    "upstream_response_time" => UpstreamResponseTime,
    "upstream_scheme" => UpstreamScheme,
    "upstream_status" => UpstreamStatus,
    "upstream_unresolved_host" => UpstreamUnresolvedHost,
    "upstream_uri" => UpstreamUri,
    "uri" => Uri,
}

/// Whether anybody has ever asked for `upstream_http_*`.
static UPSTREAM_HEADERS: AtomicBool = AtomicBool::new(false);

/// Whether the upstream's headers must be kept as they came.
pub(crate) fn asks_for_upstream_headers() -> bool {
    UPSTREAM_HEADERS.load(Ordering::Relaxed)
}

impl Var {
    /// Understands a name, without `$`.
    pub fn parse(name: &str) -> Self {
        let same_as = match name {
            "document_uri" => "uri",
            "query_string" => "args",
            "method" => "request_method",
            "request_line" => "request",
            "apisix_upstream_response_time" => "upstream_response_time",
            "bytes_received" => "request_length",
            "session_time" => "request_time",
            "upstream_first_byte_time" => "upstream_header_time",
            "upstream_session_time" => "upstream_response_time",
            other => other,
        };
        if let Some(fixed) = fixed(same_as) {
            return Self::Fixed(fixed);
        }
        if let Some(ssl) = name.strip_prefix("ssl_").and_then(ssl::Ssl::parse) {
            return Self::Ssl(ssl);
        }
        let header = |name: &str| HeaderName::try_from(name.to_ascii_lowercase().replace('_', "-"));
        let Some((family, rest)) = FAMILIES.iter().find_map(|f| Some((*f, name.strip_prefix(f)?))) else {
            return Self::Other(name.into());
        };
        match family {
            "arg_" => Self::Arg(rest.into()),
            "cookie_" => Self::Cookie(rest.into()),
            "uri_param_" => Self::UriParam(rest.into()),
            "post_arg_" => Self::PostArg(rest.into()),
            "post_arg." => post_path(rest).unwrap_or_else(|| Self::Other(name.into())),
            "graphql_" => graphql(rest).map_or_else(|| Self::Other(name.into()), Self::GraphQl),
            "http_" => header(rest).map_or_else(|_| Self::Other(name.into()), Self::Http),
            "sent_trailer_" | "upstream_trailer_" => {
                header(rest).map_or_else(|_| Self::Other(name.into()), Self::Trailer)
            }
            "upstream_http_" => {
                UPSTREAM_HEADERS.store(true, Ordering::Relaxed);
                header(rest).map_or_else(|_| Self::Other(name.into()), Self::Received)
            }
            _ => header(rest).map_or_else(|_| Self::Other(name.into()), Self::Sent),
        }
    }

    /// Whether it is in the request's body.
    pub fn reads_body(&self) -> bool {
        matches!(self, Self::PostArg(_) | Self::PostPath(_) | Self::PostQuery(_) | Self::GraphQl(_))
    }

    /// Its value for this request with its type; none where it has none.
    pub fn operand<'a>(&self, ctx: &'a Ctx) -> Option<Operand<'a>> {
        match self {
            Self::Arg(name) => parameter(ctx.request.query(), name),
            Self::PostArg(name) => body::field(ctx, name).map(Operand::from),
            Self::PostPath(path) => body::at(ctx, path).map(Operand::from),
            Self::PostQuery(path) => {
                let found = path.query(body::table(ctx)?).all();
                (!found.is_empty()).then(|| found.into_iter().cloned().collect::<Value>().into())
            }
            Self::GraphQl(what) => {
                let operation = body::operation(ctx)?;
                Some(match what {
                    GraphQl::Name => operation.name.as_str().into(),
                    GraphQl::Operation => operation.kind.into(),
                    GraphQl::RootFields => (&operation.root_fields).into(),
                })
            }
            _ => self.read(ctx).map(Operand::Text),
        }
    }

    /// Its value for this request as a text; none where it has none.
    pub fn read<'a>(&self, ctx: &'a Ctx) -> Option<Cow<'a, str>> {
        let request = &ctx.request;
        match self {
            Self::Fixed(fixed) => fixed.read(ctx),
            Self::Ssl(ssl) => ssl.read(ctx),
            Self::Arg(_) | Self::PostArg(_) | Self::PostPath(_) | Self::PostQuery(_) | Self::GraphQl(_) => {
                self.operand(ctx).map(Operand::into_text)
            }
            Self::Http(name) => {
                header_value(&request.headers, name).or_else(|| underscored(&request.headers, name))
            }
            Self::Sent(name) => header_value(&ctx.response.headers, name),
            Self::Received(name) => header_value(ctx.response.of_upstream.as_deref()?, name),
            Self::Trailer(name) => header_value(ctx.response.trailers.as_deref()?, name),
            Self::Cookie(name) => cookie(&request.headers, name),
            Self::UriParam(name) => {
                ctx.params.iter().find(|(known, _)| **known == **name).map(|(_, value)| (&**value).into())
            }
            Self::Other(name) => ctx.set_by_plugin(name).map(Cow::Borrowed),
        }
    }
}

const FAMILIES: [&str; 11] = [
    "arg_",
    "http_",
    "sent_http_",
    "sent_trailer_",
    "upstream_http_",
    "upstream_trailer_",
    "cookie_",
    "graphql_",
    "uri_param_",
    "post_arg_",
    "post_arg.",
];

impl Fixed {
    fn read(self, ctx: &Ctx) -> Option<Cow<'_, str>> {
        if ctx.request.is_none() && (self.is_of_requests() || (ctx.session.is_some() && self.is_of_http())) {
            return None;
        }
        let request = &ctx.request;
        Some(match self {
            Self::Protocol => ctx.session.as_ref()?.protocol.as_str().into(),
            Self::Uri => request.path().into(),
            Self::Args => request.has_query().then(|| request.query())?.into(),
            Self::IsArgs => if request.query().is_empty() { "" } else { "?" }.into(),
            Self::Host => request.host().into(),
            Self::Scheme => request.scheme.into(),
            Self::Hostname => hostname().into(),
            Self::Http2 => match (request.version, request.scheme) {
                (Version::HTTP_2, "https") => "h2",
                (Version::HTTP_2, _) => "h2c",
                _ => "",
            }
            .into(),
            Self::RemoteUser => remote_user(ctx)?.into(),
            Self::Https => if request.scheme == "https" { "on" } else { "" }.into(),
            Self::RequestMethod => method(&request.method),
            Self::RealRequestUri => request.target().into(),
            Self::RequestUri => match request.query() {
                "" => request.path().into(),
                query => format!("{}?{query}", request.path()).into(),
            },
            Self::Request => {
                [request.method.as_str(), request.target(), protocol(request.version)].join(" ").into()
            }
            Self::ServerProtocol => protocol(request.version).into(),
            Self::ContentType => header_value(&request.headers, &header::CONTENT_TYPE)?,
            Self::ContentLength => header_value(&request.headers, &header::CONTENT_LENGTH)?,
            Self::RequestBody => body_text(ctx)?,
            Self::RequestId => ctx.random_id().into(),
            Self::ApisixRequestId => ctx.request_id.as_deref().unwrap_or_else(|| ctx.random_id()).into(),
            Self::RemoteAddr => address(ctx.client.ip()).into(),
            // None, where a proxy says of its client no more than an address.
            Self::RemotePort if ctx.client.port() == 0 => "".into(),
            Self::RemotePort => number(ctx.client.port().into()),
            Self::RealipRemoteAddr => address(ctx.peer.ip()).into(),
            Self::RealipRemotePort => number(ctx.peer.port().into()),
            Self::ServerAddr => address(ctx.server.ip()).into(),
            Self::ServerPort => number(ctx.server.port().into()),
            Self::RouteId => ctx.route_id()?.into(),
            Self::RouteName => ctx.route_name()?.into(),
            Self::ServiceId => ctx.service_id()?.into(),
            Self::ServiceName => ctx.service_name()?.into(),
            Self::ConsumerName => (&*ctx.consumer.as_ref()?.name).into(),
            Self::ConsumerGroupId => ctx.consumer.as_ref()?.group_id.as_deref()?.into(),
            Self::Status => ctx.response.status.as_str().into(),
            // Of a request that is still on its way, the head.
            Self::RequestLength if ctx.transfer.received == 0 && !request.is_none() => {
                number(request.length())
            }
            Self::RequestLength => number(ctx.transfer.received),
            Self::BytesSent => number(ctx.transfer.sent),
            Self::BodyBytesSent => number(ctx.transfer.body_sent),
            Self::RequestTime => seconds(ctx.started.elapsed()).into(),
            Self::Pid => number(std::process::id().into()),
            Self::Msec => Clock::now().msec().into(),
            Self::TimeLocal => Clock::now().local().into(),
            Self::TimeIso8601 => Clock::now().iso8601().into(),
            _ => return self.read_upstream(ctx).or_else(|| self.read_server(ctx)),
        })
    }

    /// Whether a session has no such thing, nor a request that could not be read.
    fn is_of_requests(self) -> bool {
        matches!(
            self,
            Self::Uri
                | Self::Args
                | Self::IsArgs
                | Self::Host
                | Self::Scheme
                | Self::Https
                | Self::RequestMethod
                | Self::RealRequestUri
                | Self::RequestUri
                | Self::Request
                | Self::ServerProtocol
                | Self::UpstreamUri
                | Self::UpstreamHost
                | Self::ProxyAddXForwardedFor
        )
    }

    /// Whether only HTTP has such a thing, also where a request could not be read.
    fn is_of_http(self) -> bool {
        matches!(
            self,
            Self::RequestId
                | Self::ApisixRequestId
                | Self::RequestCompletion
                | Self::Pipe
                | Self::DocumentRoot
                | Self::ProxyHost
                | Self::ProxyPort
                | Self::ServerName
        )
    }

    fn read_upstream(self, ctx: &Ctx) -> Option<Cow<'_, str>> {
        let last = || ctx.attempts.last();
        Some(match self {
            Self::BalancerIp => match last()?.address {
                Some(address) => address.ip().to_string().into(),
                None => (&*last()?.node.host).into(),
            },
            Self::BalancerPort => number(last()?.node.port.into()),
            Self::UpstreamUnresolvedHost => (&*last()?.node.host).into(),
            Self::UpstreamScheme => ctx.upstream.as_ref()?.scheme.as_str().into(),
            Self::UpstreamHost => byte_text::read(match (&ctx.upstream, ctx.node()) {
                (Some(upstream), Some(node)) => upstream.host(ctx, node),
                _ => Some(ctx.passed_host()).filter(|host| !host.is_empty())?,
            }),
            Self::UpstreamUri => {
                ctx.request.upstream_target.as_deref().unwrap_or_else(|| ctx.request.target()).into()
            }
            Self::UpstreamAddr => per_attempt(ctx, |a| match a.address {
                // The label of a node that is an address is that address.
                Some(address) if a.node.address != Some(address) => Some(address.to_string().into()),
                _ => Some((&*a.node.label).into()),
            })?,
            Self::UpstreamStatus => {
                per_attempt(ctx, |a| Some(a.status.as_ref().or(a.failure.as_ref())?.as_str().into()))?
            }
            Self::UpstreamConnectTime => per_attempt(ctx, |a| Some(seconds(a.connected?).into()))?,
            Self::UpstreamHeaderTime => per_attempt(ctx, |a| Some(seconds(a.header?).into()))?,
            Self::UpstreamResponseTime => per_attempt(ctx, |a| Some(seconds(a.finished?).into()))?,
            Self::UpstreamBytesReceived => per_attempt(ctx, |a| Some(number(a.received)))?,
            Self::UpstreamBytesSent => {
                let body = ctx.transfer.received.saturating_sub(ctx.request.length());
                per_attempt(ctx, |a| (a.head_sent > 0).then(|| number(a.head_sent + body)))?
            }
            Self::UpstreamResponseLength => {
                let passed = if ctx.filters_body() { 0 } else { ctx.transfer.body_sent };
                per_attempt(ctx, |a| Some(number(a.status.map_or(0, |_| a.filtered + passed))))?
            }
            _ => return None,
        })
    }

    /// What says little of the request: of the connection, of APISIX's nginx and its configuration.
    fn read_server(self, ctx: &Ctx) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Connection => number(Some(ctx.connection.0).filter(|serial| *serial > 0)?),
            Self::ConnectionRequests => number(Some(ctx.connection.1).filter(|nth| *nth > 0)?.into()),
            Self::BinaryRemoteAddr => match ctx.client.ip() {
                IpAddr::V4(v4) => byte_text::read(&v4.octets()).into_owned(),
                IpAddr::V6(v6) => byte_text::read(&v6.octets()).into_owned(),
            }
            .into(),
            Self::ProxyAddXForwardedFor => {
                let address = address(ctx.client.ip());
                match header_value(&ctx.request.headers, &HeaderName::from_static("x-forwarded-for")) {
                    Some(before) if !before.is_empty() => format!("{before}, {address}"),
                    _ => address,
                }
                .into()
            }
            Self::RequestCompletion => if ctx.transfer.completed { "OK" } else { "" }.into(),
            Self::Pipe => ".".into(),
            Self::NginxVersion => "1.27.1".into(),
            Self::DocumentRoot => "/usr/local/apisix/html".into(),
            Self::ProxyHost => "apisix_backend".into(),
            Self::ProxyPort => "80".into(),
            Self::ServerName => "_".into(),
            _ => return None,
        })
    }
}

/// One value for each node tried, as nginx writes them.
fn per_attempt<'a>(
    ctx: &'a Ctx,
    value: impl Fn(&'a Attempt) -> Option<Cow<'a, str>>,
) -> Option<Cow<'a, str>> {
    let shown = |attempt| value(attempt).unwrap_or(Cow::Borrowed("-"));
    match &*ctx.attempts {
        [] => None,
        [only] => Some(shown(only)),
        several => Some(several.iter().map(shown).collect::<Vec<_>>().join(", ").into()),
    }
}

/// With three digits after the point.
fn seconds(duration: std::time::Duration) -> String {
    let mut out = String::with_capacity(8);
    out.push_str(itoa::Buffer::new().format(duration.as_secs()));
    // The leading digit keeps the zeros of the others, and becomes the point.
    out.push_str(itoa::Buffer::new().format(1000 + duration.subsec_millis()));
    out.replace_range(out.len() - 4..out.len() - 3, ".");
    out
}

/// An address as text, without the formatter's detours where it is of version 4.
fn address(ip: IpAddr) -> String {
    let IpAddr::V4(v4) = ip else { return ip.to_string() };
    let mut out = String::with_capacity(15);
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push('.');
        }
        out.push_str(itoa::Buffer::new().format(octet));
    }
    out
}

fn number(n: u64) -> Cow<'static, str> {
    itoa::Buffer::new().format(n).to_owned().into()
}

fn method(method: &Method) -> Cow<'_, str> {
    method.as_str().into()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// All values of a header, joined as nginx joins them.
fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    Some(match header_bytes(headers, name)? {
        Cow::Borrowed(value) => byte_text::read(value),
        Cow::Owned(value) => byte_text::from_vec(value).into(),
    })
}

fn header_bytes<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = Cow::Borrowed(values.next()?);
    let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b", " };
    Some(values.fold(first, |all, value| [&*all, separator, value].concat().into()))
}

/// A header whose name is written with underscores: nginx takes `-` and `_` for the same here.
fn underscored<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    if !name.as_str().contains('-') {
        return None;
    }
    let meant = |known: &&HeaderName| {
        known.as_str().contains('_') && known.as_str().replace('_', "-") == name.as_str()
    };
    header_value(headers, headers.keys().find(meant)?)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    Some(match header_bytes(headers, &header::COOKIE)? {
        Cow::Borrowed(cookies) => byte_text::read(last_cookie(cookies, name.as_bytes())?),
        Cow::Owned(cookies) => byte_text::read(last_cookie(&cookies, name.as_bytes())?).into_owned().into(),
    })
}

/// As lua-resty-cookie reads them: the last of a name counts, a value ends with `;`, a space or a tab and keeps its
/// quotes, and a name is all before the next `=`.
fn last_cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    let mut rest = cookies;
    loop {
        let from = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(rest.len());
        rest = &rest[from..];
        let Some(equals) = rest.iter().position(|&byte| byte == b'=') else { return found };
        let (known, value) = (&rest[..equals], &rest[equals + 1..]);
        let end = value.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(value.len());
        if known == name {
            found = Some(&value[..end]);
        }
        rest = value.get(end + 1..).unwrap_or_default();
    }
}

/// The first of this name in a query or form. One without `=` is `true`, as Lua has it.
fn parameter<'a>(query: &'a str, name: &str) -> Option<Operand<'a>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        let value = || value.map_or(Value::Bool(true).into(), |text| decoded(text.as_bytes()).into());
        (decoded(key.as_bytes()) == name).then(value)
    })
}

fn decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return byte_text::read(text);
    }
    let spaced: Vec<u8> = text.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    byte_text::from_vec(percent_encoding::percent_decode(&spaced).collect()).into()
}

fn body_text(ctx: &Ctx) -> Option<Cow<'_, str>> {
    ctx.body.as_deref().map(byte_text::read)
}

/// What follows `post_arg.`: names and dots, or with brackets, stars or two dots a JSONPath.
fn post_path(path: &str) -> Option<Var> {
    if !path.contains(['[', '*']) && !path.contains("..") {
        return Some(Var::PostPath(path.into()));
    }
    JsonPath::parse(&format!("$.{path}")).ok().map(|path| Var::PostQuery(Box::new(path)))
}

fn graphql(name: &str) -> Option<GraphQl> {
    Some(match name {
        "name" => GraphQl::Name,
        "operation" => GraphQl::Operation,
        "root_fields" => GraphQl::RootFields,
        _ => return None,
    })
}

/// The name in `Authorization: Basic …`.
fn remote_user(ctx: &Ctx) -> Option<String> {
    let said = header_value(&ctx.request.headers, &header::AUTHORIZATION)?;
    let (scheme, secret) = said.split_once(' ')?;
    let plain = BASE64.decode(secret.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let name = plain.split(|&b| b == b':').next().filter(|name| name.len() < plain.len())?;
    Some(byte_text::read(name).into_owned())
}

/// This machine's name, as it was when the process first asked.
fn hostname() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_ascii_lowercase()
    });
    &NAME
}

#[cfg(test)]
mod tests;
