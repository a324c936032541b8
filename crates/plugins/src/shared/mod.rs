//! What several plugins need.

pub mod decode;
pub mod escape;
pub mod header;
pub mod query;
pub mod substitution;

/// Whether a text stands for a secret or a variable of the environment. On the control plane it is not resolved, so
/// nothing can be said of it there.
pub fn is_reference(text: &str) -> bool {
    let begins_with =
        |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins_with("$secret://") || begins_with("$env://")
}
