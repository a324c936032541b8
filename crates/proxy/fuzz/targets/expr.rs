//! Conditions as a route has them: compiled or refused, and evaluated without a panic, the same each time.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use model::expr::{Expr, Operand};

fuzz_target!(|data: &[u8]| {
    let Some((&length, rest)) = data.split_first() else { return };
    let (value, rules) = rest.split_at(usize::from(length).min(rest.len()));
    let Ok(rules) = serde_json::from_slice(rules) else { return };
    let Ok(expr) = Expr::compile(&rules) else { return };
    let text = String::from_utf8_lossy(value);
    let some = |_: &Box<str>| Some(Operand::Text(Cow::Borrowed(&*text)));
    assert_eq!(expr.eval(&some), expr.eval(&some));
    expr.eval(&|_| None);
    assert_eq!(expr.variables(), Expr::compile(&rules).unwrap().variables());
});
