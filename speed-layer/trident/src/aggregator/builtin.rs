//! The aggregations that everybody needs.

use stratus_topology::TaskError;

use super::CombinerAggregator;
use crate::tuple::TridentTuple;

/// How many tuples there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl CombinerAggregator for Count {
    type Value = i64;

    fn init(&self, _tuple: TridentTuple<'_>) -> Result<i64, TaskError> {
        Ok(1)
    }

    fn combine(&self, one: i64, other: i64) -> Result<i64, TaskError> {
        Ok(one + other)
    }

    fn zero(&self) -> Result<i64, TaskError> {
        Ok(0)
    }
}

/// The sum of the first field, whole numbers; nulls count nothing. It saturates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum;

impl CombinerAggregator for Sum {
    type Value = i64;

    fn init(&self, tuple: TridentTuple<'_>) -> Result<i64, TaskError> {
        Ok(tuple.get::<Option<i64>>(0)?.unwrap_or(0))
    }

    fn combine(&self, one: i64, other: i64) -> Result<i64, TaskError> {
        Ok(one.saturating_add(other))
    }

    fn zero(&self) -> Result<i64, TaskError> {
        Ok(0)
    }
}

/// The least value of the first field, whole numbers; null if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Min;

impl CombinerAggregator for Min {
    type Value = Option<i64>;

    fn init(&self, tuple: TridentTuple<'_>) -> Result<Option<i64>, TaskError> {
        tuple.get(0)
    }

    fn combine(&self, one: Option<i64>, other: Option<i64>) -> Result<Option<i64>, TaskError> {
        Ok(one.into_iter().chain(other).min())
    }

    fn zero(&self) -> Result<Option<i64>, TaskError> {
        Ok(None)
    }
}

/// The greatest value of the first field, whole numbers; null if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Max;

impl CombinerAggregator for Max {
    type Value = Option<i64>;

    fn init(&self, tuple: TridentTuple<'_>) -> Result<Option<i64>, TaskError> {
        tuple.get(0)
    }

    fn combine(&self, one: Option<i64>, other: Option<i64>) -> Result<Option<i64>, TaskError> {
        Ok(one.max(other))
    }

    fn zero(&self) -> Result<Option<i64>, TaskError> {
        Ok(None)
    }
}
