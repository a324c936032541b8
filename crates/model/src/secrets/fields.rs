//! Where the secrets of a resource are.

use serde_json::Value;

use crate::{
    kind::Kind,
    plugin_facts::{self, PluginFacts},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Named by a plugin.
    Plugin,
    /// Of a certificate.
    PrivateKey,
    /// What a secret manager is asked with.
    Credential,
}

type Visit<'a> = &'a mut dyn FnMut(Field, &mut String);

/// Shows every secret text of a resource to `visit`.
pub(super) fn each(kind: Kind, conf: &mut Value, plugins: &[PluginFacts], visit: Visit<'_>) {
    match kind {
        Kind::Ssls => {
            for field in ["key", "keys"] {
                leaf(conf.get_mut(field), Field::PrivateKey, visit);
            }
        }
        Kind::Upstreams => upstream(Some(&mut *conf), visit),
        Kind::Routes | Kind::Services | Kind::StreamRoutes => upstream(conf.get_mut("upstream"), visit),
        Kind::Secrets => {
            for path in ["/token", "/secret_access_key", "/session_token", "/auth_config/private_key"] {
                leaf(conf.pointer_mut(path), Field::Credential, visit);
            }
        }
        Kind::PluginMetadata => {
            let facts =
                conf.get("id").and_then(Value::as_str).and_then(|name| plugin_facts::find(plugins, name));
            plugin(facts, conf, visit);
        }
        _ => {}
    }
    for (name, conf) in conf.get_mut("plugins").and_then(Value::as_object_mut).into_iter().flatten() {
        plugin(plugin_facts::find(plugins, name), conf, visit);
    }
}

fn upstream(upstream: Option<&mut Value>, visit: Visit<'_>) {
    leaf(upstream.and_then(|upstream| upstream.pointer_mut("/tls/client_key")), Field::PrivateKey, visit);
}

fn plugin(facts: Option<&PluginFacts>, conf: &mut Value, visit: Visit<'_>) {
    for path in facts.map_or(&[][..], |facts| facts.secrets) {
        at_path(conf, path, visit);
    }
}

/// Follows a dotted path, into every item of the lists on its way.
fn at_path(conf: &mut Value, path: &str, visit: Visit<'_>) {
    let Some((name, rest)) = path.split_once('.') else {
        return leaf(conf.get_mut(path), Field::Plugin, visit);
    };
    match conf.get_mut(name) {
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| at_path(item, rest, visit)),
        Some(inner @ Value::Object(_)) => at_path(inner, rest, visit),
        _ => {}
    }
}

/// A text, a list of texts, or a map of texts.
fn leaf(value: Option<&mut Value>, field: Field, visit: Visit<'_>) {
    let mut text = |value: &mut Value| {
        if let Value::String(text) = value {
            visit(field, text);
        }
    };
    match value {
        Some(Value::Array(items)) => items.iter_mut().for_each(text),
        Some(Value::Object(members)) => members.values_mut().for_each(text),
        Some(value) => text(value),
        None => {}
    }
}
