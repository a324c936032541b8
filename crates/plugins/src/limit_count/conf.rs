//! What users configure of `limit-count`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rule::whole;

#[derive(Debug, Deserialize, Serialize)]
pub struct Conf {
    pub count: Option<Amount>,
    pub time_window: Option<Amount>,
    pub window_type: WindowType,
    pub rules: Option<Vec<RuleConf>>,
    pub group: Option<String>,
    pub key: String,
    pub key_type: KeyType,
    pub rejected_code: u16,
    pub rejected_msg: Option<String>,
    pub policy: String,
    pub allow_degradation: bool,
    pub show_limit_quota_header: bool,
    pub sync_interval: f64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct RuleConf {
    pub count: Amount,
    pub time_window: Amount,
    pub key: String,
    pub header_prefix: Option<String>,
}

/// A number, or a text with variables that is to be one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Value", untagged)]
pub enum Amount {
    Number(u64),
    Text(String),
}

impl TryFrom<Value> for Amount {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            number => number.as_f64().ok_or("not a number".to_owned()).and_then(whole).map(Self::Number),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowType {
    Fixed,
    Sliding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    Var,
    VarCombination,
    Constant,
}

/// What a `sync_interval` of `-1` means.
const NO_DELAY: f64 = -1.0;

impl Conf {
    /// What a schema can't say, in APISIX's words.
    pub fn check(&self) -> Result<(), String> {
        let of_its_own = self.count.is_some() || self.time_window.is_some();
        let rules = self.rules.as_deref();
        if rules.is_some() && of_its_own {
            return Err("count/time_window and rules cannot be specified at the same time".into());
        }
        if rules.is_some() && self.group.is_some() {
            return Err("group and rules cannot be specified at the same time".into());
        }
        if self.policy != "local" {
            self.check_delay()?;
        }
        let rules = rules.unwrap_or_default();
        let twice = |at: usize| rules[..at].iter().any(|other| other.key == rules[at].key);
        if let Some(at) = (0..rules.len()).find(|at| twice(*at)) {
            return Err(format!("duplicate key '{}' in rules", rules[at].key));
        }
        if self.policy != "local" {
            return Err(format!(
                "policy \"{}\" is not supported yet: only \"local\" is, which counts on each node",
                self.policy
            ));
        }
        Ok(())
    }

    fn check_delay(&self) -> Result<(), String> {
        if (self.sync_interval - NO_DELAY).abs() < f64::EPSILON {
            return Ok(());
        }
        if self.sync_interval < 0.1 {
            return Err("sync_interval should not be smaller than 0.1".into());
        }
        #[expect(clippy::cast_precision_loss, reason = "such windows are not to be told apart")]
        if let Some(Amount::Number(window)) = self.time_window
            && self.sync_interval >= window as f64
        {
            return Err("sync_interval should be smaller than time_window".into());
        }
        Ok(())
    }
}

pub fn schema() -> Value {
    let amount = json!({"oneOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}]});
    let policy = |name: &str| json!({"properties": {"policy": {"enum": [name]}}});
    json!({
        "type": "object",
        "properties": {
            "count": amount,
            "time_window": amount,
            "window_type": {"type": "string", "enum": ["fixed", "sliding"], "default": "fixed"},
            "rules": {"type": "array", "items": rule(&amount)},
            "group": {"description": "whose members share their counters", "type": "string"},
            "key": {"type": "string", "default": "remote_addr"},
            "key_type": {"type": "string", "enum": ["var", "var_combination", "constant"], "default": "var"},
            "rejected_code": {"type": "integer", "minimum": 200, "maximum": 599, "default": 503},
            "rejected_msg": {"type": "string", "minLength": 1},
            "policy": {
                "type": "string",
                "enum": ["local", "redis", "redis-cluster", "redis-sentinel"],
                "default": "local"
            },
            "allow_degradation": {"type": "boolean", "default": false},
            "show_limit_quota_header": {"type": "boolean", "default": true},
            "sync_interval": {"type": "number", "default": NO_DELAY}
        },
        // APISIX has a plain `required` in both; so both at once get past here, to be told of in its words.
        "oneOf": [
            {"required": ["count", "time_window"]},
            {"required": ["rules"], "not": {"required": ["count", "time_window"]}}
        ],
        "if": policy("redis"),
        "then": redis(),
        "else": {
            "if": policy("redis-cluster"),
            "then": redis_cluster(),
            "else": {"if": policy("redis-sentinel"), "then": redis_sentinel()}
        },
        "encrypt_fields": ["redis_password", "sentinel_password"]
    })
}

fn rule(amount: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "count": amount,
            "time_window": amount,
            "key": {"description": "a rule none of whose variables has a value is passed over", "type": "string"},
            "header_prefix": {"type": "string", "description": "of the headers that tell the quota"}
        },
        "required": ["count", "time_window", "key"]
    })
}

fn redis() -> Value {
    json!({
        "properties": {
            "redis_host": {"type": "string", "minLength": 2},
            "redis_port": {"type": "integer", "minimum": 1, "default": 6379},
            "redis_username": {"type": "string", "minLength": 1},
            "redis_password": {"type": "string", "minLength": 0},
            "redis_database": {"type": "integer", "minimum": 0, "default": 0},
            "redis_timeout": {"type": "integer", "minimum": 1, "default": 1000},
            "redis_ssl": {"type": "boolean", "default": false},
            "redis_ssl_verify": {"type": "boolean", "default": false},
            "redis_keepalive_timeout": {"type": "integer", "minimum": 1000, "default": 10000},
            "redis_keepalive_pool": {"type": "integer", "minimum": 1, "default": 100}
        },
        "required": ["redis_host"]
    })
}

fn redis_cluster() -> Value {
    json!({
        "properties": {
            "redis_cluster_nodes": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "minLength": 2, "maxLength": 100}
            },
            "redis_password": {"type": "string", "minLength": 0},
            "redis_timeout": {"type": "integer", "minimum": 1, "default": 1000},
            "redis_cluster_name": {"type": "string"},
            "redis_cluster_ssl": {"type": "boolean", "default": false},
            "redis_cluster_ssl_verify": {"type": "boolean", "default": false},
            "redis_keepalive_timeout": {"type": "integer", "minimum": 1000, "default": 10000},
            "redis_keepalive_pool": {"type": "integer", "minimum": 1, "default": 100}
        },
        "required": ["redis_cluster_nodes", "redis_cluster_name"]
    })
}

fn redis_sentinel() -> Value {
    let timeout = json!({"type": "integer", "minimum": 1, "default": 1000});
    json!({
        "properties": {
            "redis_sentinels": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "host": {"type": "string", "minLength": 2},
                        "port": {"type": "integer", "minimum": 1, "maximum": 65535}
                    },
                    "required": ["host", "port"],
                    "additionalProperties": false
                }
            },
            "redis_master_name": {"type": "string", "minLength": 1},
            "redis_role": {"type": "string", "enum": ["master", "slave"], "default": "master"},
            "redis_connect_timeout": timeout,
            "redis_read_timeout": timeout,
            "redis_keepalive_timeout": {"type": "integer", "minimum": 1, "default": 60000},
            "redis_database": {"type": "integer", "minimum": 0, "default": 0},
            "redis_username": {"type": "string", "minLength": 1},
            "redis_password": {"type": "string", "minLength": 0},
            "sentinel_username": {"type": "string", "minLength": 1},
            "sentinel_password": {"type": "string", "minLength": 0}
        },
        "required": ["redis_sentinels", "redis_master_name"]
    })
}

pub fn metadata_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "limit_header": {"type": "string", "default": "X-RateLimit-Limit"},
            "remaining_header": {"type": "string", "default": "X-RateLimit-Remaining"},
            "reset_header": {"type": "string", "default": "X-RateLimit-Reset"}
        }
    })
}
