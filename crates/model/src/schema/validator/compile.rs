//! From a schema's JSON to its rules, in the order in which they are asked.

use serde_json::{Map, Value};

use super::{
    ArrayRule, Dependency, Format, NumberRule, ObjectRule, Others, Property, Rule, TextRule, Type, Validator,
    lua,
};
use crate::pattern::Pattern;

type Compiled<T> = Result<T, String>;

/// How deep `$ref`s may lead into each other: a schema that contains itself has no end.
const MAX_DEPTH: usize = 32;

pub(super) fn schema(root: &Value) -> Compiled<Validator> {
    Compile { root, depth: 0 }.schema(root)
}

#[derive(Clone, Copy)]
struct Compile<'a> {
    root: &'a Value,
    depth: usize,
}

impl<'a> Compile<'a> {
    fn schema(self, schema: &'a Value) -> Compiled<Validator> {
        match schema {
            Value::Bool(true) => Ok(Validator { rules: Vec::new(), takes_references: false }),
            Value::Bool(false) => Ok(Validator { rules: vec![Rule::Never], takes_references: false }),
            Value::Object(keywords) => match keywords.get("$ref") {
                Some(place) => self.referred(place),
                None => Ok(Validator {
                    rules: self.rules(keywords)?,
                    takes_references: keywords.get("type").is_none_or(|one| one == "string"),
                }),
            },
            // An empty Lua table may have been written as a list.
            Value::Array(items) if items.is_empty() => self.schema(&Value::Bool(true)),
            _ => Err(format!("not a schema: {schema}")),
        }
    }

    fn referred(self, place: &Value) -> Compiled<Validator> {
        let found = place.as_str().and_then(|place| self.root.pointer(place.strip_prefix('#')?));
        match found {
            Some(schema) if self.depth < MAX_DEPTH => Self { depth: self.depth + 1, ..self }.schema(schema),
            Some(_) => Err(format!("{place} has no end")),
            None => Err(format!("{place} leads nowhere")),
        }
    }

    fn schemas(self, list: &'a Value) -> Compiled<Vec<Validator>> {
        list.as_array().into_iter().flatten().map(|schema| self.schema(schema)).collect()
    }

    fn boxed(self, schema: &'a Value) -> Compiled<Box<Validator>> {
        self.schema(schema).map(Box::new)
    }

    fn rules(self, keywords: &'a Map<String, Value>) -> Compiled<Vec<Rule>> {
        let mut rules = Vec::new();
        let has = |names: &[&str]| names.iter().any(|name| keywords.contains_key(*name));
        if let Some(types) = keywords.get("type") {
            rules.push(Rule::Type(self.types(types)?));
        }
        if has(&OBJECT) {
            rules.push(Rule::Object(Box::new(self.object(keywords)?)));
        }
        if keywords.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            rules.push(Rule::NothingInIt);
        }
        if has(&["items", "minItems", "maxItems", "uniqueItems"]) {
            rules.push(Rule::Array(Box::new(self.array(keywords)?)));
        }
        if has(&["minLength", "maxLength", "pattern"]) {
            rules.push(Rule::Text(Box::new(text(keywords)?)));
        }
        if has(&["minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"]) {
            rules.push(Rule::Number(Box::new(number(keywords))));
        }
        if let Some(Value::Array(values)) = keywords.get("enum") {
            rules.push(Rule::OneOfValues(values.clone()));
        }
        self.compound(keywords, &mut rules)?;
        if let Some(format) = keywords.get("format").and_then(Value::as_str).and_then(format) {
            rules.push(Rule::Format(format?));
        }
        if let Some(value) = keywords.get("const") {
            rules.push(Rule::Just(value.clone()));
        }
        if let Some(one) = keywords.get("contains") {
            rules.push(Rule::Contains(self.boxed(one)?));
        }
        Ok(rules)
    }

    fn compound(self, keywords: &'a Map<String, Value>, rules: &mut Vec<Rule>) -> Compiled<()> {
        if let Some(all) = keywords.get("allOf") {
            rules.push(Rule::AllOf(self.schemas(all)?));
        }
        if let Some(any) = keywords.get("anyOf") {
            rules.push(Rule::AnyOf(self.schemas(any)?, required_by(any)));
        }
        if let Some(one) = keywords.get("oneOf") {
            rules.push(Rule::OneOf(self.schemas(one)?));
        }
        if let Some(condition) = keywords.get("if") {
            let clause = |name| keywords.get(name).map(|schema| self.schema(schema)).transpose();
            rules.push(Rule::If(Box::new((self.schema(condition)?, clause("then")?, clause("else")?))));
        }
        if let Some(not) = keywords.get("not") {
            rules.push(Rule::Not(self.boxed(not)?));
        }
        Ok(())
    }

    fn types(self, types: &Value) -> Compiled<Vec<Type>> {
        let one = |name: &Value| {
            name.as_str().and_then(Type::from_name).ok_or_else(|| format!("invalid JSON type: {name}"))
        };
        match types {
            Value::Array(names) => names.iter().map(one).collect(),
            name => Ok(vec![one(name)?]),
        }
    }

    fn object(self, keywords: &'a Map<String, Value>) -> Compiled<ObjectRule> {
        let described = keywords.get("properties").and_then(Value::as_object);
        let is_described = |name: &str| described.is_some_and(|all| all.contains_key(name));
        let required = names(keywords.get("required"));
        let dependencies = keywords.get("dependencies").and_then(Value::as_object);
        let mut rule = ObjectRule {
            required: required.iter().filter(|name| !is_described(name)).cloned().collect(),
            others: match keywords.get("additionalProperties") {
                None | Some(Value::Bool(true)) => Others::Allowed,
                Some(Value::Bool(false)) => Others::Forbidden,
                Some(schema) => Others::Like(self.boxed(schema)?),
            },
            least: size(keywords, "minProperties"),
            most: size(keywords, "maxProperties"),
            ..ObjectRule::default()
        };
        for (name, schema) in described.into_iter().flatten() {
            let dependency = dependencies.and_then(|all| all.get(name));
            rule.properties.push(Property {
                name: name.clone(),
                validator: self.schema(schema).map_err(|error| format!("{name}: {error}"))?,
                required: required.contains(name),
                default: schema.get("default").filter(|default| !default.is_null()).cloned(),
                dependency: dependency.map(|dependency| self.dependency(dependency)).transpose()?,
            });
        }
        for (name, dependency) in dependencies.into_iter().flatten() {
            if !is_described(name) {
                rule.dependencies.push((name.clone(), self.dependency(dependency)?));
            }
        }
        for (source, schema) in
            keywords.get("patternProperties").and_then(Value::as_object).into_iter().flatten()
        {
            rule.patterns.push((source.clone(), Pattern::new(source)?, self.schema(schema)?));
        }
        Ok(rule)
    }

    fn dependency(self, dependency: &'a Value) -> Compiled<Dependency> {
        match dependency {
            Value::Array(list) if !list.is_empty() => Ok(Dependency::Properties(names(Some(dependency)))),
            schema => Ok(Dependency::Schema(self.boxed(schema)?)),
        }
    }

    fn array(self, keywords: &'a Map<String, Value>) -> Compiled<ArrayRule> {
        let mut rule = ArrayRule {
            least: size(keywords, "minItems"),
            most: size(keywords, "maxItems"),
            unique: keywords.get("uniqueItems") == Some(&Value::Bool(true)),
            ..ArrayRule::default()
        };
        match keywords.get("items") {
            None | Some(Value::Bool(true)) => {}
            Some(list @ Value::Array(items)) if !items.is_empty() => {
                rule.first = self.schemas(list)?;
                match keywords.get("additionalItems") {
                    Some(Value::Bool(false)) => rule.no_more = true,
                    Some(schema @ Value::Object(_)) => rule.rest = Some(self.schema(schema)?),
                    _ => {}
                }
            }
            Some(schema) => rule.rest = Some(self.schema(schema)?),
        }
        Ok(rule)
    }
}

/// The keywords that speak of objects.
const OBJECT: [&str; 7] = [
    "properties",
    "additionalProperties",
    "patternProperties",
    "minProperties",
    "maxProperties",
    "dependencies",
    "required",
];

impl Type {
    fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Object,
            Self::Array,
            Self::Table,
            Self::Integer,
            Self::Number,
            Self::String,
            Self::Boolean,
            Self::Null,
        ];
        all.into_iter().find(|one| one.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::Table => "table",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Null => "null",
        }
    }

    pub(super) fn fits(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object() || lua::is_empty(value),
            Self::Array => value.is_array() || lua::is_empty(value),
            Self::Table => value.is_object() || value.is_array(),
            Self::Integer => value.as_f64().is_some_and(|n| n.fract() == 0.0),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::Null => value.is_null(),
        }
    }
}

fn text(keywords: &Map<String, Value>) -> Compiled<TextRule> {
    let pattern = match keywords.get("pattern").and_then(Value::as_str) {
        Some(source) => Some((source.to_owned(), Pattern::new(source)?)),
        None => None,
    };
    Ok(TextRule { least: size(keywords, "minLength"), most: size(keywords, "maxLength"), pattern })
}

fn number(keywords: &Map<String, Value>) -> NumberRule {
    let limit = |name: &str| keywords.get(name).and_then(Value::as_f64);
    NumberRule {
        least: limit("minimum"),
        above: limit("exclusiveMinimum"),
        most: limit("maximum"),
        below: limit("exclusiveMaximum"),
        multiple_of: limit("multipleOf"),
    }
}

fn size(keywords: &Map<String, Value>, name: &str) -> Option<usize> {
    keywords.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok())
}

fn names(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// What an error says of branches that fail: `: ["a"] or ["b"]`.
fn required_by(any: &Value) -> String {
    let branches = any.as_array().into_iter().flatten();
    let lists: Vec<_> = branches.filter_map(|branch| branch.get("required")).map(Value::to_string).collect();
    if lists.is_empty() { String::new() } else { format!(": {}", lists.join(" or ")) }
}

/// The formats that are looked at; others are only notes.
fn format(name: &str) -> Option<Compiled<Format>> {
    let (name, pattern) = match name {
        "ipv4" => return Some(Ok(Format::Ipv4)),
        "ipv6" => return Some(Ok(Format::Ipv6)),
        "email" => ("email", r"^[A-Za-z0-9_\-.]+@[A-Za-z0-9_\-.]+\.[A-Za-z]{2,4}$"),
        "hostname" => ("hostname", r"^[a-zA-Z0-9\-.]+$"),
        "uuid" => ("uuid", r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
        "date" => ("date", r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"),
        "date-time" => (
            "date-time",
            r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$",
        ),
        "uri" => ("uri", r"^[a-zA-Z][a-zA-Z0-9+\-.]*:\S*$"),
        _ => return None,
    };
    Some(Pattern::new(pattern).map(|pattern| Format::Like(name, pattern)))
}
