//! Nodes and clients of TCP and UDP.
//!
//! The one rule: a node says who it is before it echoes, and that it has heard the end; so a test sees in one text where
//! a session went, that every byte came through, and that each side may end alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::background::Task;
use crate::http::{Options, tls};
use crate::ports;

/// How long a client waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that answers `PORT|`, everything it is sent, and `|end` when its client has ended.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    _task: Task,
}

impl Echo {
    /// Over TCP.
    pub fn tcp() -> Self {
        Self::tcp_at(ports::address())
    }

    /// Over TCP, at an address whose port is leased.
    pub fn tcp_at(address: SocketAddr) -> Self {
        Self::on(address, None)
    }

    /// Over TLS: after its port it says the name it was asked for.
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::on(ports::address(), Some(config.into()))
    }

    fn on(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = ports::listen(address).expect("the node listens");
        let task = Task::spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener of tokio's");
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let port = address.port();
                    match tls {
                        None => echo(stream, format!("{port}|")).await,
                        Some(tls) => {
                            let stream = tls.accept(stream).await?;
                            let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
                            echo(stream, format!("{port}|{name}|")).await
                        }
                    }
                });
            }
        });
        Self { address, _task: task }
    }

    /// Over UDP: each datagram comes back with `PORT|` before it.
    pub fn udp() -> Self {
        Self::udp_at(ports::address())
    }

    /// Over UDP, at an address whose port is leased.
    pub fn udp_at(address: SocketAddr) -> Self {
        Self::datagrams(address, |own, _| own)
    }

    /// Over UDP: the port is the sender's, which is another for each session of a gateway.
    pub fn telling_senders() -> Self {
        Self::datagrams(ports::address(), |_, sender| sender)
    }

    fn datagrams(address: SocketAddr, told: fn(u16, u16) -> u16) -> Self {
        let socket = std::net::UdpSocket::bind(address).expect("the node listens");
        socket.set_nonblocking(true).expect("a socket that does not block");
        let task = Task::spawn(async move {
            let socket = UdpSocket::from_std(socket).expect("a socket of tokio's");
            let mut datagram = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                let port = told(address.port(), from.port());
                let answer = [format!("{port}|").as_bytes(), &datagram[..length]].concat();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, _task: task }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:PORT`.
    pub fn node(&self) -> String {
        self.address.to_string()
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, hello: String) -> std::io::Result<()> {
    stream.write_all(hello.as_bytes()).await?;
    stream.flush().await?;
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => stream.write_all(&buffer[..read]).await?,
        }
        stream.flush().await?;
    }
    stream.write_all(b"|end").await?;
    stream.shutdown().await
}

/// A client's side of one TCP session.
#[derive(Debug)]
pub struct Line(pub TcpStream);

impl Line {
    pub async fn open(to: SocketAddr) -> Result<Self> {
        Ok(Self(TcpStream::connect(to).await?))
    }

    /// Sends it and waits until it comes back.
    pub async fn hears(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes()).await?;
        self.expect(text).await
    }

    /// Waits for exactly this.
    pub async fn expect(&mut self, text: &str) -> Result<()> {
        let mut heard = vec![0; text.len()];
        timeout(PATIENCE, self.0.read_exact(&mut heard)).await.context("nothing comes")??;
        anyhow::ensure!(heard == text.as_bytes(), "heard {:?}", String::from_utf8_lossy(&heard));
        Ok(())
    }
}

/// Says it, ends, and gives all that is said in return.
pub async fn say(to: SocketAddr, text: &str) -> Result<String> {
    talk(TcpStream::connect(to).await?, text).await
}

/// The same from an address of one's own.
pub async fn say_from(from: &str, to: SocketAddr, text: &str) -> Result<String> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse()?, 0))?;
    talk(socket.connect(to).await?, text).await
}

/// The same over TLS, to this name.
pub async fn say_tls(to: SocketAddr, name: &str, options: &Options, text: &str) -> Result<String> {
    let (stream, _) = tls::handshake(TcpStream::connect(to).await?, name, options).await?;
    talk(stream, text).await
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> Result<String> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut heard)).await.context("it does not end")??;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}
