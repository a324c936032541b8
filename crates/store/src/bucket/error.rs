//! What went wrong with a bucket, in words for whoever is woken up by it.
//!
//! The rule to know: the text names back end, bucket and key, says what to change, and holds no secret.

use super::{Bucket, http::Refusal};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The settings make no sense; nothing was tried.
    Config,
    /// Wrong keys or signature.
    Credentials,
    /// The clocks differ too much for signatures to be accepted.
    ClockSkew,
    /// The keys are good, the policy does not allow this.
    Denied,
    NoSuchBucket,
    WrongRegion,
    /// The server failed, or asks us to slow down.
    Server,
    TimedOut,
    /// No connection: refused, unresolvable, TLS, cut off.
    Unreachable,
    TooLarge,
    /// No such object. Reads answer none instead.
    NotFound,
    /// A condition did not hold. Conditional writes answer [`super::Put::Refused`] instead.
    AlreadyExists,
    /// It is as it was. Conditional reads answer [`super::Conditional::NotModified`] instead.
    NotModified,
    /// The back end can't do this.
    Unsupported,
    Other,
}

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    pub kind: Kind,
    pub backend: &'static str,
    pub bucket: String,
    pub key: String,
    pub reason: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.bucket.as_str(), self.key.as_str()) {
            ("", _) => f.write_str(&self.reason),
            (bucket, "") => write!(f, "{} bucket `{bucket}`: {}", self.backend, self.reason),
            (bucket, key) => write!(f, "{} bucket `{bucket}`, `{key}`: {}", self.backend, self.reason),
        }
    }
}

impl Error {
    /// The request may have been carried out all the same.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self.kind, Kind::TimedOut | Kind::Unreachable | Kind::Server | Kind::Other)
    }

    pub(super) fn config(reason: impl Into<String>) -> Self {
        let (bucket, key) = (String::new(), String::new());
        Self { kind: Kind::Config, backend: "", bucket, key, reason: reason.into() }
    }
}

/// Words an error of object_store's. `action` is what was tried: read, write, list or delete.
pub(super) fn classify(bucket: &Bucket, key: &str, action: &str, error: &object_store::Error) -> Error {
    let chain: Vec<&(dyn std::error::Error + 'static)> =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |last| last.source())
            .collect();
    let (kind, reason) = if let Some(refusal) = chain.iter().find_map(|e| e.downcast_ref::<Refusal>()) {
        refused(bucket, action, refusal)
    } else if let Some(io) = chain.iter().find_map(|e| e.downcast_ref::<std::io::Error>()) {
        (io_kind(io.kind()), format!("can't {action}: {io}"))
    } else {
        (kind_of(error, &chain), format!("can't {action}: {}", innermost(&chain)))
    };
    bucket.error(key, kind, reason)
}

fn kind_of(error: &object_store::Error, chain: &[&(dyn std::error::Error + 'static)]) -> Kind {
    use object_store::client::{HttpError, HttpErrorKind as Http};
    match error {
        object_store::Error::NotFound { .. } => Kind::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            Kind::AlreadyExists
        }
        object_store::Error::NotModified { .. } => Kind::NotModified,
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            Kind::Unsupported
        }
        object_store::Error::PermissionDenied { .. } => Kind::Denied,
        object_store::Error::Unauthenticated { .. } => Kind::Credentials,
        _ => match chain.iter().find_map(|e| e.downcast_ref::<HttpError>()).map(HttpError::kind) {
            Some(Http::Timeout) => Kind::TimedOut,
            Some(Http::Connect | Http::Request | Http::Interrupted) => Kind::Unreachable,
            _ => Kind::Other,
        },
    }
}

fn io_kind(kind: std::io::ErrorKind) -> Kind {
    use std::io::ErrorKind as Io;
    match kind {
        Io::NotFound => Kind::NotFound,
        Io::AlreadyExists => Kind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::TimedOut => Kind::TimedOut,
        Io::ConnectionRefused
        | Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::NotConnected
        | Io::BrokenPipe
        | Io::UnexpectedEof
        | Io::HostUnreachable
        | Io::NetworkUnreachable => Kind::Unreachable,
        _ => Kind::Other,
    }
}

/// By the code where there is one (S3's and Azure's), else by the status.
fn refused(bucket: &Bucket, action: &str, refusal: &Refusal) -> (Kind, String) {
    let Refusal { status, code, message, .. } = refusal;
    let said = [code.as_str(), message.as_str()].iter().filter(|s| !s.is_empty()).fold(
        String::new(),
        |text, part| {
            if text.is_empty() { (*part).to_owned() } else { format!("{text}: {part}") }
        },
    );
    let said = if said.is_empty() { format!("status {status}") } else { format!("status {status}, {said}") };
    let name = bucket.name();
    match code.as_str() {
        "RequestTimeTooSkewed" => (Kind::ClockSkew, skewed(refusal.ahead)),
        // Azure has one code for everything; a clock that is off shows only in its answer's date.
        _ if *status == 403 && refusal.ahead.is_some_and(|s| s.abs() > MAX_SKEW) => {
            (Kind::ClockSkew, skewed(refusal.ahead))
        }
        "InvalidAccessKeyId" => (
            Kind::Credentials,
            format!("the server does not know this access key: check `access_key` ({said})"),
        ),
        "SignatureDoesNotMatch" | "AuthenticationFailed" => {
            (Kind::Credentials, format!("the signature is wrong: check the secret key ({said})"))
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            (Kind::Credentials, format!("the session token is not accepted or has expired ({said})"))
        }
        "NoSuchBucket" | "ContainerNotFound" => (
            Kind::NoSuchBucket,
            format!("there is no bucket `{name}`: create it, or check its name and endpoint"),
        ),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (Kind::WrongRegion, wrong_region(refusal, &said))
        }
        "SlowDown" | "ServiceUnavailable" | "ServerBusy" => {
            (Kind::Server, format!("the server asks to slow down ({said})"))
        }
        _ => match status {
            301 | 307 => (Kind::WrongRegion, wrong_region(refusal, &said)),
            304 => (Kind::NotModified, "not modified".to_owned()),
            401 => (Kind::Credentials, format!("the keys are not accepted ({said})")),
            403 => (Kind::Denied, format!("{} ({said})", denied(bucket, action))),
            404 => (Kind::NotFound, format!("there is no such object ({said})")),
            409 | 412 => (Kind::AlreadyExists, format!("it was changed by someone else ({said})")),
            408 => (Kind::TimedOut, format!("the server gave up waiting ({said})")),
            429 => (Kind::Server, format!("the server asks to slow down ({said})")),
            500.. => (Kind::Server, format!("the server failed ({said})")),
            _ => (Kind::Other, format!("can't {action} ({said})")),
        },
    }
}

/// Servers accept signatures this many seconds old or early.
const MAX_SKEW: i64 = 15 * 60;

fn skewed(ahead: Option<i64>) -> String {
    let by = match ahead {
        Some(s) if s >= 0 => format!("{s} s ahead of the server's"),
        Some(s) => format!("{} s behind the server's", -s),
        None => "too far from the server's".to_owned(),
    };
    format!("this machine's clock is {by}; signatures are refused beyond {MAX_SKEW} s: set the clock (NTP)")
}

fn wrong_region(refusal: &Refusal, said: &str) -> String {
    match &refusal.region {
        Some(region) => format!("the bucket is in region `{region}`: set `region` to it ({said})"),
        None => format!("the bucket is in another region: check `region` and `endpoint` ({said})"),
    }
}

fn denied(bucket: &Bucket, action: &str) -> String {
    if bucket.backend() != "aws_s3" {
        return format!("these credentials may not {action} here");
    }
    let needed = match action {
        "read" => "s3:GetObject (and s3:ListBucket: without it a missing object is a denied one)",
        "write" => "s3:PutObject",
        "delete" => "s3:DeleteObject",
        _ => "s3:ListBucket",
    };
    format!("these keys may not {action} here: their policy lacks {needed}")
}

fn innermost(chain: &[&(dyn std::error::Error + 'static)]) -> String {
    chain.last().map(ToString::to_string).unwrap_or_default()
}
