//! How a request is counted: what a plugin says of it, and what follows from the request itself.

use serde_json::Value;

use super::Labels;
use crate::ctx::Ctx;

/// How a request is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// By the names of route and service, where they have any; else by their ids.
    pub by_name: bool,
    pub hidden: Hidden,
}

/// A family of what is counted per request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Status,
    Latency,
    Bandwidth,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::Status, Self::Latency, Self::Bandwidth];

    /// Its name without prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "http_status",
            Self::Latency => "http_latency",
            Self::Bandwidth => "bandwidth",
        }
    }
}

/// The labels that may be hidden, each of the families that have it.
const LABELS: [&str; 10] = [
    "route",
    "matched_uri",
    "matched_host",
    "service",
    "consumer",
    "node",
    "request_type",
    "request_llm_model",
    "llm_model",
    "response_source",
];
/// Those that only [`Family::Status`] has.
const OF_STATUS: [&str; 3] = ["matched_uri", "matched_host", "response_source"];

/// Labels that are left empty, by family: APISIX's `disabled_labels`. Fewer labels, fewer series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hidden(u32);

impl Hidden {
    /// Reads `{"http_status": ["node", …], …}`; what it does not know hides nothing.
    pub fn read(disabled: &Value) -> Self {
        let named = |family: Family| disabled[family.name()].as_array().into_iter().flatten();
        let bits = Family::ALL.into_iter().flat_map(|family| {
            named(family).filter_map(Value::as_str).filter_map(move |label| bit(family, label))
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    pub fn hides(self, family: Family, label: &str) -> bool {
        bit(family, label).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether no family shows it, so that requests need not be told apart by it.
    fn hides_everywhere(self, label: &str) -> bool {
        let shown_nowhere = |family| {
            let without = family != Family::Status && OF_STATUS.contains(&label);
            without || self.hides(family, label)
        };
        self.0 != 0 && Family::ALL.into_iter().all(shown_nowhere)
    }
}

fn bit(family: Family, label: &str) -> Option<u32> {
    let at = LABELS.iter().position(|known| *known == label)?;
    Some(1 << (family as usize * LABELS.len() + at))
}

impl Counting {
    /// What a request that is over is counted under.
    pub fn labels(self, ctx: &Ctx) -> Labels<'_> {
        let called = |id: Option<_>, name: Option<_>| name.filter(|_| self.by_name).or(id).unwrap_or("");
        let shown = |label, text| if self.hidden.hides_everywhere(label) { "" } else { text };
        let attempt = ctx.attempts.last();
        Labels {
            code: ctx.response.status.as_u16(),
            route: shown("route", called(ctx.route_id(), ctx.route_name())),
            service: shown("service", called(ctx.service_id(), ctx.service_name())),
            matched_uri: shown("matched_uri", ctx.matched_uri().unwrap_or("")),
            matched_host: shown("matched_host", ctx.matched_host().unwrap_or("")),
            consumer: shown("consumer", ctx.consumer.as_ref().map_or("", |consumer| &*consumer.name)),
            node: shown("node", attempt.map_or("", |attempt| attempt.node.ip())),
            source: match attempt {
                None => "apisix",
                Some(attempt) if attempt.status.is_some() => "upstream",
                Some(_) => "nginx",
            },
            hidden: self.hidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::{ctx::Attempt, testing::Lab, upstream::Node};

    #[test]
    fn labels_are_hidden_by_family() {
        let hidden = Hidden::read(&json!({
            "http_status": ["route", "node", "matched_uri", "code"],
            "bandwidth": ["node"],
            "llm_latency": ["consumer"],
        }));
        assert!(hidden.hides(Family::Status, "route") && !hidden.hides(Family::Latency, "route"));
        assert!(hidden.hides(Family::Bandwidth, "node") && !hidden.hides(Family::Latency, "node"));
        assert!(!hidden.hides(Family::Status, "code") && !hidden.hides(Family::Status, "consumer"));
        assert!(hidden.hides_everywhere("matched_uri") && !hidden.hides_everywhere("node"));
        assert_eq!(Hidden::read(&Value::Null), Hidden::default());
    }

    #[test]
    fn a_request_is_called_what_its_route_is() {
        let lab = Lab::with(&[
            ("services/s", json!({"name": "the service"})),
            (
                "routes/1",
                json!({"uri": "/a", "name": "the route", "hosts": ["a.com"], "service_id": "s",
                       "upstream": {"nodes": {"127.0.0.1:1": 1}}}),
            ),
        ]);
        let mut ctx = lab.request("/a", &[("Host", "a.com")]);
        let labels = Counting::default().labels(&ctx);
        assert_eq!((labels.route, labels.service, labels.source), ("1", "s", "apisix"));
        assert_eq!((labels.matched_uri, labels.matched_host, labels.node), ("/a", "a.com", ""));

        ctx.attempts.push(Attempt::new(Arc::new(Node::new("127.0.0.1", 1, 1, 0))));
        assert_eq!(Counting::default().labels(&ctx).source, "nginx");
        ctx.attempts[0].status = Some(StatusCode::OK);
        let hidden = Hidden::read(&json!({"http_status": ["matched_host"], "bandwidth": ["node"]}));
        let labels = Counting { by_name: true, hidden }.labels(&ctx);
        assert_eq!((labels.route, labels.service, labels.source), ("the route", "the service", "upstream"));
        assert_eq!((labels.matched_uri, labels.matched_host, labels.node), ("/a", "", "127.0.0.1"));
    }
}
