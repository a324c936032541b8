//! A client of APISIX's `pubsub.proto` over a WebSocket, as little of it as a test needs.

use anyhow::{Context as _, bail};
use prost::Message as _;

use crate::ws::{self, Opcode, Socket, Upgraded};

/// What commands and answers have in common: numbered fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(message, optional, tag = "33")]
    fetch: Option<Partition>,
    #[prost(message, optional, tag = "34")]
    list_offset: Option<Partition>,
}

/// `CmdKafkaFetch` and `CmdKafkaListOffset`: the third field is the offset of the one, the timestamp of the other.
#[derive(Clone, PartialEq, prost::Message)]
struct Partition {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int32, tag = "2")]
    number: i32,
    #[prost(int64, tag = "3")]
    at: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(int64, tag = "1")]
    sequence: i64,
    #[prost(message, optional, tag = "31")]
    error: Option<Words>,
    #[prost(message, optional, tag = "33")]
    messages: Option<Messages>,
    #[prost(message, optional, tag = "34")]
    offset: Option<Offset>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Words {
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Messages {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Message>,
}

/// `KafkaMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Offset {
    #[prost(int64, tag = "1")]
    offset: i64,
}

/// A client that has its WebSocket. It asks about partition 0.
#[derive(Debug)]
pub struct Pubsub {
    socket: Socket<Upgraded>,
    sequence: i64,
}

impl Pubsub {
    /// `url` begins with `http://`.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        Ok(Self { socket: ws::connect(url).await?, sequence: 0 })
    }

    /// The offset of a time; the error is the gateway's.
    pub async fn offset(&mut self, topic: &str, time: i64) -> anyhow::Result<i64> {
        let list_offset = Some(Partition { topic: topic.to_owned(), number: 0, at: time });
        let answer = self.ask(Request { list_offset, ..Request::default() }).await?;
        Ok(answer.offset.context("an offset")?.offset)
    }

    /// The messages from an offset on.
    pub async fn fetch(&mut self, topic: &str, offset: i64) -> anyhow::Result<Vec<Message>> {
        let fetch = Some(Partition { topic: topic.to_owned(), number: 0, at: offset });
        let answer = self.ask(Request { fetch, ..Request::default() }).await?;
        Ok(answer.messages.context("messages")?.messages)
    }

    async fn ask(&mut self, request: Request) -> anyhow::Result<Response> {
        self.sequence += 1;
        let request = Request { sequence: self.sequence, ..request };
        self.socket.send(Opcode::Binary, &request.encode_to_vec()).await?;
        let (opcode, payload) = self.socket.recv().await?;
        anyhow::ensure!(opcode == Opcode::Binary, "a frame of kind {opcode:?}");
        let answer = Response::decode(&*payload)?;
        anyhow::ensure!(answer.sequence == self.sequence, "the answer is to {}", answer.sequence);
        match answer.error {
            Some(error) => bail!(error.message),
            None => Ok(answer),
        }
    }

    /// Sends a message that may be none of the protocol's.
    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> anyhow::Result<()> {
        Ok(self.socket.send(opcode, payload).await?)
    }

    /// The next frame, whatever it is.
    pub async fn recv(&mut self) -> anyhow::Result<(Opcode, Vec<u8>)> {
        Ok(self.socket.recv().await?)
    }
}
