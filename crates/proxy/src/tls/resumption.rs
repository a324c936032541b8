//! How clients come back without a whole handshake.
//!
//! The rule to know: a session is resumed only under the terms it was made under. What clients must prove is part of
//! them: certificates that ask for the same share their sessions, others never see them. rustls sees to it that a
//! session is resumed for the name it was made for, and for no other.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    server::{NoServerSessionStorage, ProducesTickets, StoresServerSessions},
};

use super::{Clients, Settings};
use crate::lasting::Lasting;

/// Where the sessions of one certificate are kept.
pub enum Kept {
    /// By us, for all workers.
    Here(Arc<Sessions>),
    /// By the clients, encrypted.
    There(Arc<Tickets>),
}

/// A key for tickets that outlives configurations, so that a ticket does too.
#[derive(Debug)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

impl Kept {
    /// Tickets live for hours; who has shown a certificate is looked at again after minutes.
    pub fn new(
        clients: Option<&Clients>,
        settings: &Settings,
        lasting: &Lasting,
    ) -> Result<Self, rustls::Error> {
        let name = match clients {
            Some(clients) => format!("tls-sessions/{}", clients.terms()),
            None if settings.tickets => {
                let name = "tls-tickets";
                if let Some(tickets) = lasting.get(name) {
                    return Ok(Self::There(tickets));
                }
                let tickets = Tickets(Ticketer::new()?);
                return Ok(Self::There(lasting.get_or(name, || tickets)));
            }
            None => "tls-sessions".to_owned(),
        };
        Ok(Self::Here(lasting.get_or(&name, Sessions::default)))
    }

    pub fn give(self, config: &mut ServerConfig) {
        match self {
            Self::Here(sessions) => config.session_storage = sessions,
            Self::There(tickets) => {
                config.ticketer = tickets;
                config.session_storage = Arc::new(NoServerSessionStorage {});
            }
        }
    }
}

/// Sessions we remember, each for as long as nginx does by default.
#[derive(Default)]
pub struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_id: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// The oldest first; those taken out since are still in it.
    ids: VecDeque<(Instant, Vec<u8>)>,
}

impl Sessions {
    /// How many; each takes some 300 bytes.
    const MOST: usize = 20_480;
    const LIFE: Duration = Duration::from_secs(600);

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_at(&self, now: Instant, id: Vec<u8>, session: Vec<u8>) {
        let mut table = self.table();
        while table
            .ids
            .front()
            .is_some_and(|(made, _)| table.ids.len() >= Self::MOST || now.duration_since(*made) >= Self::LIFE)
        {
            let Some((made, oldest)) = table.ids.pop_front() else { break };
            // Its id may have been given again meanwhile.
            if table.by_id.get(&oldest).is_some_and(|(since, _)| *since == made) {
                table.by_id.remove(&oldest);
            }
        }
        table.ids.push_back((now, id.clone()));
        table.by_id.insert(id, (now, session));
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.put_at(Instant::now(), id, session);
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let table = self.table();
        let (made, session) = table.by_id.get(id)?;
        (made.elapsed() < Self::LIFE).then(|| session.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (made, session) = self.table().by_id.remove(id)?;
        (made.elapsed() < Self::LIFE).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_none_stays_for_long() {
        let sessions = Sessions::default();
        let now = Instant::now();
        for n in 0..Sessions::MOST + 2 {
            sessions.put_at(now, n.to_be_bytes().to_vec(), vec![1]);
        }
        let get = |n: usize| sessions.get(&n.to_be_bytes());
        assert_eq!((get(0), get(1), get(2)), (None, None, Some(vec![1])));
        assert_eq!(sessions.take(&2_usize.to_be_bytes()), Some(vec![1]));
        assert_eq!(get(2), None);
        sessions.put_at(now + Sessions::LIFE, vec![9], vec![2]);
        let table = sessions.table();
        assert_eq!((table.by_id.len(), table.ids.len()), (1, 1), "only the new one is left");
    }
}
