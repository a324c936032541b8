//! What stands under the fakes of other people's servers: HTTP/1 on a port that can be closed and opened again.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::background::{Task, handle};
use crate::ports;

/// Answers requests at `address`, which is leased, until the task is stopped: the port and every connection close with
/// it.
pub fn serve<A, F, B>(address: SocketAddr, answer: A) -> Task
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let listener = ports::listen(address).expect("the port is leased");
    let _context = handle().enter();
    let listener = TcpListener::from_std(listener).expect("a listener for tokio");
    Task::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}
