//! Which aggregates a view may have, and how exactly its layers agree on each.

use serde::{Deserialize, Serialize};

use datafusion::arrow::datatypes::DataType;

use crate::canonical::is_plain;

/// How exactly a merged answer equals a full recompute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Bit for bit, whatever the order and the split.
    Exact,
    /// Within a bound: a relative error of 1e-9 for floats, 1 % of rank for percentiles.
    Bounded,
}

/// Why something is refused, and what to use instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

const CLASSES: &str = "The classes of aggregates: docs/views.md";

fn refusal(reason: impl Into<String>, hint: impl AsRef<str>) -> Refusal {
    Refusal { reason: reason.into(), hint: format!("{}. {CLASSES}", hint.as_ref()) }
}

/// The aggregates that views may have, by DataFusion's name.
const ADMITTED: [&str; 20] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "approx_distinct",
    "approx_percentile_cont",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "var_samp",
];

/// Whether the aggregate of that name may stand in a view at all. `argument` is its first argument as written.
pub(crate) fn admit(name: &str, distinct: bool, argument: &str) -> Result<(), Refusal> {
    if distinct {
        return Err(match name {
            "min" | "max" | "bool_and" | "bool_or" | "bit_and" | "bit_or" => refusal(
                format!("DISTINCT changes nothing within {name}"),
                format!("write {name}({argument})"),
            ),
            _ => refusal(
                format!("{name}(DISTINCT ...) keeps every distinct value, so its state has no bound"),
                format!("approx_distinct({argument}) estimates their number in at most 16 KiB"),
            ),
        });
    }
    if ADMITTED.contains(&name) {
        return Ok(());
    }
    Err(match name {
        "median" => refusal(
            "median keeps every value it sees, so its state has no bound",
            format!("approx_percentile_cont({argument}, 0.5) is within 1 % of rank"),
        ),
        "percentile_cont" => refusal(
            "percentile_cont keeps every value it sees, so its state has no bound",
            "approx_percentile_cont with the same arguments is within 1 % of rank",
        ),
        "approx_median" => refusal(
            "approx_median is not among the aggregates of views",
            format!("approx_percentile_cont({argument}, 0.5) is the same"),
        ),
        "array_agg" | "string_agg" => refusal(
            format!("{name} keeps every value it sees, in the order of arrival, so its state has no bound"),
            "query the source itself, under its own name",
        ),
        "first_value" | "last_value" | "nth_value" | "any_value" => refusal(
            format!("the answer of {name} depends on the order in which events arrive"),
            format!("min({argument}) and max({argument}) do not"),
        ),
        "grouping" => {
            refusal("grouping() needs grouping sets, which views do not have", "write one view per set")
        }
        _ => refusal(
            format!("{name} is not among the aggregates of views"),
            "there are: count, sum, avg, min, max, bool_*, bit_*, approx_distinct, approx_percentile_cont, \
             stddev*, var*, covar_*, corr",
        ),
    })
}

/// The class of an admitted aggregate over arguments of these canonical types.
pub(crate) fn classify(name: &str, types: &[&DataType]) -> Result<Class, Refusal> {
    let first = types.first().copied().unwrap_or(&DataType::Null);
    let is_float = matches!(first, DataType::Float32 | DataType::Float64);
    let is_exact =
        first.is_integer() || matches!(first, DataType::Decimal128(_, _) | DataType::Decimal256(_, _));
    match name {
        "count" | "bool_and" | "bool_or" | "bit_and" | "bit_or" | "bit_xor" => Ok(Class::Exact),
        "sum" | "avg" if is_exact => Ok(Class::Exact),
        "sum" | "avg" if is_float => Ok(Class::Bounded),
        "sum" | "avg" => {
            Err(refusal(format!("{name} over {first} cannot be kept as a state"), "cast it to a number"))
        }
        "min" | "max" if is_plain(first) => Ok(Class::Exact),
        "min" | "max" => Err(refusal(
            format!("{name} over {first} has no order that both layers share"),
            "name a part of it",
        )),
        "approx_distinct" if is_float => Err(refusal(
            format!(
                "approx_distinct over floats ({first}) is not implemented: equal floats may differ in bits"
            ),
            "cast the argument to TEXT, NUMERIC or BIGINT",
        )),
        "approx_distinct" if is_plain(first) => Ok(Class::Exact),
        "approx_distinct" => Err(refusal(
            format!("approx_distinct over {first} is not implemented"),
            "cast the argument to TEXT",
        )),
        _ => Ok(Class::Bounded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_what_to_use() {
        let refusal = admit("median", false, "ms").unwrap_err();
        assert_eq!(refusal.reason, "median keeps every value it sees, so its state has no bound");
        assert!(refusal.hint.starts_with("approx_percentile_cont(ms, 0.5) is within 1 % of rank."));
        assert!(admit("count", true, "user_id").unwrap_err().hint.contains("approx_distinct(user_id)"));
        assert!(admit("regr_slope", false, "y").is_err());
    }

    #[test]
    fn floats_are_bounded_and_integers_exact() {
        assert_eq!(classify("sum", &[&DataType::Int64]), Ok(Class::Exact));
        assert_eq!(classify("avg", &[&DataType::Decimal128(10, 2)]), Ok(Class::Exact));
        assert_eq!(classify("sum", &[&DataType::Float64]), Ok(Class::Bounded));
        assert_eq!(classify("max", &[&DataType::Float64]), Ok(Class::Exact));
        assert!(classify("approx_distinct", &[&DataType::Float64]).is_err());
    }
}
