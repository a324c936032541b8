//! The client's side.

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Note, SERVICE};
use crate::background::handle;

/// A client with a connection of its own.
#[derive(Debug, Clone)]
pub struct Client(tonic::client::Grpc<Channel>);

/// A call of which both sides are open.
#[derive(Debug)]
pub struct Talk {
    sender: mpsc::Sender<Note>,
    pub answers: Streaming<Note>,
}

impl Client {
    /// Connects to `http://…`.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::open(Endpoint::from_shared(url.to_owned())?).await
    }

    /// Connects to `https://…`, where the certificate is for `name` and from the authority `ca`.
    pub async fn connect_tls(url: &str, name: &str, ca: &str) -> Result<Self> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name);
        let origin = format!("https://{name}").parse()?;
        Self::open(Endpoint::from_shared(url.to_owned())?.tls_config(tls)?.origin(origin)).await
    }

    async fn open(endpoint: Endpoint) -> Result<Self> {
        // The connection lives on the background runtime, as all that is around a test.
        let channel = handle().spawn(async move { endpoint.connect().await }).await??;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    /// Sends a note and gives the one that comes back.
    pub async fn say(&self, text: &str) -> Result<String, Status> {
        Ok(self.call("Talk", Request::new(Note::new(text))).await?.into_inner().text)
    }

    /// As [`Self::say`], with header fields; gives those of the answer too.
    pub async fn say_with(
        &self,
        text: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Response<Note>, Status> {
        let mut request = Request::new(Note::new(text));
        for (name, value) in fields {
            request.metadata_mut().insert(*name, value.parse().expect("a header's value"));
        }
        self.call("Talk", request).await
    }

    /// A call of one message each way.
    pub async fn call(&self, method: &str, request: Request<Note>) -> Result<Response<Note>, Status> {
        let mut grpc = self.ready().await?;
        grpc.unary(request, path(method), ProstCodec::default()).await
    }

    /// Sends one note and gives all that come back.
    pub async fn listen(&self, note: Note) -> Result<Streaming<Note>, Status> {
        let mut grpc = self.ready().await?;
        let answers = grpc.server_streaming(Request::new(note), path("Talk"), ProstCodec::default()).await?;
        Ok(answers.into_inner())
    }

    /// Sends all notes and gives the one that comes back.
    pub async fn collect(&self, notes: Vec<Note>) -> Result<Note, Status> {
        let mut grpc = self.ready().await?;
        let notes = Request::new(tokio_stream::iter(notes));
        Ok(grpc.client_streaming(notes, path("Collect"), ProstCodec::default()).await?.into_inner())
    }

    /// Opens both sides. What is said first goes along.
    pub async fn talk(&self, first: &str) -> Result<Talk, Status> {
        let mut grpc = self.ready().await?;
        let (sender, receiver) = mpsc::channel(64);
        let _ = sender.send(Note::new(first)).await;
        let notes = Request::new(ReceiverStream::new(receiver));
        let answers = grpc.streaming(notes, path("Talk"), ProstCodec::default()).await?.into_inner();
        Ok(Talk { sender, answers })
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

impl Talk {
    /// Sends a note.
    pub async fn send(&self, note: Note) -> Result<()> {
        self.sender.send(note).await.context("the call has ended")
    }

    /// The next answer; none after the last.
    pub async fn next(&mut self) -> Result<Option<String>, Status> {
        Ok(self.answers.message().await?.map(|note| note.text))
    }

    /// Sends a note and gives what comes next.
    pub async fn say(&mut self, text: &str) -> Result<String> {
        self.send(Note::new(text)).await?;
        self.next().await?.context("the answer has ended")
    }

    /// Ends our side, and gives the other until its end.
    pub fn finish(self) -> Streaming<Note> {
        self.answers
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{SERVICE}/{method}")).expect("a method's path")
}
