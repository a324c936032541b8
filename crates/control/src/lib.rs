//! control

pub mod etcd;
