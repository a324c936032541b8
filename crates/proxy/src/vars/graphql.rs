//! GraphQL documents, as far as rules look at them.

use apollo_parser::{
    Parser,
    cst::{Definition, OperationDefinition, Selection},
};
use serde_json::Value;

/// Deeper documents are not understood: reading them takes stack.
const DEEPEST: usize = 200;
/// Longer ones neither: it takes memory for each token.
const MOST_TOKENS: usize = 200_000;

/// The first operation of a document.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Empty where it has none.
    pub name: String,
    /// `query`, `mutation` or `subscription`.
    pub kind: &'static str,
    /// The names of the fields asked for, as a list.
    pub root_fields: Value,
}

/// The operation that a document begins with. None where the document is none, or begins with something else.
pub fn parse(document: &str) -> Option<Operation> {
    let parsed = Parser::new(document).recursion_limit(DEEPEST).token_limit(MOST_TOKENS).parse();
    if parsed.errors().next().is_some() {
        return None;
    }
    match parsed.document().definitions().next()? {
        Definition::OperationDefinition(operation) => Some(read(&operation)),
        _ => None,
    }
}

fn read(operation: &OperationDefinition) -> Operation {
    let name = operation.name().map(|name| name.text().to_string()).unwrap_or_default();
    let kind = match operation.operation_type() {
        Some(kind) if kind.mutation_token().is_some() => "mutation",
        Some(kind) if kind.subscription_token().is_some() => "subscription",
        _ => "query",
    };
    let selections = operation.selection_set().into_iter().flat_map(|set| set.selections());
    let names = selections.filter_map(|selection| match selection {
        Selection::Field(field) => Some(field.name()?.text().to_string()),
        Selection::FragmentSpread(spread) => Some(spread.fragment_name()?.name()?.text().to_string()),
        Selection::InlineFragment(_) => None,
    });
    Operation { name, kind, root_fields: names.collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        for (document, name, kind, fields) in [
            ("{ a }", "", "query", json!(["a"])),
            (
                "query getRepo { owner { name } alias: repo(id: \"x\") { created } }",
                "getRepo",
                "query",
                json!(["owner", "repo"]),
            ),
            ("mutation m($x: Int) { set(x: $x) ...more }", "m", "mutation", json!(["set", "more"])),
            ("query one { a } query two { b }", "one", "query", json!(["a"])),
        ] {
            let found = parse(document).unwrap();
            assert_eq!((&*found.name, found.kind, found.root_fields), (name, kind, fields), "{document}");
        }
    }

    #[test]
    fn what_is_no_operation() {
        let deep = format!("{}a{}", "{a".repeat(10_000), "}".repeat(10_000));
        for document in ["", "AAAA", "{", "fragment f on T { a }", "query { }", &deep] {
            assert_eq!(parse(document), None, "{document:.40}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_anyone_panic(document in "[{}()a-c:$!\\[\\] \"#.@=]{0,40}") {
            let _ = parse(&document);
        }
    }
}
