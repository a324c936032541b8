//! An etcd watch as the batches of a store.
//!
//! The rule to know: a stream either goes on without gaps or ends with an error; it never reconnects by itself,
//! since only its reader knows which revision it has.

use std::{collections::VecDeque, sync::Arc};

use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::Status;

use super::{
    client::Client,
    keys::{Keys, text, unsigned},
    proto::{Event, WatchResponse, event::EventType},
};
use crate::{Batch, Error};

/// Makes batches of what etcd says.
pub(super) struct Reader {
    pub client: Client,
    pub keys: Keys,
    pub store_id: Arc<str>,
    /// The revision asked for, then the last one given.
    pub seen: u64,
}

impl Reader {
    pub fn batches(
        self,
        responses: BoxStream<'static, Result<WatchResponse, Status>>,
    ) -> BoxStream<'static, Result<Batch, Error>> {
        let start = (self, responses, VecDeque::new());
        let batches = stream::unfold(Some(start), async |state| {
            let (mut reader, mut responses, mut ready): (Self, _, VecDeque<Batch>) = state?;
            loop {
                if let Some(batch) = ready.pop_front() {
                    return Some((Ok(batch), Some((reader, responses, ready))));
                }
                let response = match responses.next().await {
                    Some(Ok(response)) => response,
                    Some(Err(status)) => return Some((Err(reader.client.error(&status)), None)),
                    None => return Some((Err(reader.ended("the connection was closed")), None)),
                };
                match reader.read(&response) {
                    Ok(batches) => ready.extend(batches),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        batches.boxed()
    }

    /// One response has whole revisions, in order: we don't ask for fragments.
    fn read(&mut self, response: &WatchResponse) -> Result<Vec<Batch>, Error> {
        if response.canceled {
            return Err(match unsigned(response.compact_revision) {
                0 => self.ended(&response.cancel_reason),
                oldest => Error::Compacted { asked: self.seen, oldest },
            });
        }
        let mut batches: Vec<Batch> = vec![];
        for event in &response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| unsigned(kv.mod_revision));
            let same = batches.last().is_some_and(|batch| batch.revision == revision);
            if !same {
                self.advance(revision)?;
                batches.push(Batch { revision, changes: vec![] });
            }
            if self.renames(event) {
                return Err(Error::Compacted { asked: self.seen, oldest: revision });
            }
            if let Some(batch) = batches.last_mut() {
                batch.changes.extend(self.keys.change(event));
            }
        }
        // Progress: nothing of ours happened up to the revision in the header.
        let told = response.header.as_ref().map_or(0, |header| unsigned(header.revision));
        if response.events.is_empty() && !response.created && told > self.seen {
            self.seen = told;
            batches.push(Batch { revision: told, changes: vec![] });
        }
        Ok(batches)
    }

    /// A revision that was passed already may have been missed in part: only a snapshot can tell.
    fn advance(&mut self, revision: u64) -> Result<(), Error> {
        if revision <= self.seen {
            return Err(Error::Compacted { asked: self.seen, oldest: self.seen });
        }
        self.seen = revision;
        Ok(())
    }

    /// Whether this is the end of the lineage: from here on it would be another store's history.
    fn renames(&self, event: &Event) -> bool {
        let Some(kv) = event.kv.as_ref().filter(|kv| kv.key == self.keys.store_id()) else { return false };
        event.r#type() == EventType::Delete || text(&kv.value) != self.store_id
    }

    fn ended(&self, reason: &str) -> Error {
        Error::Unavailable { store: self.client.to_string(), reason: format!("the watch ended: {reason}") }
    }
}
