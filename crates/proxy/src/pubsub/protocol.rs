//! APISIX's `pubsub.proto`: what clients and we say to each other.

use prost::{Message, Oneof};

/// `PubSubReq`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Of the client's choice; the answer has the same.
    #[prost(int64, tag = "1")]
    pub sequence: i64,
    #[prost(oneof = "Command", tags = "31, 32, 33, 34")]
    pub command: Option<Command>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Command {
    #[prost(message, tag = "31")]
    Empty(Empty),
    #[prost(message, tag = "32")]
    Ping(Ping),
    #[prost(message, tag = "33")]
    KafkaFetch(Fetch),
    #[prost(message, tag = "34")]
    KafkaListOffset(ListOffset),
}

/// `PubSubResp`.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(int64, tag = "1")]
    pub sequence: i64,
    #[prost(oneof = "Outcome", tags = "31, 32, 33, 34")]
    pub outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Outcome {
    #[prost(message, tag = "31")]
    Error(Error),
    #[prost(message, tag = "32")]
    Pong(Ping),
    #[prost(message, tag = "33")]
    KafkaFetch(Messages),
    #[prost(message, tag = "34")]
    KafkaListOffset(Offset),
}

impl Outcome {
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error(Error { code: 0, message: message.into() })
    }
}

/// `CmdEmpty`.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// `CmdPing` and `PongResp`.
#[derive(Clone, PartialEq, Message)]
pub struct Ping {
    #[prost(bytes = "vec", tag = "1")]
    pub state: Vec<u8>,
}

/// `CmdKafkaFetch`.
#[derive(Clone, PartialEq, Message)]
pub struct Fetch {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    #[prost(int64, tag = "3")]
    pub offset: i64,
}

/// `CmdKafkaListOffset`.
#[derive(Clone, PartialEq, Message)]
pub struct ListOffset {
    #[prost(string, tag = "1")]
    pub topic: String,
    #[prost(int32, tag = "2")]
    pub partition: i32,
    /// In milliseconds since 1970; -1: the end, -2: the beginning.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `ErrorResp`.
#[derive(Clone, PartialEq, Message)]
pub struct Error {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `KafkaFetchResp`.
#[derive(Clone, PartialEq, Message)]
pub struct Messages {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<KafkaMessage>,
}

/// `KafkaMessage`.
#[derive(Clone, PartialEq, Message)]
pub struct KafkaMessage {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// In milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub value: Vec<u8>,
}

/// `KafkaListOffsetResp`.
#[derive(Clone, PartialEq, Message)]
pub struct Offset {
    #[prost(int64, tag = "1")]
    pub offset: i64,
}
