//! What several plugins need.

pub mod query;
pub mod substitution;
