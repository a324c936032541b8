//! HTTP/2 from a client.
//!
//! The rule to know: what a client may have us keep or do is bounded, whatever it sends. It is told before its
//! connection is closed, so that it loses no request, unless it does harm.

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::ReadBuf, net::TcpStream, task::spawn_local};

use super::{
    super::{exchange, io::Watched},
    Client, Step, Timer,
};

/// Requests at once on one connection: nginx's number.
const STREAMS: u32 = 128;
/// So much of a request's body is kept until somebody takes it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Room for all of them: one request whose body nobody takes must not hold up the others.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// Streams that are reset before we have looked at them, and those we reset for the client's errors, on one connection.
const RESET_UNSEEN: usize = 20;
const RESET_BY_US: usize = 256;

impl Client {
    /// The client has taken a request back that began at `started`, before there was an answer.
    pub fn gives_up(&self, started: Instant) {
        /// Whoever waits that long has waited for the answer.
        const AT_ONCE: Duration = Duration::from_secs(1);
        if started.elapsed() < AT_ONCE {
            self.given_up.set(self.given_up.get().saturating_add(1));
        }
    }

    /// Whether it opens requests only to take them back: that costs it nothing, and us the beginning of each.
    fn wastes_requests(&self) -> bool {
        const MANY: u32 = 500;
        self.given_up.get() > MANY && self.given_up.get() > self.begun.get() / 2
    }

    /// Whether it has nothing under way, and takes all we write.
    fn is_idle(&self) -> bool {
        self.active.get() == 0 && !self.blocked.get()
    }
}

/// Whether the client begins with HTTP/2's preface, looked at without reading it. None: nothing came, and no longer is
/// anything waited for.
pub async fn begins_with_preface(client: &Client, stream: &TcpStream) -> Option<bool> {
    /// No method of HTTP/1 begins like it.
    const PREFACE: &[u8] = b"PRI";
    const GRAIN: Duration = Duration::from_millis(5);
    loop {
        let mut start = [0; PREFACE.len()];
        let read = poll_fn(|cx| {
            if client.timer.poll_fired(cx) || client.worker.is_stopping() {
                return Poll::Ready(None);
            }
            Poll::Ready(ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut start))).ok())
        })
        .await?;
        match &start[..read] {
            b"P" | b"PR" => tokio::time::sleep(GRAIN).await,
            start => return Some(start == PREFACE),
        }
    }
}

/// Serves a connection to its end.
pub async fn serve(client: Rc<Client>, stream: Watched) {
    let head = client.worker.config().limits.head;
    let service = {
        let client = Rc::clone(&client);
        service_fn(move |request| exchange::serve(Rc::clone(&client), request))
    };
    let connection = http2::Builder::new(Local(Rc::clone(&client)))
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        let late = client.timer.poll_fired(cx);
        if late && (client.closing.get() || !client.is_idle()) {
            return Poll::Ready(());
        }
        if client.wastes_requests() {
            tracing::warn!(client = %client.peer, "it opens requests only to take them back; its connection is closed");
            return Poll::Ready(());
        }
        if (late || client.worker.is_leaving()) && !client.closing.replace(true) {
            connection.as_mut().graceful_shutdown();
            if client.is_idle() {
                client.timer.arm(Instant::now(), client.patience());
                // It fires later now, and somebody must be woken then.
                let _ = client.timer.poll_fired(cx);
            }
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Runs HTTP/2's streams on the thread of their connection.
#[derive(Clone)]
struct Local(Rc<Client>);

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        let (client, mut stream, mut pace) = (Rc::clone(&self.0), Box::pin(future), Pace::default());
        spawn_local(poll_fn(move |cx| {
            client.step(Step::None);
            let polled = stream.as_mut().poll(cx).map(drop);
            // Dropped, the stream is reset.
            if polled.is_pending() && pace.is_late(cx, &client) { Poll::Ready(()) } else { polled }
        }));
    }
}

/// How fast a client takes a response: nginx's `send_timeout`, for one stream.
#[derive(Default)]
struct Pace(Option<Timer>);

impl Pace {
    /// Whether the client has given no room for too long to a piece that waits for it. What was given before may have
    /// been taken in little by little, which nobody tells us: for each 8 KiB (nginx's `http2_chunk_size`) there is as
    /// much time again.
    fn is_late(&mut self, cx: &Context<'_>, client: &Client) -> bool {
        const CHUNK: usize = 8 * 1024;
        match client.step.get() {
            Step::None => {}
            Step::Waits => self.0.iter().for_each(Timer::disarm),
            Step::Gives { before } => {
                let times = u32::try_from(before / CHUNK + 1).unwrap_or(u32::MAX);
                let limit = client.worker.config().timeouts.send.saturating_mul(times);
                self.0.get_or_insert_with(|| client.timer.another()).arm(Instant::now(), limit);
            }
        }
        let late = self.0.as_ref().is_some_and(|timer| timer.is_armed() && timer.poll_fired(cx));
        if late {
            tracing::info!(client = %client.peer, "a client takes nothing of a response; its stream is reset");
        }
        late
    }
}
