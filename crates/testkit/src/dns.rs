//! A DNS server whose records a test changes, and which dies on command.
//!
//! ```text
//! let dns = Dns::start();
//! dns.set("a.test", &["127.0.0.1"], 1);
//! dns.stop();
//! ```
//!
//! The one rule: names that were never set do not exist; any text may be one, underscores and all. It speaks UDP.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use tokio::net::UdpSocket;

use crate::background::{Task, handle};
use crate::ports;

/// A running DNS server; stops with its handle.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Zone>,
    running: Mutex<Option<Task>>,
}

#[derive(Debug, Default)]
struct Zone {
    records: Mutex<BTreeMap<String, Vec<Record>>>,
    /// How often each name was asked for.
    asked: Mutex<HashMap<String, u64>>,
}

impl Dns {
    pub fn start() -> Self {
        let dns = Self { address: ports::address(), zone: Arc::default(), running: Mutex::default() };
        dns.restart();
        dns
    }

    /// `127.0.0.1:port`, as in `apisix.dns_resolver`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Replaces a name's addresses. None: there is no such name any more.
    pub fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let records = addresses.iter().map(|address| match address.parse().expect("an address") {
            IpAddr::V4(ip) => RData::A(rdata::A(ip)),
            IpAddr::V6(ip) => RData::AAAA(rdata::AAAA(ip)),
        });
        self.records(name, records.collect(), ttl);
    }

    /// Replaces a name's servers: priority, weight, port, target.
    pub fn set_srv(&self, name: &str, servers: &[(u16, u16, u16, &str)], ttl: u32) {
        let records = servers.iter().map(|&(priority, weight, port, target)| {
            RData::SRV(rdata::SRV::new(priority, weight, port, self::name(target)))
        });
        self.records(name, records.collect(), ttl);
    }

    fn records(&self, name: &str, data: Vec<RData>, ttl: u32) {
        let records: Vec<_> =
            data.into_iter().map(|data| Record::from_rdata(self::name(name), ttl, data)).collect();
        let mut zone = self.zone.records.lock().unwrap();
        if records.is_empty() {
            zone.remove(name);
        } else {
            zone.insert(name.to_owned(), records);
        }
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> u64 {
        self.zone.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Answers nobody any more.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop();
        }
    }

    /// Answers again, at the same address.
    pub fn restart(&self) {
        self.stop();
        let socket = std::net::UdpSocket::bind(self.address).expect("the port is leased");
        socket.set_nonblocking(true).expect("a socket for tokio");
        let _context = handle().enter();
        let socket = UdpSocket::from_std(socket).expect("a socket for tokio");
        *self.running.lock().unwrap() = Some(Task::spawn(serve(socket, self.zone.clone())));
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        if let Ok(answer) = zone.answer(&question).to_vec() {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

impl Zone {
    fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        let Some(query) = question.queries.first() else { return answer };
        answer.add_query(query.clone());
        let asked = query.name().to_utf8().trim_end_matches('.').to_ascii_lowercase();
        *self.asked.lock().unwrap().entry(asked.clone()).or_default() += 1;
        match self.records.lock().unwrap().get(&asked) {
            Some(records) => {
                answer.add_answers(records.iter().filter(|record| fits(record, query)).cloned());
            }
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer
    }
}

fn fits(record: &Record, query: &Query) -> bool {
    query.query_type() == RecordType::ANY || record.record_type() == query.query_type()
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str_relaxed(text).expect("a name");
    name.set_fqdn(true);
    name
}
