//! `prometheus`: has the requests of a route, a service or all of them counted.
//!
//! The rule to know: the plugin only says that a request counts, and how; the engine counts it when nobody waits any
//! more.
//!
//! Behaviour: <https://apisix.apache.org/docs/apisix/plugins/prometheus/>.

use proxy::{
    ctx::Ctx,
    metrics::{Counting, Hidden},
    plugin::{Env, Hooks, Phase, Plugin},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
pub struct Conf {
    prefer_name: bool,
}

pub struct Prometheus {
    counting: Counting,
}

impl Plugin for Prometheus {
    const NAME: &'static str = "prometheus";
    const PRIORITY: i32 = 500;
    const PHASES: &'static [Phase] = &[Phase::Log];
    const ON_STREAMS: bool = true;
    const PREFER_ROUTE: bool = true;
    const METADATA_SCHEMA: Option<fn() -> Value> = Some(metadata_schema);

    type Conf = Conf;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "prefer_name": {
                    "description": "count by the names of routes and services, where they have any",
                    "type": "boolean",
                    "default": false
                }
            }
        })
    }

    fn new(conf: Conf, env: &Env<'_>) -> Result<Self, String> {
        let hidden = Hidden::read(&env.metadata["disabled_labels"]);
        Ok(Self { counting: Counting { by_name: conf.prefer_name, hidden } })
    }
}

/// What APISIX counts, and the labels without which it would still mean something.
const FAMILIES: [(&str, &str); 13] = [
    ("http_status", "route matched_uri matched_host service consumer node response_source"),
    ("http_latency", "route service consumer node"),
    ("bandwidth", "route service consumer node"),
    ("llm_latency", "route_id service_id consumer node"),
    ("llm_prompt_tokens", "route_id service_id consumer node"),
    ("llm_completion_tokens", "route_id service_id consumer node"),
    ("llm_active_connections", "route route_id matched_uri matched_host service service_id consumer node"),
    ("llm_prompt_tokens_dist", "route_id service_id consumer node"),
    ("llm_completion_tokens_dist", "route_id service_id consumer node"),
    ("ai_cache_hits_total", "route route_id service service_id consumer node"),
    ("ai_cache_misses_total", "route route_id service service_id consumer node"),
    ("ai_cache_bypasses_total", "route route_id service service_id consumer node"),
    ("ai_cache_embedding_latency", "route route_id service service_id consumer node"),
];
/// Labels that all of them have.
const OF_ALL: [&str; 3] = ["request_type", "request_llm_model", "llm_model"];

fn metadata_schema() -> Value {
    let family = |(name, labels): (&str, &str)| {
        let labels: Vec<&str> = labels.split(' ').chain(OF_ALL).collect();
        (name.to_owned(), json!({"type": "array", "items": {"type": "string", "enum": labels}}))
    };
    let families: Map<String, Value> = FAMILIES.into_iter().map(family).collect();
    json!({
        "type": "object",
        "properties": {
            "disabled_labels": {
                "description": "labels that are left empty, by what is counted",
                "type": "object",
                "properties": families,
                "additionalProperties": false
            }
        }
    })
}

impl Hooks for Prometheus {
    fn log(&self, ctx: &Ctx) {
        ctx.count(self.counting);
    }
}

#[cfg(test)]
mod tests {
    use model::schema::Validator;
    use proxy::metrics::Family;

    use super::*;
    use crate::testing::Lab;

    #[test]
    fn a_request_is_counted_as_it_is_asked_for() {
        let metadata = json!({"disabled_labels": {"http_status": ["route", "node"], "bandwidth": ["node"]}});
        let lab = Lab { metadata, ..Lab::default() };
        let ctx = Ctx::example("GET", "/hello", &[]);
        assert_eq!(ctx.counted(), None);
        lab.build::<Prometheus>(json!({})).unwrap().log(&ctx);
        let counting = ctx.counted().unwrap();
        assert!(!counting.by_name);
        assert!(counting.hidden.hides(Family::Status, "route"));
        assert!(!counting.hidden.hides(Family::Latency, "node"));
        crate::testing::plugin::<Prometheus>(json!({"prefer_name": true})).log(&ctx);
        assert_eq!(ctx.counted(), Some(Counting { by_name: true, hidden: Hidden::default() }));
    }

    #[test]
    fn labels_that_are_needed_can_not_be_switched_off() {
        let schema = Validator::new(&metadata_schema()).unwrap();
        let check = |disabled: Value| schema.check(&json!({ "disabled_labels": disabled }));
        check(json!({"http_status": ["node", "response_source"], "ai_cache_hits_total": ["route_id"]}))
            .unwrap();
        for (disabled, reason) in [
            (json!({"http_status": ["code"]}), "failed to validate item 1: matches none of the enum values"),
            (
                json!({"bandwidth": ["matched_uri"]}),
                "failed to validate item 1: matches none of the enum values",
            ),
            (json!({"unknown_metric": ["node"]}), "additional properties forbidden, found unknown_metric"),
        ] {
            let error = check(disabled).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
    }
}
