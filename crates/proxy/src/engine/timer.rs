//! Deadlines of one worker's connections, coarse and nearly free.
//!
//! The rule to know: a timer belongs to a connection, or to a body that streams, and arming it is a store. One task per worker
//! looks at all of them when the earliest deadline it knows of has come; most have been moved on by then.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// No deadline is met more precisely than this.
const GRAIN: Duration = Duration::from_millis(20);

/// All timers of a worker.
#[derive(Default)]
pub struct Timers {
    all: RefCell<Vec<Weak<Inner>>>,
    /// So many of `all` are still there, as far as was last counted.
    alive: Cell<usize>,
    /// When [`Timers::run`] looks next.
    next: Cell<Option<Instant>>,
    sooner: Notify,
}

/// One deadline that is moved again and again. Clones are the same timer.
#[derive(Clone)]
pub struct Timer {
    inner: Rc<Inner>,
    timers: Rc<Timers>,
}

#[derive(Default)]
struct Inner {
    deadline: Cell<Option<Instant>>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Timers {
    /// A timer that is not armed.
    pub fn timer(self: &Rc<Self>) -> Timer {
        const FEW: usize = 1024;
        let inner = Rc::new(Inner::default());
        let mut all = self.all.borrow_mut();
        if all.len() > FEW.max(self.alive.get() * 2) {
            all.retain(|weak| weak.strong_count() > 0);
            self.alive.set(all.len());
        }
        all.push(Rc::downgrade(&inner));
        drop(all);
        Timer { inner, timers: Rc::clone(self) }
    }

    /// Wakes whoever waits with a timer, so that it looks at its worker's state again.
    pub fn wake_all(&self) {
        for inner in self.all.borrow().iter().filter_map(Weak::upgrade) {
            inner.wake();
        }
    }

    /// Fires timers for as long as the worker lives.
    pub async fn run(&self) {
        loop {
            let sooner = self.sooner.notified();
            match self.next.get() {
                None => sooner.await,
                Some(next) => tokio::select! {
                    () = sooner => continue,
                    () = tokio::time::sleep_until(next.into()) => {}
                },
            }
            self.fire(Instant::now());
        }
    }

    fn fire(&self, now: Instant) {
        let mut next = None;
        let mut fired = Vec::new();
        self.all.borrow_mut().retain(|weak| {
            let Some(inner) = weak.upgrade() else { return false };
            match inner.deadline.get() {
                Some(deadline) if deadline <= now => fired.push(inner),
                Some(deadline) => next = Some(next.map_or(deadline, |next: Instant| next.min(deadline))),
                None => {}
            }
            true
        });
        self.alive.set(self.all.borrow().len());
        self.next.set(next.map(|next| next.max(now + GRAIN)));
        for inner in fired {
            inner.deadline.set(None);
            inner.fired.set(true);
            inner.wake();
        }
    }
}

impl Timer {
    /// Fires `after` from `now`, unless armed again or disarmed.
    pub fn arm(&self, now: Instant, after: Duration) {
        self.inner.fired.set(false);
        // Beyond what the clock can say is never.
        let Some(deadline) = now.checked_add(after) else { return self.disarm() };
        self.inner.deadline.set(Some(deadline));
        if self.timers.next.get().is_none_or(|next| deadline < next) {
            self.timers.next.set(Some(deadline.max(now + GRAIN)));
            self.timers.sooner.notify_one();
        }
    }

    pub fn disarm(&self) {
        self.inner.deadline.set(None);
        self.inner.fired.set(false);
    }

    /// Another timer of the same worker.
    pub fn another(&self) -> Self {
        self.timers.timer()
    }

    /// Whether something is waited for longer than `limit`: since the first call, or the last one that it had `moved`.
    pub fn poll_late(&self, cx: &Context<'_>, limit: Duration, moved: bool) -> bool {
        if moved || !self.is_armed() {
            self.arm(Instant::now(), limit);
        }
        self.poll_fired(cx)
    }

    pub fn is_armed(&self) -> bool {
        self.inner.deadline.get().is_some() || self.inner.fired.get()
    }

    /// Whether the deadline has passed; if not, the task is woken when it does.
    pub fn poll_fired(&self, cx: &Context<'_>) -> bool {
        if self.inner.fired.get() {
            return true;
        }
        let mut waker = self.inner.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|held| held.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Inner {
    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_when_it_was_last_armed_for() {
        let timers = Rc::new(Timers::default());
        let timer = timers.timer();
        let start = Instant::now();
        timer.arm(start, Duration::from_secs(5));
        timer.arm(start, Duration::from_secs(1));
        let fired = std::future::poll_fn(|cx| {
            if timer.poll_fired(cx) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        tokio::select! {
            () = timers.run() => {}
            () = fired => {}
        }
        assert!(!timers.all.borrow().is_empty());
        timer.disarm();
        assert!(!timer.is_armed());
        drop(timer);
        timers.fire(Instant::now());
        assert!(timers.all.borrow().is_empty() && timers.next.get().is_none());
    }
}
