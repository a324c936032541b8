//! Checks a value against a JSON Schema as APISIX does, word for word.
//!
//! The rule to know: this is APISIX's dialect (that of the library api7/jsonschema), not the standard. Checking
//! fills in defaults on its way, so that a later rule sees them; an empty list and an empty object are the same; a
//! reference to a secret passes for any text; and only the first error is told, in the words users know.

mod compile;
mod lua;
mod run;
mod subject;
mod tables;

use serde_json::Value;

use crate::pattern::Pattern;

pub(crate) use lua::is_reference;
use run::Run;

/// A compiled schema.
#[derive(Debug)]
pub struct Validator {
    /// In the order in which they are asked.
    rules: Vec<Rule>,
    /// Whether a reference to a secret passes: where a text may stand.
    takes_references: bool,
}

#[derive(Debug)]
enum Rule {
    Never,
    Type(Vec<Type>),
    Object(Box<ObjectRule>),
    /// `required` that names nothing.
    NothingInIt,
    Array(Box<ArrayRule>),
    Text(Box<TextRule>),
    Number(Box<NumberRule>),
    OneOfValues(Vec<Value>),
    AllOf(Vec<Validator>),
    /// With what its branches require, for the error.
    AnyOf(Vec<Validator>, String),
    OneOf(Vec<Validator>),
    If(Box<(Validator, Option<Validator>, Option<Validator>)>),
    Not(Box<Validator>),
    Format(Format),
    Just(Value),
    Contains(Box<Validator>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    Table,
    Integer,
    Number,
    String,
    Boolean,
    Null,
}

#[derive(Debug, Default)]
struct ObjectRule {
    properties: Vec<Property>,
    /// Required without being described.
    required: Vec<String>,
    /// Of properties that are not described.
    dependencies: Vec<(String, Dependency)>,
    patterns: Vec<(String, Pattern, Validator)>,
    others: Others,
    least: Option<usize>,
    most: Option<usize>,
}

#[derive(Debug)]
struct Property {
    name: String,
    validator: Validator,
    required: bool,
    default: Option<Value>,
    dependency: Option<Dependency>,
}

#[derive(Debug)]
enum Dependency {
    Properties(Vec<String>),
    Schema(Box<Validator>),
}

/// Properties that are not described.
#[derive(Debug, Default)]
enum Others {
    #[default]
    Allowed,
    Forbidden,
    Like(Box<Validator>),
}

#[derive(Debug, Default)]
struct ArrayRule {
    least: Option<usize>,
    most: Option<usize>,
    first: Vec<Validator>,
    rest: Option<Validator>,
    no_more: bool,
    unique: bool,
}

#[derive(Debug)]
struct TextRule {
    least: Option<usize>,
    most: Option<usize>,
    pattern: Option<(String, Pattern)>,
}

#[derive(Debug)]
struct NumberRule {
    least: Option<f64>,
    above: Option<f64>,
    most: Option<f64>,
    below: Option<f64>,
    multiple_of: Option<f64>,
}

#[derive(Debug)]
enum Format {
    Ipv4,
    Ipv6,
    Like(&'static str, Pattern),
}

impl Validator {
    /// Compiles a schema. Its patterns and references are looked at now, never when a value is checked.
    pub fn new(schema: &Value) -> Result<Self, String> {
        compile::schema(schema)
    }

    /// Checks a value and leaves it alone.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        Run::LOUD.check(self, value)
    }

    /// Checks a value and puts in the defaults of what is absent.
    pub fn fill(&self, value: &mut Value) -> Result<(), String> {
        Run::LOUD.check(self, value)
    }
}

#[cfg(test)]
mod tests;
