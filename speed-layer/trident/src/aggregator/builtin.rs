//! The aggregations that everybody needs.

use std::marker::PhantomData;

use arrow::datatypes::{DataType, Schema};
use stratus_topology::TaskError;

use super::CombinerAggregator;
use crate::tuple::{TridentTuple, TridentValue};

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

/// What [`Sum`](struct@Sum), [`Min`](struct@Min) and [`Max`](struct@Max) work on: `i64` for fields of whole numbers,
/// `f64` for fields of floats.
pub trait Number: TridentValue + PartialOrd + Default + sealed::Number {}

mod sealed {
    use super::{DataType, TaskError};

    pub trait Number: Sized {
        /// What it is called in errors.
        const NAME: &'static str;
        /// Which fields it is read from.
        const READS: &'static str;

        fn reads(kind: &DataType) -> bool;

        fn plus(self, other: Self) -> Result<Self, TaskError>;

        /// Whether it comes before another. Every number has its place.
        fn is_before(&self, other: &Self) -> bool;
    }

    impl Number for i64 {
        const NAME: &'static str = "i64";
        const READS: &'static str = "whole numbers";

        fn reads(kind: &DataType) -> bool {
            kind.is_integer()
        }

        fn plus(self, other: Self) -> Result<Self, TaskError> {
            self.checked_add(other)
                .ok_or_else(|| format!("the sum of {self} and {other} does not fit into i64").into())
        }

        fn is_before(&self, other: &Self) -> bool {
            self < other
        }
    }

    impl Number for f64 {
        const NAME: &'static str = "f64";
        const READS: &'static str = "floats";

        fn reads(kind: &DataType) -> bool {
            matches!(kind, DataType::Float32 | DataType::Float64)
        }

        fn plus(self, other: Self) -> Result<Self, TaskError> {
            Ok(self + other)
        }

        fn is_before(&self, other: &Self) -> bool {
            // As databases sort: a NaN is the greatest.
            self < other || (other.is_nan() && !self.is_nan())
        }
    }
}

impl Number for i64 {}
impl Number for f64 {}

/// The type of the first field, if it is one that a number is read from; what is wrong, if not.
fn check<V: Number>(aggregation: &str, input: &Schema, also: fn(&DataType) -> bool) -> Result<(), String> {
    let Some(field) = input.fields().first() else {
        return Err(format!("{aggregation} needs the field that it works on"));
    };
    let (name, kind) = (field.name(), field.data_type());
    if V::reads(kind) || also(kind) {
        return Ok(());
    }
    let hint = match kind {
        _ if <f64 as sealed::Number>::reads(kind) => {
            format!("; `{aggregation}::<f64>::new()` works on floats")
        }
        _ if <i64 as sealed::Number>::reads(kind) => {
            format!("; `{aggregation}::<i64>::new()` works on whole numbers")
        }
        _ => String::new(),
    };
    Err(format!(
        "field `{name}` is of type {kind}, and {aggregation}::<{}> works on {}{hint}",
        <V as sealed::Number>::NAME,
        V::READS
    ))
}

macro_rules! of_numbers {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name<V = i64> {
            value: PhantomData<fn() -> V>,
        }

        impl<V: Number> $name<V> {
            /// The aggregation of numbers of this type.
            pub const fn new() -> Self {
                Self { value: PhantomData }
            }
        }

        /// The aggregation of whole numbers.
        #[expect(non_upper_case_globals, reason = "it stands where a unit struct would, as `Count` does")]
        pub const $name: $name = $name::new();
    };
}

of_numbers! {
    /// The sum of the first field; nulls count nothing. `Sum` is that of whole numbers, `Sum::<f64>::new()` that of floats.
    /// A sum of whole numbers that does not fit into `i64` is an error. Sums of floats depend on the order in which
    /// partitions come together.
    Sum
}

of_numbers! {
    /// The least value of the first field; null if there is none. `Min` is that of whole numbers, and of dates and
    /// timestamps as numbers; `Min::<f64>::new()` that of floats, where a NaN is greater than all others.
    Min
}

of_numbers! {
    /// The greatest value of the first field; null if there is none. `Max` is that of whole numbers, and of dates and
    /// timestamps as numbers; `Max::<f64>::new()` that of floats, where a NaN is greater than all others.
    Max
}

impl<V: Number> CombinerAggregator for Sum<V> {
    type Value = V;

    fn accepts(&self, input: &Schema) -> Result<(), String> {
        check::<V>("Sum", input, |_| false)
    }

    fn init(&self, tuple: TridentTuple<'_>) -> Result<V, TaskError> {
        Ok(tuple.get::<Option<V>>(0)?.unwrap_or_default())
    }

    fn combine(&self, one: V, other: V) -> Result<V, TaskError> {
        one.plus(other)
    }

    fn zero(&self) -> Result<V, TaskError> {
        Ok(V::default())
    }
}

/// Dates and timestamps are read as whole numbers.
fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _))
}

macro_rules! extremes {
    ($name:ident, $is_better:expr) => {
        impl<V: Number> CombinerAggregator for $name<V>
        where
            Option<V>: TridentValue,
        {
            type Value = Option<V>;

            fn accepts(&self, input: &Schema) -> Result<(), String> {
                let whole = V::reads(&DataType::Int64);
                check::<V>(stringify!($name), input, if whole { is_time } else { |_| false })
            }

            fn init(&self, tuple: TridentTuple<'_>) -> Result<Option<V>, TaskError> {
                tuple.get(0)
            }

            fn combine(&self, one: Option<V>, other: Option<V>) -> Result<Option<V>, TaskError> {
                let is_better: fn(&V, &V) -> bool = $is_better;
                Ok(match (one, other) {
                    (Some(one), Some(other)) => Some(if is_better(&other, &one) { other } else { one }),
                    (one, other) => one.or(other),
                })
            }

            fn zero(&self) -> Result<Option<V>, TaskError> {
                Ok(None)
            }
        }
    };
}

extremes! { Min, |one, other| one.is_before(other) }
extremes! { Max, |one, other| other.is_before(one) }
