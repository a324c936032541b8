//! The plugins: one file each, one list of all.
//!
//! The rule to know: a line in [`ALL`] is all it takes. The data plane builds plugins from it, the Admin API checks
//! configurations by it, and schema endpoints and the reference page are made of it.

mod cors;
mod ip_restriction;
mod key_auth;
mod redirect;
mod request_id;
mod shared;

use proxy::plugin::Spec;

/// Every plugin, highest priority first.
pub const ALL: &[Spec] = &[
    Spec::of::<request_id::RequestId>(),
    Spec::of::<cors::Cors>(),
    Spec::of::<ip_restriction::IpRestriction>(),
    Spec::of::<key_auth::KeyAuth>(),
    Spec::of::<redirect::Redirect>(),
];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn the_list_is_sorted_and_names_are_unique() {
        for pair in ALL.windows(2) {
            assert!(pair[0].facts.priority >= pair[1].facts.priority, "{}", pair[1].facts.name);
            assert_ne!(pair[0].facts.name, pair[1].facts.name);
        }
    }
}
