//! One question to one node, and what is made of the answer.

use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    checks::{Checks, Kind},
    target::{Finding, Target},
};

/// A status line longer than this is none.
const LONGEST: usize = 1024;

/// Asks the node. None: its answer says nothing either way.
pub async fn probe(target: &Target, checks: &Checks, tls: Option<&Arc<ClientConfig>>) -> Option<Finding> {
    let stream = match timeout(checks.timeout, connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Some(Finding::TcpFailure),
        Err(_) => return Some(Finding::Timeout),
    };
    let name = target.id.header.as_ref().unwrap_or(&target.id.hostname);
    let status = match (checks.kind, tls) {
        (Kind::Tcp, _) => return Some(Finding::Success),
        (Kind::Https, Some(tls)) => match timeout(checks.timeout, secure(stream, name, tls)).await {
            Ok(Ok(stream)) => timeout(checks.timeout, ask(stream, name, checks)).await,
            failed => {
                let error = failed.map_or_else(
                    |late| late.to_string(),
                    |e| e.err().map_or_else(String::new, |e| e.to_string()),
                );
                tracing::debug!(node = %target.id.ip, port = target.id.port, error, "no TLS with a node that is checked");
                return Some(Finding::TcpFailure);
            }
        },
        _ => timeout(checks.timeout, ask(stream, name, checks)).await,
    };
    match status {
        Err(_) => Some(Finding::Timeout),
        Ok(Err(_)) => Some(Finding::TcpFailure),
        Ok(Ok(Some(status))) if checks.active.good.contains(&status) => Some(Finding::Success),
        Ok(Ok(Some(status))) if !checks.active.bad.contains(&status) => None,
        Ok(Ok(_)) => Some(Finding::HttpFailure),
    }
}

async fn connect(target: &Target) -> io::Result<TcpStream> {
    let stream = match target.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((&*target.id.ip, target.id.port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secure(
    stream: TcpStream,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
}

/// The status of the answer; none where there is no telling.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    name: &str,
    checks: &Checks,
) -> io::Result<Option<u16>> {
    let (before, after) = &checks.request;
    stream.write_all(format!("{before}{name}{after}").as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::with_capacity(128);
    while !line.contains(&b'\n') {
        if stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.len() > LONGEST {
            break;
        }
    }
    Ok(status(&line))
}

/// The status in `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let version = line.strip_prefix(b"HTTP/")?;
    let digits = version.split(|byte| *byte == b' ').filter(|part| !part.is_empty()).nth(1)?;
    std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (line, expected) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503\r\n", Some(503)),
            (b"HTTP/1.1  404 x\r\n", Some(404)),
            (b"HTTP/1.1\r\n", None),
            (b"SSH-2.0-OpenSSH\r\n", None),
            (b"HTTP/1.1 ab\r\n", None),
        ] {
            assert_eq!(status(line), expected, "{}", line.escape_ascii());
        }
    }
}
