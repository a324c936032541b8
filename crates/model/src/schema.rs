//! The JSON Schema of every kind, and the one check a resource passes before it is kept.
//!
//! The rule to know: schemas are facts (names, limits, defaults) in APISIX's dialect of JSON Schema; what a schema
//! cannot say is in `extra.rs`; references to other resources are the business of who knows the others.

mod checker;
mod common;
mod extra;
mod resources;
mod secret_managers;
mod upstream;
pub mod validator;

use std::sync::LazyLock;

use serde_json::{Value, json};

pub use checker::{Checker, Place, plugin_schema};
pub use extra::{extra_checks, hash_field, hash_variable};
pub use validator::Validator;
pub(crate) use validator::is_reference;

use crate::kind::Kind;

/// The schema of a kind. That of plugin metadata is the plugin's, that of a secret its manager's
/// ([`secret_manager`]): here they are any object.
pub fn of(kind: Kind) -> &'static Value {
    static ALL: LazyLock<[Value; Kind::ALL.len()]> = LazyLock::new(|| Kind::ALL.map(written));
    &ALL[kind as usize]
}

/// The schema of a secret by the name of its manager: `vault`, `aws`, `gcp`.
pub fn secret_manager(name: &str) -> Option<&'static Value> {
    secret_managers::ALL.iter().find(|(known, _)| *known == name).map(|(_, schema)| schema)
}

/// An address or a network: APISIX's `ip_def`, for plugins.
pub fn ip() -> Value {
    common::ip()
}

fn written(kind: Kind) -> Value {
    match kind {
        Kind::Secrets | Kind::PluginMetadata => json!({"type": "object"}),
        Kind::Protos => resources::proto(),
        Kind::Ssls => resources::ssl(),
        Kind::Upstreams => upstream::upstream(),
        Kind::PluginConfigs => resources::plugin_config(),
        Kind::ConsumerGroups => resources::consumer_group(),
        Kind::Consumers => resources::consumer(),
        Kind::Credentials => resources::credential(),
        Kind::GlobalRules => resources::global_rule(),
        Kind::Services => resources::service(),
        Kind::Routes => resources::route(),
        Kind::StreamRoutes => resources::stream_route(),
    }
}

#[cfg(test)]
mod tests;
