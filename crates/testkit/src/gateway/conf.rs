//! The configuration every node of a test starts from, and merging into it.

use serde_json::{Value, json};

use super::ADMIN_KEY;
use crate::ports;

/// A node's listeners, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
    pub admin: u16,
    pub control: u16,
    pub status: u16,
    pub prometheus: u16,
    pub dp: u16,
    pub dp_tls: u16,
}

impl Ports {
    pub fn lease() -> Self {
        let [http, https, admin, control, status, prometheus, dp, dp_tls] = ports::several();
        Self { http, https, admin, control, status, prometheus, dp, dp_tls }
    }

    /// Replaces `{http}` and the like in a text.
    pub fn fill(&self, text: String) -> String {
        let names = [
            ("{http}", self.http),
            ("{https}", self.https),
            ("{admin}", self.admin),
            ("{control}", self.control),
            ("{status}", self.status),
            ("{prometheus}", self.prometheus),
            ("{dp}", self.dp),
            ("{dp_tls}", self.dp_tls),
        ];
        names.iter().fold(text, |text, (name, port)| text.replace(name, &port.to_string()))
    }
}

/// Every listener on its leased port, and nothing else that is not the default.
pub fn base(ports: &Ports, role: &str, provider: &str) -> Value {
    let at = |port: u16| json!({ "ip": "127.0.0.1", "port": port });
    let mut base = json!({
        "apisix": {
            "node_listen": [at(ports.http)],
            "ssl": { "enable": true, "listen": [at(ports.https)] },
            "enable_control": true,
            "control": at(ports.control),
            "status": at(ports.status),
        },
        "plugin_attr": { "prometheus": { "export_addr": at(ports.prometheus) } },
        "deployment": { "role": role, format!("role_{role}"): { "config_provider": provider } },
    });
    if role != "data_plane" {
        let admin = json!({
            "admin_listen": at(ports.admin),
            "admin_key": [{ "name": "admin", "key": ADMIN_KEY, "role": "admin" }],
            "allow_admin": ["127.0.0.0/24"],
        });
        let dp_listen = json!({ "ip": "127.0.0.1", "port": ports.dp, "tls_port": ports.dp_tls });
        merge(&mut base, json!({ "deployment": { "admin": admin }, "keelgate": { "dp_listen": dp_listen } }));
    }
    base
}

/// Merges `more` into `base`: objects key by key, everything else replaced, `null` removes.
pub fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, more) => *base = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_goes_deep_and_null_removes() {
        let mut base = json!({ "a": { "b": 1, "c": [1, 2] }, "d": 1 });
        merge(&mut base, json!({ "a": { "c": [3], "e": 4 }, "d": null }));
        assert_eq!(base, json!({ "a": { "b": 1, "c": [3], "e": 4 } }));
    }

    #[test]
    fn placeholders_become_ports() {
        let ports = Ports::lease();
        assert_eq!(
            ports.fill("{http} {dp} ${{X}}".into()),
            format!("{} {} ${{{{X}}}}", ports.http, ports.dp)
        );
    }
}
