//! What refers to what: a resource may only point at what is there, and what is pointed at may not be deleted.
//!
//! The rule to know: [`needs`] is asked when something is written and becomes expectations of the commit;
//! [`USES`] is asked when something is deleted. Both are checked under the group's lock, so neither side can slip
//! past the other on this control plane.

use model::{Key, Kind};
use serde_json::Value;
use store::{Expect, Store};

use super::{answer::Answer, place::id_text, ssl};

/// Something a resource points at.
pub struct Need {
    key: Key,
    /// How APISIX names it: `upstream info by upstream id [1]`.
    named: String,
    must: Must,
}

/// What must hold of it besides that it is there.
enum Must {
    Exist,
    /// And its upstream, if it is or has one, must be for HTTP.
    ServeHttp,
    BeClientSsl,
}

/// Everything this configuration points at.
pub fn needs(kind: Kind, conf: &Value) -> Vec<Need> {
    let fields: &[(&str, Kind)] = match kind {
        Kind::Routes => &[
            ("upstream_id", Kind::Upstreams),
            ("service_id", Kind::Services),
            ("plugin_config_id", Kind::PluginConfigs),
        ],
        Kind::StreamRoutes => &[("upstream_id", Kind::Upstreams), ("service_id", Kind::Services)],
        Kind::Services => &[("upstream_id", Kind::Upstreams)],
        Kind::Consumers => &[("group_id", Kind::ConsumerGroups)],
        _ => &[],
    };
    let upstream = if kind == Kind::Upstreams { Some(conf) } else { conf.get("upstream") };
    let client_cert = upstream.and_then(|upstream| id_text(upstream.pointer("/tls/client_cert_id")?));
    let client_cert = client_cert.map(|id| Need {
        named: format!("ssl info by ssl id [{id}]"),
        key: Key::new(Kind::Ssls, id),
        must: Must::BeClientSsl,
    });
    let pointed = fields.iter().filter_map(|(field, target)| {
        let id = id_text(conf.get(field)?)?;
        let noun = target.singular();
        Some(Need {
            named: format!("{noun} info by {noun} id [{id}]"),
            key: Key::new(*target, id),
            must: if kind == Kind::Routes { Must::ServeHttp } else { Must::Exist },
        })
    });
    client_cert.into_iter().chain(pointed).collect()
}

/// Looks everything up; what the commit must expect for it to stay true.
pub async fn expectations(store: &dyn Store, key: &Key, conf: &Value) -> Result<Vec<(Key, Expect)>, Answer> {
    let mut expect = Vec::new();
    for need in needs(key.kind, conf) {
        let Some(found) = store.get(&need.key).await? else {
            return Err(Answer::bad(format!("failed to fetch {}, response code: 404", need.named)));
        };
        let found_conf: Value = found.read().unwrap_or_default();
        match need.must {
            Must::ServeHttp => {
                if let Some(scheme) = scheme_of_streams(need.key.kind, &found_conf) {
                    let named = need.named;
                    return Err(Answer::bad(format!(
                        "{named}: upstreams of scheme {scheme} are not for HTTP"
                    )));
                }
                expect.push((need.key, Expect::Present));
            }
            Must::Exist => expect.push((need.key, Expect::Present)),
            Must::BeClientSsl if found_conf.get("type").and_then(Value::as_str) != Some("client") => {
                return Err(Answer::bad(format!("failed to fetch {}, wrong ssl type", need.named)));
            }
            Must::BeClientSsl => expect.push((need.key, Expect::At(found.modified))),
        }
    }
    Ok(expect)
}

/// The scheme of what is or has an upstream that no request can go to.
fn scheme_of_streams(kind: Kind, conf: &Value) -> Option<&str> {
    let scheme = ssl::upstream_of(kind, conf)?.get("scheme")?.as_str()?;
    ["tcp", "tls", "udp"].contains(&scheme).then_some(scheme)
}

/// One way in which resources of one kind hold on to those of another.
struct Use {
    target: Kind,
    holder: Kind,
    /// How APISIX names the holder here.
    noun: &'static str,
    by: By,
}

enum By {
    Field(&'static str),
    /// `traffic-split` splits to upstreams by id.
    TrafficSplit,
    /// `grpc-transcode` takes a proto by id.
    Proto,
}

/// Every use, in APISIX's order. What is not here (stream routes of an upstream, upstreams of a certificate) does
/// not keep anything from being deleted there either.
const USES: &[Use] = &[
    Use { target: Kind::Upstreams, holder: Kind::Routes, noun: "route", by: By::TrafficSplit },
    Use { target: Kind::Upstreams, holder: Kind::Routes, noun: "route", by: By::Field("upstream_id") },
    Use { target: Kind::Upstreams, holder: Kind::Services, noun: "service", by: By::TrafficSplit },
    Use { target: Kind::Upstreams, holder: Kind::Services, noun: "service", by: By::Field("upstream_id") },
    Use { target: Kind::Upstreams, holder: Kind::PluginConfigs, noun: "plugin_config", by: By::TrafficSplit },
    Use { target: Kind::Upstreams, holder: Kind::Consumers, noun: "consumer", by: By::TrafficSplit },
    Use {
        target: Kind::Upstreams,
        holder: Kind::ConsumerGroups,
        noun: "consumer_group",
        by: By::TrafficSplit,
    },
    Use { target: Kind::Upstreams, holder: Kind::GlobalRules, noun: "global_rules", by: By::TrafficSplit },
    Use { target: Kind::Services, holder: Kind::Routes, noun: "route", by: By::Field("service_id") },
    Use {
        target: Kind::Services,
        holder: Kind::StreamRoutes,
        noun: "stream_route",
        by: By::Field("service_id"),
    },
    Use {
        target: Kind::PluginConfigs,
        holder: Kind::Routes,
        noun: "route",
        by: By::Field("plugin_config_id"),
    },
    Use {
        target: Kind::ConsumerGroups,
        holder: Kind::Consumers,
        noun: "consumer",
        by: By::Field("group_id"),
    },
    Use { target: Kind::Protos, holder: Kind::Routes, noun: "route", by: By::Proto },
    Use { target: Kind::Protos, holder: Kind::Services, noun: "service", by: By::Proto },
];

/// Whether something may hold on to resources of this kind.
pub fn may_be_used(kind: Kind) -> bool {
    USES.iter().any(|usage| usage.target == kind)
}

/// Refuses to delete what is still used.
pub async fn check_unused(store: &dyn Store, key: &Key) -> Result<(), Answer> {
    for usage in USES.iter().filter(|usage| usage.target == key.kind) {
        for holder in store.list(usage.holder).await? {
            // Most holders can't mean it: their text does not have the id anywhere.
            if !holder.value.contains(&*key.id) {
                continue;
            }
            let conf: Value = holder.read().unwrap_or_default();
            if usage.holds(&conf, &key.id) {
                return Err(Answer::bad(usage.sentence(&holder.key.id)));
            }
        }
    }
    Ok(())
}

impl Use {
    fn holds(&self, conf: &Value, id: &str) -> bool {
        let is_it = |found: Option<&Value>| found.and_then(id_text).as_deref() == Some(id);
        match self.by {
            By::Field(field) => is_it(conf.get(field)),
            By::Proto => is_it(conf.pointer("/plugins/grpc-transcode/proto_id")),
            By::TrafficSplit => {
                let rules = conf.pointer("/plugins/traffic-split/rules").and_then(Value::as_array);
                let upstreams =
                    rules.into_iter().flatten().filter_map(|rule| rule["weighted_upstreams"].as_array());
                upstreams.flatten().any(|upstream| is_it(upstream.get("upstream_id")))
            }
        }
    }

    fn sentence(&self, holder: &str) -> String {
        let (target, noun) = (self.target.singular(), self.noun);
        match (&self.by, self.target) {
            (By::TrafficSplit, _) => {
                format!("can not delete this {target}, plugin in {noun} [{holder}] is still using it now")
            }
            (_, Kind::Services) => {
                format!("can not delete this {target} directly, {noun} [{holder}] is still using it now")
            }
            _ => format!("can not delete this {target}, {noun} [{holder}] is still using it now"),
        }
    }
}
