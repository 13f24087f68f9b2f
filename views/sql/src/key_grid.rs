//! The values that a group key of time can have at all: one per bucket.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Every value of a key is `phase` plus a multiple of `step`, in microseconds since 1970. Not every such value need
/// be one that the key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyGrid {
    /// The distance between two values, above 0.
    pub step: i64,
    /// Where a value lies, from 0 to below `step`.
    pub phase: i64,
}

/// The grid of a key, as its expression says; none if the expression is no bucket of a constant interval, or its zone
/// is not UTC.
pub(crate) fn grid_of(key: &Expr, data_type: &DataType) -> Option<KeyGrid> {
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = data_type else { return None };
    if zone.as_deref().is_some_and(|zone| !matches!(zone, "UTC" | "+00:00")) {
        return None;
    }
    let mut key = key;
    while let Expr::Alias(alias) = key {
        key = &alias.expr;
    }
    let Expr::ScalarFunction(call) = key else { return None };
    let (step, origin) = match (call.func.name(), call.args.as_slice()) {
        ("date_bin", [stride, _]) => (micros_of_interval(stride)?, 0),
        ("date_bin", [stride, _, origin]) => (micros_of_interval(stride)?, micros_of_time(origin)?),
        ("date_trunc", [unit, _]) => step_of_unit(unit)?,
        _ => return None,
    };
    if step <= 0 {
        return None;
    }
    // A time that was rounded to a coarser unit first has its buckets rounded too, if they are finer.
    let whole = step % SECOND == 0 && origin % SECOND == 0;
    let column = call.args.get(1).is_some_and(|time| matches!(time, Expr::Column(_)));
    (whole || column).then_some(KeyGrid { step, phase: origin.rem_euclid(step) })
}

fn step_of_unit(unit: &Expr) -> Option<(i64, i64)> {
    let Expr::Literal(unit, _) = unit else { return None };
    let unit = unit.try_as_str().flatten()?.to_ascii_lowercase();
    Some(match unit.as_str() {
        "microsecond" => (1, 0),
        "millisecond" => (1000, 0),
        "second" => (SECOND, 0),
        "minute" => (60 * SECOND, 0),
        "hour" => (HOUR, 0),
        // Weeks begin on Mondays, and 1970 began on a Thursday.
        "week" => (7 * DAY, 4 * DAY),
        // Months are of different lengths; all of them begin with a day.
        "day" | "month" | "quarter" | "year" => (DAY, 0),
        _ => return None,
    })
}

fn micros_of_interval(stride: &Expr) -> Option<i64> {
    let Expr::Literal(stride, _) = stride else { return None };
    match stride {
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.months == 0 && span.nanoseconds % 1000 == 0 => {
            i64::from(span.days).checked_mul(DAY)?.checked_add(span.nanoseconds / 1000)
        }
        ScalarValue::IntervalDayTime(Some(span)) => {
            i64::from(span.days).checked_mul(DAY)?.checked_add(i64::from(span.milliseconds) * 1000)
        }
        _ => None,
    }
}

fn micros_of_time(origin: &Expr) -> Option<i64> {
    let Expr::Literal(origin, _) = origin else { return None };
    match origin {
        ScalarValue::TimestampSecond(Some(time), _) => time.checked_mul(SECOND),
        ScalarValue::TimestampMillisecond(Some(time), _) => time.checked_mul(1000),
        ScalarValue::TimestampMicrosecond(Some(time), _) => Some(*time),
        ScalarValue::TimestampNanosecond(Some(time), _) => (time % 1000 == 0).then_some(time / 1000),
        _ => None,
    }
}
