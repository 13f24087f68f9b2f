//! `min` and `max` with a total order over floats: NaN is the greatest (as in PostgreSQL), and -0.0 is 0.0.
//!
//! DataFusion compares floats with the processor's `<`, so that its answer over (1, NaN) differs from that over
//! (NaN, 1): no two layers could agree. Other types go to DataFusion's own accumulators.

use std::fmt::Debug;
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use crate::exact::OneGroup;

/// `min`, ordered totally.
pub(crate) fn min() -> AggregateUDF {
    AggregateUDF::from(Extreme::new(min_udaf(), false))
}

/// `max`, ordered totally.
pub(crate) fn max() -> AggregateUDF {
    AggregateUDF::from(Extreme::new(max_udaf(), true))
}

/// A float that is one of a kind: one zero, one NaN.
pub(crate) trait Normal: Copy + PartialOrd + Default {
    /// The value with the sign of zero and the payload of NaN taken away.
    fn normal(self) -> Self;
    /// Whether it is NaN.
    fn nan(self) -> bool;
}

macro_rules! normal {
    ($type:ty) => {
        impl Normal for $type {
            fn normal(self) -> Self {
                if self.is_nan() { Self::NAN } else { self + 0.0 }
            }
            fn nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
normal!(f32);
normal!(f64);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    inner: Arc<AggregateUDF>,
    greatest: bool,
    signature: Signature,
}

impl Extreme {
    fn new(inner: Arc<AggregateUDF>, greatest: bool) -> Self {
        Self { inner, greatest, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn floats(&self, args: &AccumulatorArgs<'_>) -> Option<Box<dyn GroupsAccumulator>> {
        match args.expr_fields.first().map(|field| field.data_type()) {
            Some(DataType::Float32) => Some(Box::new(Floats::<Float32Type>::new(self.greatest))),
            Some(DataType::Float64) => Some(Box::new(Floats::<Float64Type>::new(self.greatest))),
            _ => None,
        }
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Float16] => Ok(vec![DataType::Float32]),
            _ => self.inner.coerce_types(arguments),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn state_fields(
        &self,
        args: StateFieldsArgs<'_>,
    ) -> Result<Vec<Arc<datafusion::arrow::datatypes::Field>>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match self.floats(&args) {
            Some(groups) => Ok(Box::new(OneGroup::new(groups))),
            None => self.inner.accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.floats(&args).is_some() || self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match self.floats(&args) {
            Some(groups) => Ok(groups),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

struct Floats<T: ArrowPrimitiveType> {
    greatest: bool,
    values: Vec<Option<T::Native>>,
}

impl<T: ArrowPrimitiveType> Floats<T>
where
    T::Native: Normal,
{
    fn new(greatest: bool) -> Self {
        Self { greatest, values: Vec::new() }
    }

    fn take(&mut self, group: usize, value: T::Native) {
        let value = value.normal();
        let Some(slot) = self.values.get_mut(group) else { return };
        let wins = match *slot {
            None => true,
            Some(held) if self.greatest => !held.nan() && (value.nan() || value > held),
            Some(held) => !value.nan() && (held.nan() || value < held),
        };
        if wins {
            *slot = Some(value);
        }
    }

    fn emit(&mut self, emit: EmitTo) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter(emit.take_needed(&mut self.values)))
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for Floats<T>
where
    T::Native: Normal,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.values.resize(total, None);
        let [values, ..] = values else { return Ok(()) };
        let values = values.as_primitive::<T>();
        if values.null_count() == 0 && filter.is_none() {
            for (group, value) in groups.iter().zip(values.values()) {
                self.take(*group, *value);
            }
            return Ok(());
        }
        for (row, (group, value)) in groups.iter().zip(values.iter()).enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let (true, Some(value)) = (passes, value) {
                self.take(*group, value);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.update_batch(states, groups, None, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(self.emit(emit))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.emit(emit)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values, ..] = values else { return Ok(Vec::new()) };
        let states = values.as_primitive::<T>().iter().enumerate().map(|(row, value)| {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            value.filter(|_| passes).map(Normal::normal)
        });
        Ok(vec![Arc::new(PrimitiveArray::<T>::from_iter(states))])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<T::Native>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Float64Array;

    fn run(greatest: bool, values: &[f64]) -> f64 {
        let mut groups = Floats::<Float64Type>::new(greatest);
        let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        groups.update_batch(&[array], &vec![0; values.len()], None, 1).unwrap();
        groups.evaluate(EmitTo::All).unwrap().as_primitive::<Float64Type>().value(0)
    }

    #[test]
    fn nan_is_the_greatest_in_every_order() {
        for values in [[1.0, f64::NAN], [f64::NAN, 1.0]] {
            assert!(run(true, &values).is_nan());
            assert_eq!(run(false, &values), 1.0);
        }
        assert_eq!(run(true, &[f64::NAN, -f64::NAN]).to_bits(), f64::NAN.to_bits());
    }

    #[test]
    fn zero_has_one_sign() {
        for values in [[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0]] {
            assert_eq!(run(false, &values).to_bits(), 0.0f64.to_bits());
            assert_eq!(run(true, &values).to_bits(), 0.0f64.to_bits());
        }
    }
}
