//! Which conditions cannot fail on any value, so that the optimizer may move them as it likes.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use super::all_of;

/// The conditions that cannot fail, and the others. The first are evaluated first in both layers: a row that they
/// reject never fails.
pub(super) fn separate(conditions: Vec<Expr>, schema: &DFSchema) -> (Option<Expr>, Option<Expr>) {
    let conjuncts = conditions.into_iter().flat_map(split_conjunction_owned);
    let folded = conjuncts.map(|conjunct| fold(conjunct, schema));
    let (sure, rest): (Vec<Expr>, Vec<Expr>) = folded.partition(|conjunct| is_sure(conjunct, schema));
    (all_of(sure), all_of(rest))
}

/// The value of an expression without columns, if it is a literal under casts that succeed.
pub(super) fn constant(expr: &Expr, schema: &DFSchema) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Alias(alias) => constant(&alias.expr, schema),
        Expr::Cast(Cast { expr: inner, .. }) => {
            let value = constant(inner, schema)?;
            let data_type = expr.get_type(schema).ok()?;
            value.cast_to(&data_type).ok()
        }
        Expr::Negative(inner) => constant(inner, schema)?.arithmetic_negate().ok(),
        _ => None,
    }
}

/// Casts of literals are done now, where they succeed.
fn fold(expr: Expr, schema: &DFSchema) -> Expr {
    let folded = expr.clone().transform_up(|expr| {
        Ok(match &expr {
            Expr::Cast(_) | Expr::Negative(_) => match constant(&expr, schema) {
                Some(value) => Transformed::yes(Expr::Literal(value, None)),
                None => Transformed::no(expr),
            },
            _ => Transformed::no(expr),
        })
    });
    folded.map_or(expr, |folded| folded.data)
}

/// Whether the expression has a value, or NULL, for every row.
pub(super) fn is_sure(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_sure(&alias.expr, schema),
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => is_sure(inner, schema),
        Expr::Between(between) => {
            [&between.expr, &between.low, &between.high].iter().all(|e| is_sure(e, schema))
        }
        Expr::InList(list) => {
            is_sure(&list.expr, schema) && list.list.iter().all(|item| matches!(item, Expr::Literal(..)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let compares = matches!(
                op,
                Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
                    | Operator::And
                    | Operator::Or
                    | Operator::IsDistinctFrom
                    | Operator::IsNotDistinctFrom
            );
            let alike = match (left.get_type(schema), right.get_type(schema)) {
                (Ok(left), Ok(right)) => left == right && !left.is_nested(),
                _ => false,
            };
            compares && alike && is_sure(left, schema) && is_sure(right, schema)
        }
        Expr::Cast(cast) => {
            let widens = match (cast.expr.get_type(schema), expr.get_type(schema)) {
                (Ok(from), Ok(to)) => widens(&from, &to),
                _ => false,
            };
            widens && is_sure(&cast.expr, schema)
        }
        _ => false,
    }
}

/// Whether every value of `from` is one of `to`.
pub(super) fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Float32, Float64, Int8, Int16, Int32, Int64};
    from == to
        || matches!(
            (from, to),
            (Int8, Int16 | Int32 | Int64 | Float32 | Float64)
                | (Int16, Int32 | Int64 | Float32 | Float64)
                | (Int32, Int64 | Float64)
                | (Int64 | Float32, Float64)
        )
}
