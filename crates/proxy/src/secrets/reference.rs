//! Texts that stand for secrets kept elsewhere: `$secret://vault/1/jack/key`, `$env://NAME`, `$env://NAME/key`.
//!
//! The rule to know: a text that begins like a reference is one. It is never taken for the secret itself.

use serde_json::Value;

/// What a text refers to. The forms are those of APISIX's `terminology/secret.md`.
#[derive(Debug, PartialEq)]
pub enum Reference<'a> {
    /// A variable of this process's environment; `key` of it where it holds JSON.
    Environment { name: &'a str, key: Option<&'a str> },
    /// What a manager keeps.
    Kept { manager: &'a str, path: &'a str },
}

/// What a reference to a manager begins with.
pub const KEPT: &str = "$secret://";
const ENVIRONMENT: &str = "$env://";

impl<'a> Reference<'a> {
    /// None where the text is no reference; an error says what is wrong with one.
    pub fn read(text: &'a str) -> Option<Result<Self, String>> {
        if let Some(rest) = text.strip_prefix(KEPT) {
            return Some(kept(rest).ok_or_else(|| {
                format!("{text} is no reference: write $secret://MANAGER/ID/PATH/KEY, such as $secret://vault/1/jack/key")
            }));
        }
        let start = text.get(..ENVIRONMENT.len())?;
        if !start.eq_ignore_ascii_case(ENVIRONMENT) {
            return None;
        }
        let (name, key) = match text[ENVIRONMENT.len()..].split_once('/') {
            Some((name, key)) => (name, Some(key).filter(|key| !key.is_empty())),
            None => (&text[ENVIRONMENT.len()..], None),
        };
        if name.is_empty() || name.contains(['=', '\0']) {
            return Some(Err(format!("{text} is no reference: write $env://NAME or $env://NAME/KEY")));
        }
        Some(Ok(Self::Environment { name, key }))
    }
}

fn kept(rest: &str) -> Option<Reference<'_>> {
    let (kind, after) = rest.split_once('/')?;
    let (id, path) = after.split_once('/')?;
    let manager = &rest[..kind.len() + 1 + id.len()];
    (!kind.is_empty() && !id.is_empty() && !path.is_empty()).then_some(Reference::Kept { manager, path })
}

/// What a variable of the environment holds. The error does not tell what is in it.
pub fn of_environment(name: &str, key: Option<&str>) -> Result<Value, String> {
    let held = std::env::var(name).map_err(|_| format!("the environment has no {name}"))?;
    member(&held, key).map_err(|error| format!("the environment's {name}: {error}"))
}

/// One key of a text that is JSON, or all of it.
pub fn member(text: &str, key: Option<&str>) -> Result<Value, String> {
    let Some(key) = key else { return Ok(text.into()) };
    let Ok(Value::Object(mut members)) = serde_json::from_str(text) else {
        return Err(format!("it is no JSON object, so it has no key {key}"));
    };
    match members.remove(key) {
        Some(Value::Null) | None => Err(format!("it has no key {key}")),
        Some(value) => Ok(value),
    }
}

/// Shows every text in `conf` with the path that leads to it, and puts in its place what it is told. The first
/// error is given; the rest is looked at all the same.
pub fn replace(
    conf: &mut Value,
    path: &str,
    with: &mut dyn FnMut(&str) -> Result<Option<Value>, String>,
) -> Result<(), String> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match conf {
        Value::String(text) if text.starts_with('$') => {
            if let Some(value) =
                with(text).map_err(|e| if path.is_empty() { e } else { format!("{path}: {e}") })?
            {
                *conf = value;
            }
            Ok(())
        }
        Value::Array(items) => {
            let mut all = Ok(());
            for (at, item) in items.iter_mut().enumerate() {
                all = all.and(replace(item, &below(&(at + 1).to_string()), with));
            }
            all
        }
        Value::Object(members) => {
            let mut all = Ok(());
            for (name, member) in members {
                all = all.and(replace(member, &below(name), with));
            }
            all
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_told_from_texts() {
        let kept = |manager, path| Some(Ok(Reference::Kept { manager, path }));
        let environment = |name, key| Some(Ok(Reference::Environment { name, key }));
        for (text, read) in [
            ("$secret://vault/1/jack/key", kept("vault/1", "jack/key")),
            ("$secret://aws/prod/a", kept("aws/prod", "a")),
            ("$env://A", environment("A", None)),
            ("$ENV://A/", environment("A", None)),
            ("$Env://A/b/c", environment("A", Some("b/c"))),
            ("$SECRET://vault/1/a", None),
            ("$env:/A", None),
            ("secret", None),
            ("$é", None),
        ] {
            assert_eq!(Reference::read(text), read, "{text}");
        }
        for text in [
            "$secret://",
            "$secret://vault",
            "$secret://vault/1",
            "$secret://vault//a",
            "$secret:///1/a",
            "$secret://vault/1/",
            "$env://",
            "$env:///a",
            "$env://a=b",
        ] {
            assert!(Reference::read(text).unwrap().unwrap_err().contains("is no reference"), "{text}");
        }
    }

    #[test]
    fn every_text_is_replaced_and_an_error_says_where() {
        let mut conf = json!({"a": ["x", {"b": "$one"}], "c": "$bad", "d": "$two", "e": 1});
        let mut with = |text: &str| match text {
            "$bad" => Err("no".to_owned()),
            text => Ok(Some(json!({"was": text}))),
        };
        assert_eq!(replace(&mut conf, "top", &mut with), Err("top.c: no".to_owned()));
        assert_eq!(conf["a"][1]["b"], json!({"was": "$one"}));
        assert_eq!(conf["d"], json!({"was": "$two"}));
    }

    #[test]
    fn keys_are_looked_up_in_json() {
        assert_eq!(member("plain", None), Ok("plain".into()));
        assert_eq!(member(r#"{"a": "b", "n": 7}"#, Some("n")), Ok(json!(7)));
        for text in [r#"{"a": null}"#, "{}", "plain", "[1]"] {
            let error = member(text, Some("a")).unwrap_err();
            assert!(error.contains("no key a") && !error.contains("plain"), "{error}");
        }
    }
}
