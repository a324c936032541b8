//! etcd v3's gRPC interface, client and server, generated from `proto/etcd.proto`.
//!
//! The rule to know: names and field numbers are etcd's; nothing of ours may be added to them.
#![allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications)]

tonic::include_proto!("etcdserverpb");
include!(concat!(env!("OUT_DIR"), "/etcdserverpb.serde.rs"));
