//! Compiles `proto/etcd.proto` without `protoc`.
fn main() {}
