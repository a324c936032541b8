//! Messaging systems behind a WebSocket: upstreams of scheme `kafka`.
//!
//! The rule to know: a client asks and is answered, one command after the other; nothing is kept for it here, its
//! offsets neither.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/pubsub/>, <https://apisix.apache.org/docs/apisix/pubsub/kafka/>.

mod kafka;
mod protocol;

use std::time::Duration;

use prost::Message as _;

pub use kafka::Brokers;

use kafka::Kafka;
use protocol::{Command, Outcome, Request, Response};

/// One client's side of it.
pub struct Commands {
    kafka: Kafka,
    /// For one command.
    limit: Duration,
}

impl Commands {
    pub fn new(brokers: Brokers, limit: Duration) -> Self {
        Self { kafka: Kafka::new(brokers), limit }
    }

    /// What is answered to a message. None: it commands nothing.
    pub async fn answer(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (sequence, outcome) = match Request::decode(message) {
            Err(error) => {
                tracing::info!(%error, "a message is no command of pubsub.proto");
                (0, Outcome::error("wrong command"))
            }
            Ok(Request { command: None, .. }) => return None,
            Ok(Request { sequence, command: Some(command) }) => (sequence, self.follow(command).await),
        };
        Some(Response { sequence, outcome: Some(outcome) }.encode_to_vec())
    }

    async fn follow(&mut self, command: Command) -> Outcome {
        match command {
            Command::Empty(_) => Outcome::error("unknown command"),
            Command::Ping(ping) => Outcome::Pong(ping),
            Command::KafkaListOffset(asked) => {
                let offset = tokio::time::timeout(self.limit, self.kafka.offset(&asked)).await;
                match offset.unwrap_or_else(|_| Err("timeout".to_owned())) {
                    Ok(offset) => Outcome::KafkaListOffset(protocol::Offset { offset }),
                    Err(error) => Outcome::error(format!(
                        "failed to list offset, topic: {}, partition: {}, err: {error}",
                        asked.topic, asked.partition
                    )),
                }
            }
            Command::KafkaFetch(asked) => {
                let messages = tokio::time::timeout(self.limit, self.kafka.fetch(&asked)).await;
                match messages.unwrap_or_else(|_| Err("timeout".to_owned())) {
                    Ok(messages) => Outcome::KafkaFetch(protocol::Messages { messages }),
                    Err(error) => Outcome::error(format!(
                        "failed to fetch message, topic: {}, partition: {}, err: {error}",
                        asked.topic, asked.partition
                    )),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(message: &[u8]) -> Option<Response> {
        let mut commands = Commands::new(Brokers::default(), Duration::from_secs(5));
        let answer = commands.answer(message).await?;
        Some(Response::decode(&*answer).unwrap())
    }

    #[tokio::test]
    async fn what_needs_no_broker() {
        let ping = protocol::Ping { state: b"x".to_vec() };
        let request = Request { sequence: 7, command: Some(Command::Ping(ping.clone())) };
        let pong = answered(&request.encode_to_vec()).await.unwrap();
        assert_eq!(pong, Response { sequence: 7, outcome: Some(Outcome::Pong(ping)) });

        let request = Request { sequence: 8, command: Some(Command::Empty(protocol::Empty {})) };
        let unknown = answered(&request.encode_to_vec()).await.unwrap();
        assert_eq!(unknown, Response { sequence: 8, outcome: Some(Outcome::error("unknown command")) });

        let wrong = answered(b"\xff").await.unwrap();
        assert_eq!(wrong, Response { sequence: 0, outcome: Some(Outcome::error("wrong command")) });
        assert_eq!(answered(b"").await, None);
    }
}
