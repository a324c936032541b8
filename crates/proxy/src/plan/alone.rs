//! Whether a resource could be served, whatever it refers to: for who has no plan.

use model::{Key, Kind, Resource, secrets::Keyring};
use serde_json::{Map, Value};

use super::{Catalog, Input, Plan, build::Build};
use crate::{lasting::Lasting, router::Routing, tls, upstream::Shared};

/// What a resource refers to, and its plugins, which are checked by themselves.
const LEFT_OUT: [&str; 4] = ["plugins", "plugin_config_id", "service_id", "upstream_id"];

/// Builds a route, service, upstream or stream route, in plain text, and throws it away. The error is the one that a
/// data plane would report. Other kinds pass.
pub fn check(kind: Kind, conf: &Value, tls: &tls::Settings) -> Result<(), String> {
    if !matches!(kind, Kind::Routes | Kind::Services | Kind::Upstreams | Kind::StreamRoutes) {
        return Ok(());
    }
    let mut conf = conf.clone();
    if let Some(fields) = conf.as_object_mut() {
        fields.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    }
    for path in ["/tls", "/upstream/tls"] {
        if let Some(fields) = conf.pointer_mut(path).and_then(Value::as_object_mut) {
            fields.remove("client_cert_id");
        }
    }
    let key = Key::new(kind, "it");
    let resource = Resource { key: key.clone(), value: conf.to_string().into(), created: 0, modified: 0 };
    let input = Input {
        snapshot: model::Snapshot::default(),
        keyring: &Keyring::default(),
        catalog: &Catalog::default(),
        lasting: &Lasting::blind(),
        attrs: &Map::new(),
        routing: Routing::default(),
        tls,
        rebuild: true,
        news: Vec::new(),
    };
    Build::new(&input, &Plan::default(), &mut Shared::default(), &key).form(&resource).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_data_plane_refuses_is_told_without_one() {
        let told =
            |kind, conf: Value| check(kind, &conf, &tls::Settings::default()).err().unwrap_or_default();
        let up = |more: (&str, Value)| {
            let mut conf = json!({"nodes": {"127.0.0.1:1": 1}});
            conf[more.0] = more.1;
            conf
        };
        for (conf, reason) in [
            (
                up(("checks", json!({"active": {"timeout": 0}}))),
                "checks: active.timeout: 0 is no time to wait",
            ),
            (up(("timeout", json!({"connect": 1, "send": 1e300, "read": 1}))), "is not a time in seconds"),
            (json!({"service_name": "x", "discovery_type": "nope"}), "there is no discovery of type `nope`"),
        ] {
            assert!(told(Kind::Upstreams, conf.clone()).contains(reason), "{conf}");
            assert!(told(Kind::Services, json!({"upstream": conf})).contains(reason), "{conf}");
            assert!(told(Kind::Routes, json!({"uri": "/", "upstream": conf})).contains(reason), "{conf}");
        }
        let tcp = up(("scheme", json!("tcp")));
        assert_eq!(told(Kind::Upstreams, tcp.clone()), "");
        assert_eq!(
            told(Kind::Routes, json!({"uri": "/", "upstream": tcp})),
            "upstreams of scheme tcp are not for HTTP"
        );
        let elsewhere = json!({
            "uri": "/", "service_id": "a", "upstream_id": 1, "plugin_config_id": "c", "plugins": {"unheard-of": {}},
            "upstream": {"nodes": {"a:1": 1}, "scheme": "https", "tls": {"client_cert_id": "x", "verify": true}},
        });
        assert_eq!(told(Kind::Routes, elsewhere), "");
    }
}
