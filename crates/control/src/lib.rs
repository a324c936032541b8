//! The control plane: Admin API, configuration API, exporter, console.
//!
//! The rule to know: writes come in through [`admin`] alone; everything else reads the store.

pub mod admin;
pub mod console;
pub mod etcd;
pub mod export;
