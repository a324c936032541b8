//! Bytes both ways between a client and a node.
//!
//! The rule to know: what is read goes out at once, from a buffer that all sessions of a worker share; a session keeps
//! bytes only while the receiver does not take them, and reads no more until it has. Each side may end its direction
//! alone.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once.
pub const BUFFER: usize = 64 * 1024;

/// What a worker's sessions read into.
pub type Scratch = RefCell<Box<[u8]>>;

/// One direction.
#[derive(Default)]
pub struct Way {
    /// What the receiver has not taken yet, from `taken` on.
    rest: Vec<u8>,
    taken: usize,
    state: State,
    /// Whether something may be held back until it is flushed.
    unflushed: bool,
    /// Bytes the receiver took.
    pub moved: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Over,
}

/// Which side broke.
#[derive(Debug)]
pub enum Broken {
    Sender(io::Error),
    Receiver(io::Error),
}

impl Way {
    /// Moves what can be moved; ready when the direction has ended.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        loop {
            while self.taken < self.rest.len() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..]));
                self.took(written)?;
            }
            self.rest.clear();
            self.taken = 0;
            match self.state {
                State::Open => ready!(self.poll_read(cx, from, to, scratch))?,
                State::Ending => {
                    // Who has gone already need not be told.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.rest = Vec::new();
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                self.rest = Vec::new();
                if self.unflushed {
                    ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::Receiver)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
            // TLS that ends without saying so.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Poll::Ready(read) => read.map_err(Broken::Sender)?,
        }
        let read = buffer.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        self.unflushed = true;
        if let Poll::Ready(written) = Pin::new(to).poll_write(cx, read) {
            self.took(written)?;
        }
        self.rest.extend_from_slice(&read[self.taken..]);
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, written: io::Result<usize>) -> Result<(), Broken> {
        match written {
            Ok(0) => Err(Broken::Receiver(io::ErrorKind::WriteZero.into())),
            Ok(bytes) => {
                self.taken += bytes;
                self.moved += bytes as u64;
                Ok(())
            }
            Err(error) => Err(Broken::Receiver(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_slow_receiver_gets_everything_in_order_and_then_the_end() {
        let (mut sender, mut from) = duplex(64 * 1024);
        let (mut to, mut receiver) = duplex(7);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let all = sent.clone();
        tokio::spawn(async move {
            sender.write_all(&all).await.unwrap();
        });
        let pumping = tokio::spawn(async move {
            let (mut way, mut scratch) = (Way::default(), vec![0; 1000]);
            poll_fn(|cx| way.poll(cx, &mut from, &mut to, &mut scratch)).await.unwrap();
            way.moved
        });
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).await.unwrap();
        assert_eq!((received == sent, pumping.await.unwrap()), (true, 100_000));
    }
}
