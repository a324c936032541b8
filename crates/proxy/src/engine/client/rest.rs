//! What a client still sends of a request that has been answered.
//!
//! The rule to know: no answer waits for a body that nobody wants. It is read after the answer and thrown away, so that
//! the next request is found where it begins; as nginx does, and for as long as nginx does. Then the connection ends.

use std::{
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{super::h1::Incoming, Client, Timer};

/// nginx's `lingering_time`.
const LONGEST: Duration = Duration::from_secs(30);
/// nginx's `lingering_timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// The rest of a body over HTTP/1.
pub struct Rest {
    body: Incoming,
    timer: Timer,
    until: Instant,
}

impl Rest {
    /// An error where nobody knows afterwards where the next request begins.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        loop {
            match self.body.poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(frame))) if frame.is_data() && Instant::now() < self.until => {
                    self.timer.disarm();
                }
                Poll::Pending if !self.timer.poll_late(cx, SILENCE, false) => return Poll::Pending,
                _ => return Poll::Ready(Err(())),
            }
        }
    }
}

impl Client {
    /// Throws away what comes of a body whose request has been answered.
    pub fn read_on(&self, body: Incoming) {
        let (timer, until) = (self.timer.another(), Instant::now() + LONGEST);
        self.rest.replace(Some(Box::new(Rest { body, timer, until })));
    }

    /// The client may send no other request: what comes now may be a part of the last one.
    pub fn spend(&self) {
        self.spent.set(true);
    }

    pub fn is_spent(&self) -> bool {
        self.spent.get()
    }

    pub(super) fn has_rest(&self) -> bool {
        self.rest.borrow().is_some()
    }

    /// Goes on with the rest of a body, if there is one.
    #[inline]
    pub(super) fn poll_rest(&self, cx: &mut Context<'_>) {
        if self.rest.borrow().is_some() {
            self.go_on(cx);
        }
    }

    #[cold]
    fn go_on(&self, cx: &mut Context<'_>) {
        let mut slot = self.rest.borrow_mut();
        let Some(rest) = &mut *slot else { return };
        let Poll::Ready(ended) = rest.poll(cx) else { return };
        *slot = None;
        drop(slot);
        if ended.is_err() {
            self.spend();
            // hyper is to learn of it.
            cx.waker().wake_by_ref();
        }
        if self.active.get() == 0 {
            self.timer.arm(Instant::now(), self.patience());
        }
    }

    /// The next request has come, so the rest has been read: how did it end?
    #[cold]
    pub(super) fn end_rest(&self) {
        self.poll_rest(&mut Context::from_waker(Waker::noop()));
        self.rest.take();
    }
}
