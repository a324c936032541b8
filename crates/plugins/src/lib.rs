//! The plugins: one file each, one list of all.
//!
//! The rule to know: a line in [`ALL`] is all it takes. The data plane builds plugins from it, the Admin API checks
//! configurations by it, and schema endpoints and the reference page are made of it.

mod cors;
mod ip_restriction;
mod kafka_proxy;
mod key_auth;
mod limit_count;
mod prometheus;
mod proxy_rewrite;
mod redirect;
pub mod reference;
mod request_id;
mod response_rewrite;
mod shared;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use proxy::plugin::Spec;

/// Every plugin, highest priority first.
pub const ALL: &[Spec] = &[
    Spec::of::<request_id::RequestId>(),
    Spec::of::<cors::Cors>(),
    Spec::of::<ip_restriction::IpRestriction>(),
    Spec::of::<key_auth::KeyAuth>(),
    Spec::of::<proxy_rewrite::ProxyRewrite>(),
    Spec::of::<limit_count::LimitCount>(),
    Spec::of::<redirect::Redirect>(),
    Spec::of::<response_rewrite::ResponseRewrite>(),
    Spec::of::<kafka_proxy::KafkaProxy>(),
    Spec::of::<prometheus::Prometheus>(),
];
