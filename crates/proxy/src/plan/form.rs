//! What each kind of resource becomes.

use std::sync::Arc;

use http::StatusCode;
use imbl::OrdMap;
use model::Key;
use serde_json::Value;

use super::{Route, Service, consumers::Identities};
use crate::{
    chain::{Chain, PluginSet},
    ctx::Consumer,
    secrets::Manager,
    stream,
    tls::Certificate,
    upstream::Upstream,
};

/// The last good form of every resource.
pub(super) type Forms = OrdMap<Key, Form>;

/// What a resource became. Small: there may be a hundred thousand.
#[derive(Clone)]
pub(super) enum Form {
    Route(Arc<Route>),
    Service(Arc<ServiceForm>),
    Upstream(Arc<Upstream>),
    StreamRoute(Arc<stream::Route>),
    PluginConfig(Arc<Chain>),
    ConsumerGroup(Arc<PluginSet>),
    Consumer(Arc<ConsumerForm>),
    Credential(Arc<Identities>),
    GlobalRule(Arc<PluginSet>),
    /// A certificate of ours, towards clients.
    Certificate(Arc<Certificate>),
    /// A certificate of ours, towards upstreams.
    ClientIdentity(Arc<ClientIdentity>),
    Metadata(Arc<Value>),
    SecretManager(Arc<Manager>),
    /// Switched off, or of a kind that nothing is compiled from.
    Nothing,
}

impl Form {
    /// Whether it only stands in for a form that there never was: see [`Route::lacks`].
    pub fn is_stand_in(&self) -> bool {
        match self {
            Self::Route(route) => route.lacks.is_some(),
            Self::Service(service) => service.lacks.is_some(),
            _ => false,
        }
    }

    /// Where requests or sessions go that end here.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        match self {
            Self::Route(route) => route.upstream.as_ref(),
            Self::Service(service) => service.upstream.as_ref(),
            Self::Upstream(upstream) => Some(upstream),
            Self::StreamRoute(route) => route.upstream.as_ref(),
            _ => None,
        }
    }
}

pub(super) struct ServiceForm {
    pub info: Arc<Service>,
    /// Of the service's plugins alone.
    pub chain: Arc<Chain>,
    pub upstream: Option<Arc<Upstream>>,
    pub hosts: Option<Arc<[Box<str>]>>,
    pub websocket: Option<bool>,
    /// As [`Route::lacks`].
    pub lacks: Option<StatusCode>,
}

impl ServiceForm {
    /// Whether its plugins are not those that it should have: nothing may be let through by them.
    pub fn lacks_plugins(&self) -> bool {
        self.lacks.is_some_and(|lacks| lacks != StatusCode::BAD_GATEWAY)
    }
}

pub(super) struct ConsumerForm {
    /// Without an authentication plugin: for who is let in by name.
    pub named: Arc<Consumer>,
    pub identities: Identities,
}

/// PEM.
pub(super) struct ClientIdentity {
    pub cert: Box<str>,
    pub key: model::resource::Hidden,
}
