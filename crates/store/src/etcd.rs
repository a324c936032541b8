//! A store in an etcd v3 cluster, and the pieces to speak etcd with.

pub mod proto;
