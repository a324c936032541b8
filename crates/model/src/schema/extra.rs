//! What APISIX refuses beyond the schema, in one resource alone.
//!
//! The rule to know: whether certificates and keys can be loaded is not looked at here, that takes a TLS library.

use std::net::Ipv6Addr;

use serde_json::Value;

use super::{is_reference, validator::Validator};
use crate::{expr::Expr, filter_func::FilterFunc, kind::Kind, resource};

/// Checks what the schema of the kind cannot say. The value fits the schema. Errors are APISIX's whole text.
pub fn extra_checks(kind: Kind, conf: &Value) -> Result<(), String> {
    match kind {
        Kind::Upstreams => upstream(conf)?,
        Kind::Routes | Kind::Services | Kind::StreamRoutes => {
            conf.get("upstream").map_or(Ok(()), upstream)?;
        }
        _ => {}
    }
    match kind {
        Kind::Routes => route(conf)?,
        Kind::Services => no_lua(conf, "script")?,
        Kind::StreamRoutes => stream_route(conf)?,
        _ => {}
    }
    resource::readable(kind, conf).map_err(|error| format!("invalid configuration: {error}"))
}

/// What APISIX asks of a route before it looks at the schema, for a text that says more than the schema's.
pub(super) fn before_schema(kind: Kind, conf: &Value) -> Result<(), String> {
    let has_both = |one: &str, many: &str| conf.get(one).is_some() && conf.get(many).is_some();
    match kind {
        Kind::Routes if has_both("host", "hosts") => Err("only one of host or hosts is allowed".to_owned()),
        Kind::Routes if has_both("remote_addr", "remote_addrs") => {
            Err("only one of remote_addr or remote_addrs is allowed".to_owned())
        }
        Kind::Upstreams => brackets(conf),
        _ => Ok(()),
    }
}

fn route(route: &Value) -> Result<(), String> {
    if let Some(vars) = route.get("vars") {
        let checked = Expr::compile(vars).map(drop);
        let checked = checked.and_then(|()| body_paths(vars));
        checked.map_err(|error| format!("failed to validate the 'vars' expression: {error}"))?;
    }
    if let Some(code) = route.get("filter_func").and_then(Value::as_str) {
        FilterFunc::compile(code)?;
    }
    no_lua(route, "script")
}

/// What follows `post_arg.` is a JSONPath (RFC 9535) where it has brackets, stars or two dots.
fn body_paths(condition: &Value) -> Result<(), String> {
    let Some(parts) = condition.as_array() else { return Ok(()) };
    let path = parts.first().and_then(Value::as_str).and_then(|name| name.strip_prefix("post_arg."));
    match path.filter(|path| path.contains(['[', '*']) || path.contains("..")) {
        Some(path) => match serde_json_path::JsonPath::parse(&format!("$.{path}")) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("invalid expression post_arg.{path}: {error}")),
        },
        None => parts.iter().try_for_each(body_paths),
    }
}

/// A script stands in the place of plugins and calls APISIX's own modules, which are not here.
fn no_lua(conf: &Value, field: &str) -> Result<(), String> {
    match conf.get(field) {
        None => Ok(()),
        Some(_) => Err(format!("failed to load '{field}' string: this gateway does not run scripts in Lua")),
    }
}

fn stream_route(conf: &Value) -> Result<(), String> {
    for field in ["remote_addr", "server_addr"] {
        let Some(address) = conf.get(field).and_then(Value::as_str) else { continue };
        if address.parse::<ipnet::IpNet>().is_err() && address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("invalid {field}: {address}"));
        }
    }
    match conf.pointer("/protocol/name").and_then(Value::as_str) {
        // Of APISIX's protocols on top of TCP none is spoken here: passing the bytes on would not be the same.
        Some(protocol) => Err(format!("unknown protocol [{protocol}]")),
        None => Ok(()),
    }
}

fn upstream(upstream: &Value) -> Result<(), String> {
    let text = |field: &str| upstream.get(field).and_then(Value::as_str);
    brackets(upstream)?;
    for address in
        upstream.get("nodes").and_then(Value::as_object).into_iter().flatten().map(|(address, _)| address)
    {
        if let (_, Some(0)) = resource::split_address(address)? {
            return Err("invalid port 0".to_owned());
        }
    }
    if text("pass_host") == Some("rewrite") && text("upstream_host").is_none_or(str::is_empty) {
        return Err("`upstream_host` can't be empty when `pass_host` is `rewrite`".to_owned());
    }
    if text("type") != Some("chash") {
        return Ok(());
    }
    let hash_on = text("hash_on").unwrap_or("vars");
    match (hash_on, text("key")) {
        ("consumer", _) => Ok(()),
        (_, None) => Err("missing key".to_owned()),
        (hash_on, Some(key)) => hash_key(hash_on, key),
    }
}

/// An IPv6 address must be told from its port.
fn brackets(upstream: &Value) -> Result<(), String> {
    let nodes = upstream.get("nodes").and_then(Value::as_array).into_iter().flatten();
    let mut hosts = nodes.filter_map(|node| node.get("host")?.as_str());
    if hosts.any(|host| host.parse::<Ipv6Addr>().is_ok()) {
        return Err("invalid configuration: IPv6 address must be enclosed with '[' and ']'".to_owned());
    }
    Ok(())
}

static VARIABLE: Key = Key::new(concat!(
    "^((uri|server_name|server_addr|request_uri|remote_port|remote_addr|query_string|host|hostname",
    "|mqtt_client_id)|arg_[0-9a-zA-z_-]+)$"
));
static FIELD: Key = Key::new("^[a-zA-Z0-9-_]+$");

/// The schema of an upstream's `key` where `hash_on` is `vars`.
pub fn hash_variable() -> Value {
    VARIABLE.schema()
}

/// The schema of an upstream's `key` where `hash_on` is `header` or `cookie`.
pub fn hash_field() -> Value {
    FIELD.schema()
}

fn hash_key(hash_on: &str, key: &str) -> Result<(), String> {
    let fits = match hash_on {
        "vars" => &VARIABLE,
        "header" | "cookie" => &FIELD,
        _ => return Ok(()),
    };
    if is_reference(key) {
        return Ok(());
    }
    fits.check(key).map_err(|error| format!("invalid configuration: {error}"))
}

/// A pattern for the key of consistent hashing.
struct Key {
    pattern: &'static str,
    compiled: std::sync::OnceLock<Option<Validator>>,
}

impl Key {
    const fn new(pattern: &'static str) -> Self {
        Self { pattern, compiled: std::sync::OnceLock::new() }
    }

    fn schema(&self) -> Value {
        serde_json::json!({"type": "string", "pattern": self.pattern})
    }

    fn check(&self, key: &str) -> Result<(), String> {
        match self.compiled.get_or_init(|| Validator::new(&self.schema()).ok()) {
            Some(validator) => validator.check(&Value::from(key)),
            None => Ok(()),
        }
    }
}
