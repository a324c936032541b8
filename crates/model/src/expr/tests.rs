use proptest::prelude::*;
use serde_json::json;

use super::*;

#[expect(clippy::borrowed_box, reason = "what an expression hands to its look-up")]
fn lookup(name: &Box<str>) -> Option<Operand<'static>> {
    let value = match &**name {
        "name" | "arg_name" => "json",
        "age" => "18",
        "hex" => " 0x10 ",
        "empty" => "",
        "word" => "Hello World",
        "weight" => "65.5",
        "ip" => "192.168.1.7",
        "ip6" => "2001:db8::68",
        "list" => return Some(json!(["a", "b", 1, true]).into()),
        "five" => return Some(json!(5).into()),
        "flag" => return Some(json!(true).into()),
        "typed" => return Some(json!("json").into()),
        "text_list" => r#"["a"]"#,
        "null" => "null",
        _ => return None,
    };
    Some(value.into())
}

fn eval(rules: &Value) -> bool {
    Expr::compile(rules).unwrap_or_else(|error| panic!("{rules}: {error}")).eval(&lookup)
}

#[test]
fn comparisons() {
    let holds = [
        json!(["name", "==", "json"]),
        json!(["name", "json"]),
        json!(["age", "==", 18]),
        json!(["age", "==", 18.0]),
        json!(["age", "==", "18"]),
        json!(["hex", "==", 16]),
        json!(["weight", "==", 65.5]),
        json!(["none", "==", null]),
        json!(["none", "=="]),
        json!(["none", "~=", "x"]),
        json!(["none", "~=", 1]),
        json!(["name", "~=", 1]),
        json!(["name", "~=", null]),
        json!(["name", "~=", "x"]),
        json!(["age", ">", 17]),
        json!(["age", ">", "17"]),
        json!(["age", ">=", 18]),
        json!(["age", "<", 18.5]),
        json!(["age", "<=", 18]),
        json!(["weight", ">", 65]),
        json!(["name", "~~", "^js"]),
        json!(["empty", "~~", "^$"]),
        json!(["word", "~~", "[A-Z][a-z]+ W"]),
        json!(["word", "~*", "^hello world$"]),
        json!(["word", "~~", "^(?!x)Hello"]),
        json!(["name", "in", ["x", "json"]]),
        json!(["name", "IN", ["json"]]),
        json!(["list", "has", "a"]),
        json!(["list", "has", 1]),
        json!(["list", "has", true]),
        json!(["five", "==", 5]),
        json!(["five", "<", "6"]),
        json!(["five", "in", ["5", 5]]),
        json!(["five", "~~", "^5$"]),
        json!(["five", "~=", "5"]),
        json!(["flag", "==", true]),
        json!(["flag", "~=", "true"]),
        json!(["typed", "==", "json"]),
        json!(["typed", "~~", "^js"]),
        json!(["ip", "ipmatch", "192.168.1.7"]),
        json!(["ip", "ipmatch", ["10.0.0.0/8", "192.168.1.0/24"]]),
        json!(["ip6", "ipmatch", ["2001:db8::/32"]]),
        json!(["name", "!", "==", "x"]),
        json!(["name", "!", "in", ["x"]]),
        json!(["none", "!", "~~", "x"]),
        json!(["ip", "!", "ipmatch", ["10.0.0.0/8"]]),
        json!(["name", "!", "~=", "json"]),
        json!(["name", "!", ">", 1]),
    ];
    for rule in holds {
        assert!(eval(&json!([rule])), "{rule}");
        assert!(!eval(&json!(["!AND", rule, ["name", "==", "json"]])), "!AND {rule}");
    }
}

#[test]
fn comparisons_that_do_not_hold() {
    let fails = [
        json!(["name", "==", "Json"]),
        // The two-word form lowers the value.
        json!(["word", "Hello World"]),
        json!(["name", "==", 1]),
        json!(["name", "==", true]),
        json!(["name", "==", ["json"]]),
        json!(["none", "==", "x"]),
        json!(["none", "~=", null]),
        json!(["null", "==", null]),
        json!(["age", ">", 18]),
        json!(["age", "<", 18]),
        json!(["name", ">", 1]),
        json!(["none", "<", 1]),
        json!(["none", ">=", 1]),
        json!(["age", "<", "x"]),
        json!(["none", "~~", ".*"]),
        json!(["word", "~~", "^hello"]),
        // A number is not the text of it.
        json!(["age", "in", [18]]),
        json!(["age", "in", "18"]),
        json!(["none", "in", ["x"]]),
        json!(["list", "has", "c"]),
        json!(["list", "has", "1"]),
        json!(["list", "==", ["a", "b", 1, true]]),
        json!(["list", "~~", "a"]),
        // Text that looks like a list is a text.
        json!(["text_list", "has", "a"]),
        json!(["five", "==", "5"]),
        json!(["five", "in", ["5"]]),
        json!(["flag", "==", "true"]),
        json!(["flag", "==", false]),
        json!(["flag", ">", 0]),
        json!(["name", "has", "json"]),
        json!(["ip", "ipmatch", ["10.0.0.0/8"]]),
        json!(["name", "ipmatch", ["0.0.0.0/0"]]),
        json!(["none", "ipmatch", ["0.0.0.0/0"]]),
        json!(["name", "!", "==", "json"]),
    ];
    for rule in fails {
        assert!(!eval(&json!([rule])), "{rule}");
        assert!(eval(&json!(["!OR", rule, ["name", "==", "x"]])), "!OR {rule}");
    }
}

#[test]
fn logic() {
    let (yes, no) = (json!(["name", "==", "json"]), json!(["name", "==", "x"]));
    for (rules, expected) in [
        (json!([]), true),
        (json!({}), true),
        (json!([yes, yes]), true),
        (json!([yes, no]), false),
        (json!(["AND", yes, no]), false),
        (json!(["and", yes, yes]), true),
        (json!(["OR", no, yes]), true),
        (json!(["OR", no, no]), false),
        (json!(["!AND", yes, no]), true),
        (json!(["!AND", yes, yes]), false),
        (json!(["!OR", no, no]), true),
        (json!(["!OR", no, yes]), false),
        (json!(["AND", yes, ["OR", no, ["AND", yes, yes]]]), true),
        (json!([yes, ["!OR", no, ["AND", yes, no]]]), true),
        (json!([["OR", no, no], yes]), false),
        (json!(["OR", [yes, no], [yes, yes]]), true),
    ] {
        assert_eq!(eval(&rules), expected, "{rules}");
    }
}

#[test]
fn rules_that_cannot_be_evaluated() {
    for (rules, error) in [
        (json!("x"), "missing argument rule"),
        (json!(["name", "==", "json"]), "rule should be wrapped inside brackets"),
        (json!([["name", "=", "json"]]), "invalid operator '='"),
        (json!([["name", "not", "==", "json"]]), "bad 'not' expression"),
        (json!([["name"]]), "invalid expression"),
        (json!([[]]), "rule too short"),
        (json!(["AND", ["name", "==", "json"]]), "rule too short"),
        (json!(["OR"]), "rule too short"),
        (json!([["name", "==", "json"], "x"]), "invalid expression"),
        (json!([[null, "==", "json"]]), "invalid expression"),
        (json!([["name", {}, "json"]]), "invalid expression"),
        (json!([["ip", "ipmatch", []]]), "invalid ip address"),
        (json!([["ip", "ipmatch", ""]]), "invalid ip address"),
        (json!([["ip", "ipmatch"]]), "invalid ip address"),
        (json!([["ip", "ipmatch", ["10.0.0.0/33"]]]), "invalid ip address: 10.0.0.0/33"),
    ] {
        assert_eq!(Expr::compile(&rules).unwrap_err(), error, "{rules}");
    }
    assert!(Expr::compile(&json!([["name", "~~", "("]])).is_err());
}

#[test]
fn variables_are_named_in_order() {
    let expr = Expr::compile(&json!(["OR", ["b", "==", "1"], [["a", "!", "in", []], ["c", "x"]]])).unwrap();
    let names = expr.resolve(&str::to_owned);
    assert_eq!(names.variables(), ["b", "a", "c"]);
}

proptest! {
    #[test]
    fn no_rules_make_anyone_panic(words in prop::collection::vec("AND|!|==|~~|in|ipmatch|>|\\PC{0,6}", 0..6), nested in any::<bool>()) {
        let rules = if nested { json!([words, [words]]) } else { json!(words) };
        if let Ok(expr) = Expr::compile(&rules) {
            let _ = expr.eval(&lookup);
        }
    }
}
