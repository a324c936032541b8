//! The configuration API: etcd v3 as data planes speak it, over gRPC and over JSON, and heartbeats.
//!
//! The rule to know: an APISIX data plane pointed at this port must not notice that it is not etcd.

mod api;
mod gateway;
mod grpc;
pub mod heartbeat;
pub mod instances;
mod keyspace;
pub mod mirror;
mod watcher;

use std::sync::Arc;

use axum::Router;
use model::InstanceEnvelope;
use sha2::{Digest as _, Sha256};
use store::{
    Store,
    etcd::proto::{
        auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
};

use tokio::sync::Semaphore;

use self::{api::Api, instances::Instances, mirror::Mirror};

/// The etcd whose behaviour this is; APISIX asks for 3.4 at least.
const ETCD_VERSION: &str = "3.5.0";
/// Bytes of one gRPC request.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;

/// What clients may do with resources. Instance keys can always be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For data planes.
    ReadOnly,
    /// For tests of the interface itself.
    ReadWrite,
}

/// What the configuration API serves.
pub struct Config {
    /// etcd's key prefix. Default `/apisix`.
    pub prefix: Arc<str>,
    pub access: Access,
    pub group: Arc<str>,
    pub instance: Arc<InstanceEnvelope>,
}

/// The services, cheap to clone.
#[derive(Clone)]
pub struct Service {
    api: Arc<Api>,
}

/// Everything the listeners on 7900 and 7943 serve.
pub fn router(
    config: Config,
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    instances: Arc<Instances>,
) -> Router {
    let cluster = cluster_id(&store.store_id());
    let Config { prefix, access, group, instance } = config;
    let turns = Semaphore::new(api::READS);
    let service = Service { api: Arc::new(Api { prefix, mirror, instances, store, access, cluster, turns }) };
    let grpc =
        tonic::service::Routes::new(KvServer::new(service.clone()).max_decoding_message_size(REQUEST_LIMIT))
            .add_service(WatchServer::new(service.clone()))
            .add_service(LeaseServer::new(service.clone()))
            .add_service(ClusterServer::new(service.clone()))
            .add_service(MaintenanceServer::new(service.clone()))
            .add_service(AuthServer::new(service.clone()))
            .into_axum_router();
    gateway::router(service.clone())
        .merge(heartbeat::router(heartbeat::Answerer { service, group, instance }))
        .merge(grpc)
        .fallback(gateway::unknown)
}

/// A number for the store's lineage, as etcd has one for its cluster.
fn cluster_id(store_id: &str) -> u64 {
    let digest = Sha256::digest(store_id.as_bytes());
    digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte))
}
