//! What one registry has said: the services it knows, and how it fares.
//!
//! The rule to know: a registry that can't be heard changes nothing. One that can is believed, also when it says that
//! a service has no endpoints any more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::SystemTime,
};

use tokio::sync::Notify;

use super::{Endpoint, Inner, Kind, Registry, lock};

/// Services and their endpoints.
pub type Services = BTreeMap<Arc<str>, Arc<[Endpoint]>>;

/// Where a registry's task writes what it hears.
pub struct Board {
    kind: Kind,
    directory: Weak<Inner>,
    table: Mutex<Table>,
    woken: Notify,
}

#[derive(Default)]
struct Table {
    /// By the server or cluster that knows them.
    parts: Vec<Part>,
    /// What a service that nobody knows has.
    default: Option<Arc<[Endpoint]>>,
    /// Whether services are asked for one by one: then one that is not in the table may still be there.
    one_by_one: bool,
}

#[derive(Clone, Default)]
struct Part {
    services: Services,
    /// Whether it has answered or failed.
    settled: bool,
    /// When it answered last.
    at: Option<SystemTime>,
    error: Option<String>,
}

/// How a registry fares.
#[derive(Clone, Debug)]
pub struct Heard {
    pub kind: Kind,
    /// How many services it knows.
    pub services: usize,
    pub last_answer: Option<SystemTime>,
    pub last_error: Option<String>,
}

impl Board {
    pub(super) fn new(registry: &Registry, directory: &Arc<Inner>) -> Self {
        let table = Table {
            parts: vec![Part::default(); registry.parts()],
            default: registry.default_service().map(|endpoint| Arc::from([endpoint])),
            one_by_one: registry.kind() == Kind::Nacos,
        };
        let directory = Arc::downgrade(directory);
        Self { kind: registry.kind(), directory, table: Mutex::new(table), woken: Notify::new() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// All services that one server knows: what is not among them has no endpoints.
    pub fn publish(&self, part: usize, services: Services) {
        {
            let mut table = lock(&self.table);
            let part = &mut table.parts[part];
            *part = Part { services, settled: true, at: Some(SystemTime::now()), error: None };
        }
        self.spread();
    }

    /// A server says what it said before.
    pub fn heard_again(&self, part: usize) {
        let mut table = lock(&self.table);
        let part = &mut table.parts[part];
        (part.at, part.error) = (Some(SystemTime::now()), None);
    }

    /// Services as they were, before any server has been heard.
    pub fn preload(&self, services: Services) {
        lock(&self.table).parts[0].services = services;
        self.spread();
    }

    /// The endpoints of one service, where services are asked for one by one.
    pub fn publish_one(&self, name: &Arc<str>, endpoints: Arc<[Endpoint]>) {
        {
            let mut table = lock(&self.table);
            let part = &mut table.parts[0];
            part.services.insert(Arc::clone(name), endpoints);
            (part.settled, part.at, part.error) = (false, Some(SystemTime::now()), None);
        }
        self.spread();
    }

    /// Forgets services that nobody follows any more, where they are asked for one by one.
    pub fn retain(&self, wanted: &[Arc<str>]) {
        lock(&self.table).parts[0].services.retain(|name, _| wanted.contains(name));
    }

    /// A server can't be heard, or says what nobody understands.
    pub fn failed(&self, part: usize, error: &str) {
        let first = {
            let mut table = lock(&self.table);
            let part = &mut table.parts[part];
            let first = part.error.is_none();
            (part.settled, part.error) = (true, Some(error.to_owned()));
            first
        };
        if first {
            tracing::warn!(
                registry = self.kind.name(),
                error,
                "a registry can't be heard; its last answer stays"
            );
        }
        self.spread();
    }

    /// The endpoints of a service, once they are known; none while a server has still to be heard.
    pub fn find(&self, name: &str) -> Option<Arc<[Endpoint]>> {
        let table = lock(&self.table);
        let known = table.parts.iter().find_map(|part| part.services.get(name));
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let all_answered = !table.one_by_one && table.parts.iter().all(|part| part.at.is_some());
        all_answered.then(|| table.default.clone().unwrap_or_default())
    }

    /// Whether these come from the configuration, not from the registry.
    pub fn is_default(&self, endpoints: &[Endpoint]) -> bool {
        lock(&self.table).default.as_deref() == Some(endpoints)
    }

    /// All services.
    pub fn services(&self) -> Services {
        let table = lock(&self.table);
        table.parts.iter().rev().flat_map(|part| part.services.clone()).collect()
    }

    /// The services of one server or cluster.
    pub fn part(&self, at: usize) -> Services {
        lock(&self.table).parts.get(at).map(|part| part.services.clone()).unwrap_or_default()
    }

    /// What is followed of this registry.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        let Some(directory) = self.directory.upgrade() else { return Vec::new() };
        directory.followed_of(self.kind).into_iter().map(|answer| Arc::clone(&answer.query.name)).collect()
    }

    /// Something new is followed.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits until something new is followed.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    pub fn heard(&self) -> Heard {
        let table = lock(&self.table);
        Heard {
            kind: self.kind,
            services: table.parts.iter().map(|part| part.services.len()).sum(),
            last_answer: table.parts.iter().filter_map(|part| part.at).max(),
            last_error: table.parts.iter().find_map(|part| part.error.clone()),
        }
    }

    /// Tells whoever follows.
    fn spread(&self) {
        let Some(directory) = self.directory.upgrade() else { return };
        let mut changed = false;
        for answer in directory.followed_of(self.kind) {
            match self.find(&answer.query.name) {
                Some(endpoints) => {
                    if endpoints.is_empty() && !answer.state().endpoints.is_empty() {
                        let (registry, service) = (self.kind.name(), &*answer.query.name);
                        tracing::warn!(
                            registry,
                            service,
                            "the registry has no endpoints of this service any more"
                        );
                    }
                    changed |= answer.publish(endpoints);
                }
                None => self.do_without(&answer),
            }
        }
        if changed {
            directory.kept.wake();
        }
    }

    /// Where a service is not known and a server has failed, nobody waits for it.
    fn do_without(&self, answer: &super::Answer) {
        let (settled, default) = {
            let table = lock(&self.table);
            (table.parts.iter().all(|part| part.settled), table.default.clone())
        };
        match default {
            Some(default) if settled && answer.state().endpoints.is_empty() => {
                answer.publish(default);
            }
            _ if settled => answer.give_up(),
            _ => {}
        }
    }
}
