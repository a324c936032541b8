//! control

pub mod admin;
pub mod etcd;
