//! WebSocket, as little of it as a test needs: unfragmented frames, both ends.

use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http::{Options, Response};

/// What RFC 6455 has a server hash a client's key with.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// One end of a WebSocket.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    /// A client masks what it sends.
    client: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub fn server(stream: S) -> Self {
        Self { stream, client: false }
    }

    pub fn client(stream: S) -> Self {
        Self { stream, client: true }
    }

    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode as u8];
        let masked = if self.client { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(masked | u8::try_from(length).expect("below 126")),
            length @ 126..65536 => {
                frame.push(masked | 126);
                frame.extend(u16::try_from(length).expect("below 65536").to_be_bytes());
            }
            length => {
                frame.push(masked | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if self.client {
            frame.extend([0; 4]); // a mask of zeros leaves the payload as it is
        }
        frame.extend(payload);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    pub async fn recv(&mut self) -> io::Result<(Opcode, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        let opcode = match head[0] & 0x0f {
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(io::Error::other(format!("frame with opcode {other}"))),
        };
        let length = match head[1] & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            self.stream.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.stream.read_exact(&mut payload).await?;
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        Ok((opcode, payload))
    }

    /// Sends a text and gives the text that comes back.
    pub async fn say(&mut self, text: &str) -> io::Result<String> {
        self.send(Opcode::Text, text.as_bytes()).await?;
        let (_, payload) = self.recv().await?;
        Ok(String::from_utf8_lossy(&payload).into_owned())
    }

    /// Sends back whatever comes until the other end closes.
    pub async fn echo(mut self) -> io::Result<()> {
        loop {
            match self.recv().await? {
                (Opcode::Close, reason) => return self.send(Opcode::Close, &reason).await,
                (Opcode::Ping, payload) => self.send(Opcode::Pong, &payload).await?,
                (opcode, payload) => self.send(opcode, &payload).await?,
            }
        }
    }
}

/// The stream of an upgraded HTTP connection.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Opens a WebSocket at an `http://` or `https://` address.
pub async fn connect(url: &str) -> anyhow::Result<Socket<Upgraded>> {
    connect_with(url, &Options::default()).await
}

/// As [`connect`], with a connection made as the options say.
pub async fn connect_with(url: &str, options: &Options) -> anyhow::Result<Socket<Upgraded>> {
    let mut client = crate::http::Client::connect_with(url, options).await?;
    let request = http::Request::get(url)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, KEY)
        .body(Bytes::new())?;
    let mut response = client.send_raw(request).await?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        let response = Response::collect(response).await?;
        anyhow::bail!("no upgrade: {} {}", response.status, response.text());
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).cloned();
    anyhow::ensure!(accept == Some(accept_key(KEY)), "wrong Sec-WebSocket-Accept: {accept:?}");
    Ok(Socket::client(TokioIo::new(hyper::upgrade::on(&mut response).await?)))
}

/// Whether a request asks for a WebSocket, and with which key.
pub fn requested(headers: &HeaderMap) -> Option<&str> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    upgrade.eq_ignore_ascii_case("websocket").then_some(key)
}

/// The `Sec-WebSocket-Accept` for a client's key.
pub fn accept_key(key: &str) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_every_length() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let echo = tokio::spawn(Socket::server(far).echo());
        let mut client = Socket::client(near);
        for length in [0, 1, 125, 126, 65535, 65536] {
            let text = "k".repeat(length);
            assert_eq!(client.say(&text).await.unwrap(), text);
        }
        client.send(Opcode::Close, &[]).await.unwrap();
        echo.await.unwrap().unwrap();
    }
}
