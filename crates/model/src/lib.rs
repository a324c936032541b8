//! What can be configured: resources and their schemas, snapshots, manifests, secrets. Pure data: no I/O here.

pub mod byte_text;
pub mod expr;
pub mod filter_func;
pub mod instance;
pub mod kind;
pub mod manifest;
pub mod number;
pub mod pattern;
pub mod plugin_facts;
pub mod resource;
pub mod schema;
pub mod secrets;
pub mod snapshot;
pub mod snapshot_file;
pub mod substitute;

pub use instance::{Instance, InstanceEnvelope};
pub use kind::{Key, Kind};
pub use manifest::Manifest;
pub use plugin_facts::PluginFacts;
pub use snapshot::{Change, Resource, Snapshot};
pub use snapshot_file::{FileError, Rejected};
