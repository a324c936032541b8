//! How requests are matched, as `config.yaml` says.

use super::Kind;
use crate::ctx::PathRules;

/// How requests are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// `apisix.router.http`.
    pub kind: Kind,
    /// What is done to the path of a request before.
    pub paths: PathRules,
    /// Bytes of a body that variables such as `post_arg.*` may ask for. `apisix.max_post_args_readable_size`.
    pub most_body: u64,
    /// The same for `graphql_*`. `graphql.max_size`.
    pub most_graphql: u64,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            paths: PathRules::default(),
            most_body: 64 * 1024 * 1024,
            most_graphql: 1024 * 1024,
        }
    }
}
