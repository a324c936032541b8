//! The half of a call that goes to the node.
//!
//! The rule to know: no more is taken from the client than the node has room for. That the node takes no more is no
//! failure of ours: its answer says why.

use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::task::{AbortHandle, spawn_local};

use super::super::{
    h1::{Error, Next, RequestBody},
    timer::Timer,
};

/// A request's body on its way.
pub struct Upload {
    stream: SendStream<Bytes>,
    /// Taken from the client, not yet given to the connection.
    chunk: Bytes,
    blocked: bool,
    moved: bool,
}

/// A body that is sent while the answer is received. Ends with this handle.
pub struct Uploading {
    task: AbortHandle,
    received: Rc<Cell<u64>>,
}

impl Upload {
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, chunk: Bytes::new(), blocked: false, moved: false }
    }

    /// Sends until all is sent, the client has no more for now, or the node takes no more. An error is the client's.
    pub fn poll(&mut self, cx: &mut Context<'_>, body: &mut RequestBody) -> Poll<Result<(), Error>> {
        loop {
            if self.chunk.is_empty() {
                self.blocked = false;
                match ready!(body.poll_next(cx))? {
                    Next::Data(data) => {
                        self.stream.reserve_capacity(data.len());
                        self.chunk = data;
                    }
                    Next::Trailers(trailers) => {
                        let _ = self.stream.send_trailers(trailers);
                        return Poll::Ready(Ok(()));
                    }
                    Next::End => {
                        let _ = self.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(Ok(()));
                    }
                }
            } else {
                self.blocked = true;
                let Some(room) = ready!(self.poll_room(cx)) else { return Poll::Ready(Ok(())) };
                let piece = self.chunk.split_to(room.min(self.chunk.len()));
                if self.stream.send_data(piece, false).is_err() {
                    return Poll::Ready(Ok(()));
                }
                self.moved = true;
            }
        }
    }

    /// How much the connection takes now; none where it takes nothing any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        match self.stream.capacity() {
            0 => self.stream.poll_capacity(cx).map(|room| room?.ok()),
            room => Poll::Ready(Some(room)),
        }
    }

    /// Whether the node has not taken anything for too long.
    pub fn is_late(&mut self, cx: &Context<'_>, timer: &Timer, limit: Duration) -> bool {
        let moved = std::mem::take(&mut self.moved);
        if self.blocked {
            return timer.poll_late(cx, limit, moved);
        }
        timer.disarm();
        false
    }

    /// Goes on by itself.
    pub fn spawn(mut self, mut body: RequestBody, timer: Timer, limit: Duration) -> Uploading {
        let received = Rc::new(Cell::new(0));
        let count = Rc::clone(&received);
        let task = spawn_local(async move {
            let sent = poll_fn(|cx| {
                let polled = self.poll(cx, &mut body);
                count.set(body.received);
                if polled.is_pending() && self.is_late(cx, &timer, limit) {
                    return Poll::Ready(Err(Error::SendTimeout));
                }
                polled
            })
            .await;
            if let Err(error) = sent {
                // Half a request must not pass for a whole one.
                tracing::debug!(%error, "request broke off");
                self.stream.send_reset(Reason::CANCEL);
            }
        });
        Uploading { task: task.abort_handle(), received }
    }
}

impl Uploading {
    /// Bytes taken from the client.
    pub fn received(&self) -> u64 {
        self.received.get()
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}
