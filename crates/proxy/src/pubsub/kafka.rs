//! Kafka, as a client of a partition's leader.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::DateTime;
use rskafka::{
    BackoffConfig,
    client::{
        Client, ClientBuilder, Credentials, SaslConfig,
        error::{Error, ProtocolError},
        partition::{OffsetAt, PartitionClient, UnknownTopicHandling},
    },
};
use rustls::ClientConfig;

use super::protocol::{Fetch, KafkaMessage, ListOffset};

/// Bytes of one answer, unless its first message alone has more.
const FETCHED: i32 = 1024 * 1024;
/// How long a broker waits for a message to come, in milliseconds.
const WAIT: i32 = 100;
/// Partitions whose leaders a client keeps in mind.
const REMEMBERED: usize = 100;
/// What a broker may send at once.
const LARGEST: usize = 16 * 1024 * 1024;

/// How a cluster is reached.
#[derive(Clone, Default)]
pub struct Brokers {
    /// `host:port` of those asked first.
    pub addresses: Vec<String>,
    pub tls: Option<Arc<ClientConfig>>,
    /// Name and password for SASL/PLAIN.
    pub sasl: Option<(String, String)>,
}

/// A client of a cluster, which connects when it is first asked for something.
pub struct Kafka {
    brokers: Brokers,
    client: Option<Client>,
    partitions: HashMap<(String, i32), PartitionClient>,
}

impl Kafka {
    pub fn new(brokers: Brokers) -> Self {
        Self { brokers, client: None, partitions: HashMap::new() }
    }

    /// The offset of a time in a partition; -1: nothing is as late.
    pub async fn offset(&mut self, asked: &ListOffset) -> Result<i64, String> {
        let at = match asked.timestamp {
            -1 => OffsetAt::Latest,
            -2 => OffsetAt::Earliest,
            time => OffsetAt::Timestamp(
                DateTime::from_timestamp_millis(time).ok_or("the timestamp is out of range")?,
            ),
        };
        let found = match self.partition(&asked.topic, asked.partition).await {
            Ok(partition) => partition.get_offset(at).await,
            Err(error) => Err(error),
        };
        self.told(found)
    }

    /// Messages of a partition from an offset on; none: there is no further one yet.
    pub async fn fetch(&mut self, asked: &Fetch) -> Result<Vec<KafkaMessage>, String> {
        let found = match self.partition(&asked.topic, asked.partition).await {
            Ok(partition) => partition.fetch_records(asked.offset, 1..FETCHED, WAIT).await,
            Err(error) => Err(error),
        };
        let (records, _) = self.told(found)?;
        let message = |found: rskafka::record::RecordAndOffset| KafkaMessage {
            offset: found.offset,
            timestamp: found.record.timestamp.timestamp_millis(),
            key: found.record.key.unwrap_or_default(),
            value: found.record.value.unwrap_or_default(),
        };
        Ok(records.into_iter().map(message).collect())
    }

    async fn partition(&mut self, topic: &str, number: i32) -> Result<&PartitionClient, Error> {
        let key = (topic.to_owned(), number);
        if !self.partitions.contains_key(&key) {
            let client = match &self.client {
                Some(client) => client,
                None => self.client.insert(connect(&self.brokers).await?),
            };
            let partition = client.partition_client(topic, number, UnknownTopicHandling::Error).await?;
            if self.partitions.len() == REMEMBERED {
                self.partitions.clear();
            }
            self.partitions.insert(key.clone(), partition);
        }
        Ok(&self.partitions[&key])
    }

    /// What came of it in Kafka's words. After anything but a broker's own refusal the cluster is asked afresh.
    fn told<T>(&mut self, found: Result<T, Error>) -> Result<T, String> {
        found.map_err(|error| match error {
            Error::ServerError { protocol_error: ProtocolError::UnknownTopicOrPartition, .. } => {
                "not found topic".to_owned()
            }
            Error::ServerError { protocol_error, .. } => kafkas_name(&format!("{protocol_error:?}")),
            error => {
                self.partitions.clear();
                self.client = None;
                tracing::warn!(%error, brokers = ?self.brokers.addresses, "Kafka can't be asked");
                error.to_string()
            }
        })
    }
}

/// Fails soon: whoever asks can ask again, and knows best for how long.
async fn connect(brokers: &Brokers) -> Result<Client, Error> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(400),
        base: 2.,
        deadline: Some(Duration::from_millis(500)),
    };
    let mut builder = ClientBuilder::new(brokers.addresses.clone())
        .client_id("keelgate")
        .max_message_size(LARGEST)
        .backoff_config(backoff);
    if let Some(tls) = &brokers.tls {
        builder = builder.tls_config(Arc::clone(tls));
    }
    if let Some((name, password)) = &brokers.sasl {
        let credentials = Credentials::new(name.clone(), password.clone());
        builder = builder.sasl_config(SaslConfig::Plain(credentials));
    }
    builder.build().await
}

/// `OFFSET_OUT_OF_RANGE` of `OffsetOutOfRange`.
fn kafkas_name(name: &str) -> String {
    let mut words = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_kafkas_documentation() {
        let name = |error: ProtocolError| kafkas_name(&format!("{error:?}"));
        assert_eq!(name(ProtocolError::OffsetOutOfRange), "OFFSET_OUT_OF_RANGE");
        assert_eq!(name(ProtocolError::UnknownTopicOrPartition), "UNKNOWN_TOPIC_OR_PARTITION");
    }
}
