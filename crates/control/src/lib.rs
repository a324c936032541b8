//! control

pub mod admin;
pub mod etcd;
pub mod export;
