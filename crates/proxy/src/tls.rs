//! TLS towards clients: which certificate is shown, what is asked of the client, and what requests may rely on then.
//!
//! The rule to know: everything a handshake needs is built when the plan is compiled, one rustls configuration for
//! each certificate; the handshake reads the plan that is in force when the client has said whom it looks for.
//! Certificates are part of the plan, so a certificate and the routes that came with it change together.

mod accept;
mod certificate;
mod ciphers;
mod clients;
mod handshake;
mod ocsp;
mod resumption;

use std::sync::Arc;

use rustls::{RootCertStore, crypto::CryptoProvider};
use smallvec::SmallVec;

pub use accept::{Acceptor, Failure};
pub use certificate::{BadCertificate, Certificate, Offer};
pub use ciphers::{Ciphers, name as cipher_name};
pub use clients::Clients;
pub use handshake::{Handshake, Peer, Refusal};
pub use ocsp::Staple;

/// `apisix.ssl`, as far as plans go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For certificates that don't say themselves.
    pub tls12: bool,
    pub tls13: bool,
    /// The cipher suites, as [`Ciphers`] reads them, and all else that rustls computes with.
    pub provider: Arc<CryptoProvider>,
    /// Resumption by tickets rather than by what we remember.
    pub tickets: bool,
    /// Whom upstreams' certificates must come from, where they are checked.
    pub roots: Arc<RootCertStore>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
            provider: Arc::clone(pki::provider()),
            tickets: false,
            roots: Arc::new(RootCertStore::empty()),
        }
    }
}

/// All certificates of a plan, by name. Cloning shares; changing one of many is cheap.
#[derive(Clone, Default)]
pub struct Certificates {
    exact: Table,
    /// By what comes after the `*`: `.example.com`, or nothing.
    wild: Table,
    /// How many ask clients for certificates.
    asking: usize,
    /// Those that are shown with their issuer's word, by id.
    stapling: imbl::OrdMap<Arc<str>, Arc<Certificate>>,
}

type Table = imbl::HashMap<Arc<str>, SmallVec<[Arc<Certificate>; 1]>>;

impl Certificates {
    /// Adds it for all its names. Among several for one name, the one of the smallest id is shown.
    pub fn insert(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            let (table, name) = self.table(name);
            let held = table.entry(name).or_default();
            // Before one of the same id: that is the one it takes the place of.
            let at = held.partition_point(|other| other.id < certificate.id);
            held.insert(at, Arc::clone(certificate));
        }
        self.asking += usize::from(certificate.clients.is_some());
        if certificate.staples().next().is_some() {
            self.stapling.insert(Arc::clone(&certificate.id), Arc::clone(certificate));
        }
    }

    /// Takes out what [`Certificates::insert`] added.
    pub fn remove(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            let (table, name) = self.table(name);
            let Some(mut held) = table.remove(&name) else { continue };
            held.retain(|other| !Arc::ptr_eq(other, certificate));
            if !held.is_empty() {
                table.insert(name, held);
            }
        }
        self.asking -= usize::from(certificate.clients.is_some());
        if self.stapling.get(&certificate.id).is_some_and(|held| Arc::ptr_eq(held, certificate)) {
            self.stapling.remove(&certificate.id);
        }
    }

    fn table(&mut self, name: &Arc<str>) -> (&mut Table, Arc<str>) {
        match name.strip_prefix('*') {
            Some(rest) => (&mut self.wild, rest.into()),
            None => (&mut self.exact, Arc::clone(name)),
        }
    }

    /// The certificate for a server name in lower case: the exact name, then the wildcard that leaves least to the
    /// `*`. A `*` stands for what is in one label; alone, for every name.
    pub fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        if let Some(held) = self.exact.get(name) {
            return held.first();
        }
        if self.wild.is_empty() {
            return None;
        }
        let label = name.find('.').unwrap_or(name.len());
        let mut rests = (0..=label).filter_map(|at| name.get(at..)).chain([""]);
        rests.find_map(|rest| self.wild.get(rest)).and_then(|held| held.first())
    }

    /// What issuers have to be asked for.
    pub fn staples(&self) -> impl Iterator<Item = &Arc<Staple>> {
        self.stapling.values().flat_map(|certificate| certificate.staples())
    }

    /// Whether any asks clients for certificates.
    fn is_asking(&self) -> bool {
        self.asking > 0
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wild.is_empty()
    }
}

#[cfg(test)]
mod tests;
