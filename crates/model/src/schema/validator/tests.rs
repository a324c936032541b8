use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    Validator::new(schema).unwrap_or_else(|error| panic!("{schema}: {error}")).check(value)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn errors_are_worded_as_users_know_them() {
    let number = json!({"type": "number"});
    for (schema, value, error) in [
        (json!({"type": "string"}), json!(1), "wrong type: expected string, got number"),
        (json!({"type": "string"}), json!(null), "wrong type: expected string, got userdata"),
        (json!({"type": "object"}), json!([1]), "wrong type: expected object, got table"),
        (json!({"type": "integer"}), json!(1.5), "wrong type: expected integer, got number"),
        (
            json!({"type": ["string", "array"]}),
            json!(1),
            "wrong type: expected one of string, array, got number",
        ),
        (
            json!({"properties": {"uri": {"type": "string"}}}),
            json!({"uri": 1}),
            "property \"uri\" validation failed: wrong type: expected string, got number",
        ),
        (json!({"properties": {"x": number}, "required": ["x"]}), json!({}), "property \"x\" is required"),
        (json!({"required": ["x"]}), json!({"y": 1}), "property \"x\" is required"),
        (json!({"required": []}), json!({"y": 1}), "the input data should be an empty table"),
        (
            json!({"properties": {"a": {}}, "dependencies": {"a": ["b"]}}),
            json!({"a": 1}),
            "property \"b\" is required when \"a\" is set",
        ),
        (
            json!({"dependencies": {"a": ["b"]}}),
            json!({"a": 1}),
            "property \"b\" is required when \"a\" is set",
        ),
        (
            json!({"properties": {"a": {}}, "dependencies": {"a": {"not": {"required": ["b"]}}}}),
            json!({"a": 1, "b": 1}),
            "failed to validate dependent schema for \"a\": value wasn't supposed to match schema",
        ),
        (
            json!({"patternProperties": {".*": {"type": "string"}}}),
            json!({"env": {}}),
            "failed to validate env (matching \".*\"): wrong type: expected string, got table",
        ),
        (
            json!({"properties": {"a": {}}, "additionalProperties": false}),
            json!({"a": 1, "x": 1}),
            "additional properties forbidden, found x",
        ),
        (
            json!({"additionalProperties": {"type": "string"}}),
            json!({"x": 1}),
            "failed to validate additional property x: wrong type: expected string, got number",
        ),
        (json!({"minProperties": 1}), json!({}), "expect object to have at least 1 properties"),
        (json!({"maxProperties": 1}), json!({"a": 1, "b": 2}), "expect object to have at most 1 properties"),
        (json!({"minItems": 1}), json!([]), "expect array to have at least 1 items"),
        (json!({"maxItems": 1}), json!([1, 2]), "expect array to have at most 1 items"),
        (
            json!({"items": {"type": "string"}}),
            json!(["a", 1]),
            "failed to validate item 2: wrong type: expected string, got number",
        ),
        (
            json!({"items": [{}], "additionalItems": false}),
            json!([1, 2]),
            "found unexpected extra items in array",
        ),
        (
            json!({"items": [{}], "additionalItems": number}),
            json!([1, "a"]),
            "failed to validate additional item 2: wrong type: expected number, got string",
        ),
        (
            json!({"uniqueItems": true}),
            json!(["a", "b", "a"]),
            "expected unique items but items 1 and 3 are equal",
        ),
        (
            json!({"uniqueItems": true}),
            json!([{"a": []}, {"a": {}}]),
            "expected unique items but items 1 and 2 are equal",
        ),
        (json!({"minLength": 2}), json!("é"), "string too short, expected at least 2, got 1"),
        (json!({"maxLength": 2}), json!("ééé"), "string too long, expected at most 2, got 3"),
        (json!({"pattern": r"^\d$"}), json!("a\"b"), r#"failed to match pattern "^\\d$" with "a\"b""#),
        (json!({"minimum": 10}), json!(5), "expected 5 to be at least 10"),
        (json!({"maximum": 0.5}), json!(1.25), "expected 1.25 to be at most 0.5"),
        (json!({"exclusiveMinimum": 0}), json!(0), "expected 0 to be greater than 0"),
        (json!({"exclusiveMaximum": 1}), json!(1), "expected 1 to be smaller than 1"),
        (json!({"multipleOf": 0.01}), json!(1.135), "expected 1.135 to be a multiple of 0.01"),
        (json!({"enum": ["a", 1]}), json!("b"), "matches none of the enum values"),
        (json!({"allOf": [{}, {"minimum": 2}]}), json!(1), "allOf 2 failed: expected 1 to be at least 2"),
        (json!({"anyOf": [number]}), json!("a"), "object matches none of the required"),
        (
            json!({"anyOf": [{"required": ["a"]}, {"required": ["b", "c"]}]}),
            json!({"x": 1}),
            "object matches none of the required: [\"a\"] or [\"b\",\"c\"]",
        ),
        (json!({"oneOf": [number]}), json!("a"), "value should match only one schema, but matches none"),
        (
            json!({"oneOf": [{}, {"type": "string"}, number]}),
            json!(1),
            "value should match only one schema, but matches both schemas 1 and 3",
        ),
        (json!({"not": number}), json!(1), "value wasn't supposed to match schema"),
        (json!({"if": number, "then": {"minimum": 2}}), json!(1), "then clause did not match"),
        (json!({"if": number, "else": {"minLength": 2}}), json!("a"), "else clause did not match"),
        (json!({"format": "ipv4"}), json!("1.2.3.256"), "expect valid ipv4 format but got: 1.2.3.256"),
        (json!({"format": "uuid"}), json!("x"), "expect valid uuid format but got: x"),
        (json!({"const": 1}), json!(2), "failed to check const value"),
        (json!({"contains": number}), json!(["a"]), "failed to check contains"),
        (json!(false), json!(1), "expect false always"),
    ] {
        assert_eq!(check(&schema, &value).unwrap_err(), error, "{schema}");
    }
}

#[test]
fn what_fits_passes() {
    for (schema, value) in [
        (json!(true), json!(1)),
        (json!({"type": "integer"}), json!(1.0)),
        // An empty list and an empty object are the same.
        (json!({"type": "object"}), json!([])),
        (json!({"type": "array"}), json!({})),
        (json!({"type": "table"}), json!([1])),
        // Rules for one type say nothing of another.
        (json!({"minLength": 5, "minimum": 5, "required": ["a"], "minItems": 3}), json!(true)),
        (json!({"multipleOf": 0.01}), json!(1.13)),
        (json!({"enum": [1]}), json!(1.0)),
        (json!({"uniqueItems": true}), json!(["1", 1, [1]])),
        (json!({"items": [{"type": "string"}]}), json!(["a", 1])),
        (json!({"contains": {"type": "number"}}), json!(["a", 1])),
        (json!({"dependencies": {"a": ["b"]}}), json!({"c": 1})),
        (json!({"if": {"type": "number"}, "then": {"minimum": 2}}), json!("a")),
        (json!({"format": "of another kind"}), json!("x")),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "number"}}}), json!(1)),
    ] {
        assert_eq!(check(&schema, &value), Ok(()), "{schema}");
    }
}

#[test]
fn a_reference_to_a_secret_passes_for_any_text() {
    let schema = json!({"properties": {"a": {"type": "string", "minLength": 99}, "b": {"type": "integer"}}});
    assert_eq!(check(&schema, &json!({"a": "$secret://vault/1/a"})), Ok(()));
    assert_eq!(check(&schema, &json!({"a": "$ENV://A"})), Ok(()));
    assert!(check(&schema, &json!({"a": "$other://A"})).is_err());
    assert!(check(&schema, &json!({"b": "$env://A"})).is_err());
}

#[test]
fn defaults_are_filled_in_on_the_way() {
    let schema = json!({
        "properties": {
            "a": {"default": 1},
            "b": {"default": {"y": []}, "properties": {"x": {"default": 9}}},
            "c": {"properties": {"x": {"default": "d"}}},
            "d": {"properties": {"x": {"default": true}}},
            "e": {"items": {"properties": {"x": {"default": 0}}}},
        },
        // Sees the default above.
        "required": ["a"],
        "anyOf": [{"properties": {"f": {"default": 5}}}],
    });
    let schema = json!({"allOf": [schema]});
    let mut value = json!({"a": null, "c": {}, "e": [{"x": 1}, {}]});
    Validator::new(&schema).unwrap().fill(&mut value).unwrap();
    let expected = json!({"a": null, "b": {"y": []}, "c": {"x": "d"}, "e": [{"x": 1}, {"x": 0}], "f": 5});
    assert_eq!(value, expected);
    let mut empty = json!([]);
    Validator::new(&json!({"properties": {"a": {"default": 1}}})).unwrap().fill(&mut empty).unwrap();
    assert_eq!(empty, json!({"a": 1}));
}

#[test]
fn schemas_at_fault_are_named() {
    for (schema, error) in [
        (json!({"type": "text"}), "invalid JSON type: \"text\""),
        (json!({"$ref": "#/a"}), "\"#/a\" leads nowhere"),
        (json!({"$ref": "#"}), "\"#\" has no end"),
        (json!({"properties": {"a": 1}}), "a: not a schema: 1"),
    ] {
        assert_eq!(Validator::new(&schema).unwrap_err(), error, "{schema}");
    }
    assert!(Validator::new(&json!({"pattern": "("})).is_err());
}

#[test]
fn numbers_print_as_in_lua() {
    for (n, text) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (600.0, "600"),
        (0.5, "0.5"),
        (-1.25, "-1.25"),
        (0.1 + 0.2, "0.3"),
        (1e15, "1e+15"),
        (1.5e300, "1.5e+300"),
        (0.00001, "1e-05"),
        (0.0001, "0.0001"),
        (123_456_789_012_345.6, "1.2345678901235e+14"),
    ] {
        assert_eq!(lua::number(n), text);
    }
}

proptest! {
    /// Whatever is checked: filling and looking agree where there is nothing to fill, and neither panics.
    #[test]
    fn filling_and_looking_agree(n in any::<f64>(), text in "\\PC{0,4}", list in prop::collection::vec(0..3, 0..4)) {
        let schema = json!({
            "properties": {"n": {"type": "number", "minimum": 0}, "t": {"maxLength": 2}, "l": {"uniqueItems": true}},
            "oneOf": [{"required": ["n"]}, {"properties": {"l": {"minItems": 1}}}],
        });
        let validator = Validator::new(&schema).unwrap();
        let mut value = json!({"n": n, "t": text, "l": list});
        let looked = validator.check(&value);
        let before = value.clone();
        prop_assert_eq!(looked, validator.fill(&mut value));
        prop_assert_eq!(before, value);
    }
}
