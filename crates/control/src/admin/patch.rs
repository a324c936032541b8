//! How PATCH changes a resource: by merging, or by replacing the part a sub-path names.
//!
//! The rule to know: `null` deletes; arrays and empty objects replace, other objects merge.

use serde_json::{Map, Value};

/// Merges `change` into `resource`, as APISIX does it.
pub fn merge(resource: &mut Map<String, Value>, change: Map<String, Value>) {
    for (name, new) in change {
        match (resource.get_mut(&name), new) {
            (_, Value::Null) => {
                resource.shift_remove(&name);
            }
            (Some(Value::Object(old)), Value::Object(new)) if !old.is_empty() && !new.is_empty() => {
                merge(old, new);
            }
            (Some(old), new) => *old = without_nulls(new),
            (None, new) => {
                resource.insert(name, without_nulls(new));
            }
        }
    }
}

/// Where nothing was there is nothing to delete.
fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
        for field in fields.values_mut() {
            *field = without_nulls(field.take());
        }
    }
    value
}

/// Puts `new` where `path` says, making the objects on the way. Says what is wrong with the path if it leads
/// through something that is no object.
pub fn replace(resource: &mut Map<String, Value>, path: &[String], new: Value) -> Result<(), String> {
    let Some((last, way)) = path.split_last() else { return Ok(()) };
    let mut object = resource;
    for (depth, name) in way.iter().enumerate() {
        let next = object.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
        object = match next {
            Value::Object(next) => next,
            _ => return Err(format!("invalid sub-path: /{}", path[..=depth].join("/"))),
        };
    }
    if new.is_null() {
        object.shift_remove(last);
    } else {
        object.insert(last.clone(), new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(old: Value, change: Value) -> Value {
        let (Value::Object(mut old), Value::Object(change)) = (old, change) else { panic!("not objects") };
        merge(&mut old, change);
        Value::Object(old)
    }

    #[test]
    fn merging() {
        let old = json!({"a": 1, "up": {"nodes": {"x": 1}, "type": "r"}, "m": ["GET"]});
        for (change, expected) in [
            (json!({"a": null}), json!({"up": {"nodes": {"x": 1}, "type": "r"}, "m": ["GET"]})),
            (
                json!({"up": {"nodes": {"x": null, "y": 2}}}),
                json!({"a": 1, "up": {"nodes": {"y": 2}, "type": "r"}, "m": ["GET"]}),
            ),
            (json!({"m": ["PUT"]}), json!({"a": 1, "up": {"nodes": {"x": 1}, "type": "r"}, "m": ["PUT"]})),
            (json!({"up": {}}), json!({"a": 1, "up": {}, "m": ["GET"]})),
            (
                json!({"up": {"nodes": [{"host": "h"}]}}),
                json!({"a": 1, "up": {"nodes": [{"host": "h"}], "type": "r"}, "m": ["GET"]}),
            ),
            (
                json!({"new": {"x": null, "y": 1}}),
                json!({"a": 1, "up": {"nodes": {"x": 1}, "type": "r"}, "m": ["GET"], "new": {"y": 1}}),
            ),
        ] {
            assert_eq!(merged(old.clone(), change.clone()), expected, "{change}");
        }
    }

    #[test]
    fn replacing_by_path() {
        let replaced = |path: &[&str], new: Value| {
            let Value::Object(mut old) = json!({"up": {"nodes": {"x": 1}}, "m": ["GET"]}) else { panic!() };
            let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
            replace(&mut old, &path, new).map(|()| Value::Object(old))
        };
        assert_eq!(
            replaced(&["up", "nodes"], json!({"y": 1})).unwrap(),
            json!({"up": {"nodes": {"y": 1}}, "m": ["GET"]})
        );
        assert_eq!(replaced(&["m"], Value::Null).unwrap(), json!({"up": {"nodes": {"x": 1}}}));
        assert_eq!(
            replaced(&["a", "b"], json!(1)).unwrap(),
            json!({"up": {"nodes": {"x": 1}}, "m": ["GET"], "a": {"b": 1}})
        );
        assert_eq!(
            replaced(&["up", "nodes", "x", "z"], json!(1)).unwrap_err(),
            "invalid sub-path: /up/nodes/x"
        );
        assert_eq!(replaced(&["m", "0"], json!(1)).unwrap_err(), "invalid sub-path: /m");
    }
}
