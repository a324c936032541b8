//! A schema as a table of options.

use std::fmt::{Result, Write as _};

use serde_json::Value;

/// Writes the table; a line, where there is nothing to configure.
pub fn table(page: &mut String, schema: &Value) -> Result {
    let mut rows = Vec::new();
    properties(schema, "", "", &mut rows);
    if rows.is_empty() {
        return writeln!(page, "\nIt has no options.");
    }
    writeln!(page, "\n| option | takes | default | |\n|---|---|---|---|")?;
    for Row { option, takes, default, note } in rows {
        writeln!(page, "| `{option}` | {takes} | {default} | {note} |")?;
    }
    Ok(())
}

struct Row {
    option: String,
    takes: String,
    default: String,
    note: String,
}

/// The properties of a schema, and those it has under a condition.
fn properties(schema: &Value, prefix: &str, condition: &str, rows: &mut Vec<Row>) {
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let option = format!("{prefix}{name}");
        let mut notes = Vec::new();
        if required(name) {
            notes.push("required".to_owned());
        }
        if !condition.is_empty() {
            notes.push(condition.to_owned());
        }
        notes.extend(property["description"].as_str().map(str::to_owned));
        let note = notes.join("; ");
        let default = property.get("default").map_or_else(String::new, code);
        rows.push(Row { takes: takes(property), default, note, option: option.clone() });
        inner(property, &option, rows);
    }
    if let (Some(condition), Some(then)) = (schema.get("if"), schema.get("then")) {
        properties(then, prefix, &said(condition), rows);
    }
    if let Some(otherwise) = schema.get("else") {
        properties(otherwise, prefix, condition, rows);
    }
}

/// What stands in an object, in the objects of a list, or in one of several forms.
fn inner(property: &Value, option: &str, rows: &mut Vec<Row>) {
    properties(property, &format!("{option}."), "", rows);
    properties(&property["items"], &format!("{option}[]."), "", rows);
    for form in forms(property) {
        properties(form, &format!("{option}."), "", rows);
    }
}

fn forms(property: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| property[key].as_array()).flatten()
}

/// `with policy redis`.
fn said(condition: &Value) -> String {
    let properties = condition["properties"].as_object().into_iter().flatten();
    let each = properties.map(|(name, value)| format!("with `{name}` {}", list(&value["enum"], ", ")));
    each.collect::<Vec<_>>().join(" and ")
}

/// What an option takes, in a few words.
fn takes(schema: &Value) -> String {
    if schema["enum"].is_array() {
        return list(&schema["enum"], ", ");
    }
    let several: Vec<String> = forms(schema).map(takes).filter(|form| !form.is_empty()).collect();
    let kind = schema["type"].as_str();
    match kind {
        None | Some("object") if !several.is_empty() => several.join(" or "),
        Some("object") => object(schema),
        Some("array") => format!("{} of {}", limits("list", schema), item(&schema["items"])),
        Some(kind) => limits(kind, schema),
        None => object(schema),
    }
}

fn item(schema: &Value) -> String {
    let takes = takes(schema);
    if takes.is_empty() { "anything".to_owned() } else { takes }
}

fn object(schema: &Value) -> String {
    let named = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
    match named.or_else(|| schema.get("additionalProperties").filter(|others| others.is_object())) {
        Some(value) => format!("object of {}", takes(value)),
        None => "object".to_owned(),
    }
}

fn limits(kind: &str, schema: &Value) -> String {
    const WORDS: [(&str, &str); 8] = [
        ("minimum", "≥ "),
        ("exclusiveMinimum", "> "),
        ("maximum", "≤ "),
        ("minLength", "length ≥ "),
        ("maxLength", "length ≤ "),
        ("minItems", "at least "),
        ("maxItems", "at most "),
        ("pattern", "matching "),
    ];
    let Some(known) = schema.as_object() else { return kind.to_owned() };
    let said = WORDS.iter().filter_map(|(key, words)| {
        let value = known.get(*key)?;
        Some(if *key == "pattern" { format!("{words}{}", code(value)) } else { format!("{words}{value}") })
    });
    std::iter::once(kind.to_owned()).chain(said).collect::<Vec<_>>().join(", ")
}

fn list(values: &Value, separator: &str) -> String {
    values.as_array().into_iter().flatten().map(code).collect::<Vec<_>>().join(separator)
}

/// A value as code in a cell of a table.
fn code(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = text.replace('|', "\\|");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}
