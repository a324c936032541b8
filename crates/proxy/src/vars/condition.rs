//! Conditions on the variables of a request: `vars` of a plugin, `_meta.filter`.

use model::expr::Expr;
use serde_json::Value;

use super::Var;
use crate::ctx::Ctx;

/// A condition on the variables of a request, its names understood.
#[derive(Clone, Debug)]
pub struct Condition(Expr<Var>);

impl Condition {
    /// Compiles rules. Errors are APISIX's whole text.
    pub fn compile(rules: &Value) -> Result<Self, String> {
        let names =
            Expr::compile(rules).map_err(|e| format!("failed to validate the 'vars' expression: {e}"))?;
        Ok(Self(names.resolve(&Var::parse)))
    }

    pub fn holds(&self, ctx: &Ctx) -> bool {
        self.0.eval(&|var| var.operand(ctx))
    }

    /// Whether any of its variables is in the request's body.
    pub fn reads_body(&self) -> bool {
        self.0.variables().into_iter().any(Var::reads_body)
    }

    /// The same for a router, which asks for variables by itself.
    pub(crate) fn into_expr(self) -> Expr<Var> {
        self.0
    }
}
