//! TLS within QUIC: certificates of the plan in force.
//!
//! The rule to know: one configuration serves all names, so what a certificate asks beyond being shown can't be granted
//! here. One that asks clients for certificates, or does without TLS 1.3, is not shown at all: its names are there over
//! TCP.

use std::{fmt, sync::Arc};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use super::super::PlanCell;
use crate::{
    plan::Plan,
    tls::{Certificate, Handshake, Offer},
};

pub fn crypto(plan: PlanCell, fallback: Option<&str>) -> Result<Arc<QuicServerConfig>, String> {
    let resolver = ByPlan { plan, fallback: fallback.map(str::to_ascii_lowercase) };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(pki::provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h3".to_vec()];
    // Nothing is resumed: what a session was allowed may have changed meanwhile.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map(Arc::new).map_err(|error| error.to_string())
}

/// The certificate for a client that looked for `asked`, where it may be shown over QUIC.
pub fn find(plan: &Plan, asked: Option<&str>, fallback: Option<&str>) -> Option<Arc<Certificate>> {
    let name = asked.or(fallback)?.trim_end_matches('.').to_ascii_lowercase();
    let certificate = plan.certificates.find(&name)?;
    certificate.is_for_quic().then(|| Arc::clone(certificate))
}

/// What a handshake has settled.
pub fn handshake(plan: &Plan, asked: Option<&str>, fallback: Option<&str>) -> Option<Arc<Handshake>> {
    let certificate = find(plan, asked, fallback)?;
    Some(Arc::new(Handshake::over_quic(asked, fallback, certificate)))
}

struct ByPlan {
    plan: PlanCell,
    fallback: Option<String>,
}

impl ResolvesServerCert for ByPlan {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let plan = self.plan.load();
        let certificate = find(&plan, hello.server_name(), self.fallback.as_deref())?;
        certificate.config(Offer::Http1).cert_resolver.resolve(hello)
    }
}

impl fmt::Debug for ByPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByPlan")
    }
}
