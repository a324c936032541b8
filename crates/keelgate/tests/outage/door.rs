//! A door before a server that can be told to answer in its place: with one status, to everything.

use std::net::SocketAddr;

use testkit::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Stops with its handle.
pub struct Door {
    address: SocketAddr,
    status: watch::Sender<Option<u16>>,
}

impl Door {
    /// Opens one, on a port of its own; everything passes.
    pub fn before(target: SocketAddr) -> Self {
        let (address, status) = (ports::address(), watch::Sender::new(None));
        let listener = TcpListener::from_std(ports::listen(address).unwrap()).unwrap();
        let watched = status.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(attend(client, target, watched.clone()));
            }
        });
        Self { address, status }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everything is answered with this status; with none, everything passes.
    pub fn answers(&self, status: impl Into<Option<u16>>) {
        self.status.send_replace(status.into());
    }
}

async fn attend(mut client: TcpStream, target: SocketAddr, mut status: watch::Receiver<Option<u16>>) {
    let now = *status.borrow_and_update();
    if let Some(status) = now {
        let mut head = [0; 65_536];
        let _ = client.read(&mut head).await;
        let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = client.write_all(answer.as_bytes()).await;
        let _ = client.shutdown().await;
        // What is still on its way is read, or the answer would be lost to a reset.
        while client.read(&mut head).await.is_ok_and(|read| read > 0) {}
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        // A connection that was let in must not go on past a closed door.
        _ = status.changed() => {}
    }
}
