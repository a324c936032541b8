//! HTTP/1 from a client, and the end of a connection.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{
        exchange,
        io::{Downstream, Watched},
    },
    Client,
};

/// Serves a connection to its end.
pub(super) async fn serve(client: Rc<Client>, stream: Watched) {
    let config = client.worker.config();
    let service = {
        let client = Rc::clone(&client);
        service_fn(move |request| exchange::serve(Rc::clone(&client), request))
    };
    let mut builder = http1::Builder::new();
    builder.max_header_size(config.limits.head).half_close(false).auto_date_header(false);
    if config.limits.fields != 100 {
        builder.max_headers(config.limits.fields);
    }
    drop(config);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut closing = false;
    let in_time = poll_fn(|cx| {
        if client.timer.poll_fired(cx) {
            return Poll::Ready(false);
        }
        let ends = client.worker.is_stopping() || client.is_spent();
        if ends && !std::mem::replace(&mut closing, true) {
            // What has arrived already is served before the connection counts as idle.
            if Pin::new(&mut connection).poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            Pin::new(&mut connection).graceful_shutdown();
        }
        // After an error too hyper has said what there was to say.
        let poll = Pin::new(&mut connection).poll(cx).map(|_| true);
        if poll.is_pending() {
            client.poll_rest(cx);
        }
        poll
    })
    .await;
    // Taken in any case: it holds the connection it lies in.
    let onward = client.onward.take();
    if !in_time {
        return;
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().stream;
    match onward {
        Some(onward) => Box::pin(onward.run(stream, parts.read_buf, &client)).await,
        None => {
            let last = client.unreadable().unwrap_or_default();
            close(stream, &client, &last).await;
        }
    }
}

/// We have said that we are done, or do so with `last`; listens a little more: what the client still sends must not
/// make its kernel throw away our last response.
pub(super) async fn close(mut stream: Downstream, client: &Client, last: &[u8]) {
    const LINGER: Duration = Duration::from_secs(5);
    client.timer.arm(Instant::now(), LINGER);
    let mut waste = [0; 1024];
    let drain = async {
        // Where a response broke off, nobody has told the client yet that no more will come.
        if stream.write_all(last).await.is_ok() && stream.shutdown().await.is_ok() {
            while matches!(stream.read(&mut waste).await, Ok(1..)) {}
        }
    };
    let mut drain = pin!(drain);
    poll_fn(|cx| {
        let enough = client.timer.poll_fired(cx) || client.worker.is_stopping();
        if enough { Poll::Ready(()) } else { drain.as_mut().poll(cx) }
    })
    .await;
}
