//! `sum` and `avg` of integers that are exact whatever the order and the size.
//!
//! DataFusion's `sum(BIGINT)` wraps silently, and its `avg` of integers adds doubles, so that answers depend on
//! the order of addition beyond 2^53. Here, as in PostgreSQL, `sum(SMALLINT | INT)` is a BIGINT (2^32 rows of
//! the greatest INT fit) and `sum(BIGINT)` a NUMERIC(38, 0); both averages keep a sum of 128 bits and divide
//! once, at the end, to a DOUBLE. Decimals and floats go to DataFusion's own accumulators.

use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array,
};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

/// The type of a sum of BIGINT: no number of rows can leave it.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// `sum`, exact over integers.
pub(crate) fn sum() -> AggregateUDF {
    AggregateUDF::from(Exact::new(sum_udaf(), Measure::Sum, &[]))
}

/// `avg`, exact over integers.
pub(crate) fn avg() -> AggregateUDF {
    AggregateUDF::from(Exact::new(avg_udaf(), Measure::Average, &["mean"]))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    Sum,
    Average,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    inner: Arc<AggregateUDF>,
    measure: Measure,
    aliases: Vec<String>,
    signature: Signature,
}

impl Exact {
    fn new(inner: Arc<AggregateUDF>, measure: Measure, aliases: &[&str]) -> Self {
        Self {
            inner,
            measure,
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn integers(&self, fields: &[FieldRef]) -> Option<Box<dyn GroupsAccumulator>> {
        match fields.first().map(|field| field.data_type()) {
            Some(DataType::Int32) => Some(Box::new(Integers::<Int32Type>::new(self.measure))),
            Some(DataType::Int64) => Some(Box::new(Integers::<Int64Type>::new(self.measure))),
            _ => None,
        }
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [argument] = arguments else {
            return Err(DataFusionError::Plan(format!("{} takes one argument", self.name())));
        };
        let coerced = match crate::canonical::canonical_type(argument) {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
                DataType::Int32
            }
            DataType::Int64 | DataType::UInt32 => DataType::Int64,
            DataType::UInt64 => DataType::Decimal128(20, 0),
            DataType::Float32 | DataType::Float64 => DataType::Float64,
            decimal @ (DataType::Decimal128(_, _) | DataType::Decimal256(_, _)) => decimal,
            other => {
                return Err(DataFusionError::Plan(format!(
                    "No function matches {}({other}): it takes numbers",
                    self.name()
                )));
            }
        };
        Ok(vec![coerced])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.measure, arguments) {
            (Measure::Sum, [DataType::Int32]) => Ok(DataType::Int64),
            (Measure::Sum, [DataType::Int64]) => Ok(WIDE),
            (Measure::Average, [DataType::Int32 | DataType::Int64]) => Ok(DataType::Float64),
            _ => self.inner.return_type(arguments),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if self.integers(args.input_fields).is_none() {
            return self.inner.state_fields(args);
        }
        let field =
            |name: &str, data_type| Arc::new(Field::new(format!("{}[{name}]", args.name), data_type, true));
        Ok(match self.measure {
            Measure::Sum => vec![field("sum", args.return_field.data_type().clone())],
            Measure::Average => vec![field("count", DataType::Int64), field("sum", WIDE)],
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match self.integers(args.expr_fields) {
            Some(groups) => Ok(Box::new(OneGroup::new(groups))),
            None => self.inner.accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.integers(args.expr_fields).is_some() || self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match self.integers(args.expr_fields) {
            Some(groups) => Ok(groups),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Counts and sums of integers, per group. A sum of 128 bits cannot overflow: it takes 2^64 rows of the greatest
/// BIGINT to leave it.
struct Integers<T: ArrowPrimitiveType> {
    measure: Measure,
    counts: Vec<i64>,
    sums: Vec<i128>,
    argument: std::marker::PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Integers<T> {
    fn new(measure: Measure) -> Self {
        Self { measure, counts: Vec::new(), sums: Vec::new(), argument: std::marker::PhantomData }
    }

    fn narrow(&self) -> bool {
        T::DATA_TYPE == DataType::Int32
    }

    fn resize(&mut self, total: usize) {
        self.counts.resize(total, 0);
        self.sums.resize(total, 0);
    }

    fn add(&mut self, group: usize, count: i64, sum: i128) {
        if let (Some(counted), Some(summed)) = (self.counts.get_mut(group), self.sums.get_mut(group)) {
            *counted += count;
            *summed += sum;
        }
    }

    fn take(&mut self, emit: EmitTo) -> (Vec<i64>, Vec<i128>) {
        (emit.take_needed(&mut self.counts), emit.take_needed(&mut self.sums))
    }

    fn sums(&self, counts: &[i64], sums: &[i128]) -> Result<ArrayRef> {
        let present = counts.iter().zip(sums).map(|(count, sum)| (*count > 0).then_some(*sum));
        if !self.narrow() {
            return Ok(Arc::new(Decimal128Array::from_iter(present).with_precision_and_scale(38, 0)?));
        }
        let narrow = present
            .map(|sum| sum.map(i64::try_from).transpose())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| DataFusionError::Execution("sum of INT is out of range of BIGINT".to_owned()))?;
        Ok(Arc::new(Int64Array::from(narrow)))
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for Integers<T>
where
    T::Native: Into<i128>,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.resize(total);
        let [values, ..] = values else { return Ok(()) };
        let values = values.as_primitive::<T>();
        if values.null_count() == 0 && filter.is_none() {
            for (group, value) in groups.iter().zip(values.values()) {
                self.add(*group, 1, (*value).into());
            }
            return Ok(());
        }
        for (row, (group, value)) in groups.iter().zip(values.iter()).enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let (true, Some(value)) = (passes, value) {
                self.add(*group, 1, value.into());
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.resize(total);
        match (self.measure, states) {
            (Measure::Sum, [sums]) if self.narrow() => {
                for (group, sum) in groups.iter().zip(sums.as_primitive::<Int64Type>()) {
                    if let Some(sum) = sum {
                        self.add(*group, 1, sum.into());
                    }
                }
            }
            (Measure::Sum, [sums]) => {
                for (group, sum) in groups.iter().zip(sums.as_primitive::<Decimal128Type>()) {
                    if let Some(sum) = sum {
                        self.add(*group, 1, sum);
                    }
                }
            }
            (Measure::Average, [counts, sums]) => {
                let states =
                    counts.as_primitive::<Int64Type>().iter().zip(sums.as_primitive::<Decimal128Type>());
                for (group, state) in groups.iter().zip(states) {
                    if let (Some(count), Some(sum)) = state {
                        self.add(*group, count, sum);
                    }
                }
            }
            _ => {
                let message =
                    format!("{:?} of integers has no state of {} columns", self.measure, states.len());
                return Err(DataFusionError::Internal(message));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (counts, sums) = self.take(emit);
        if self.measure == Measure::Sum {
            return self.sums(&counts, &sums);
        }
        let averages =
            counts.iter().zip(&sums).map(|(count, sum)| (*count > 0).then(|| *sum as f64 / *count as f64));
        Ok(Arc::new(Float64Array::from_iter(averages)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (counts, sums) = self.take(emit);
        if self.measure == Measure::Sum {
            return Ok(vec![self.sums(&counts, &sums)?]);
        }
        let sums = Decimal128Array::from(sums).with_precision_and_scale(38, 0)?;
        Ok(vec![Arc::new(Int64Array::from(counts)), Arc::new(sums)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |values| values.len());
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::new(self.measure);
        each.update_batch(values, &groups, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.counts.capacity() * size_of::<i64>() + self.sums.capacity() * size_of::<i128>()
    }
}

/// An accumulator of one group. The lock is never contended: it only makes the inner accumulator shareable, which
/// the trait demands and nothing uses.
pub(crate) struct OneGroup(Mutex<Box<dyn GroupsAccumulator>>);

impl OneGroup {
    pub(crate) fn new(groups: Box<dyn GroupsAccumulator>) -> Self {
        Self(Mutex::new(groups))
    }

    fn inner(&mut self) -> &mut Box<dyn GroupsAccumulator> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OneGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneGroup")
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        self.inner().update_batch(values, &vec![0; rows], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |states| states.len());
        self.inner().merge_batch(states, &vec![0; rows], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A group exists once something has been offered to it.
        self.inner().merge_batch_of_none()?;
        let value = self.inner().evaluate(EmitTo::All)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner().merge_batch_of_none()?;
        let states = self.inner().state(EmitTo::All)?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.lock().unwrap_or_else(PoisonError::into_inner).size()
    }
}

trait Offer {
    fn merge_batch_of_none(&mut self) -> Result<()>;
}

impl Offer for Box<dyn GroupsAccumulator> {
    fn merge_batch_of_none(&mut self) -> Result<()> {
        self.update_batch(&[], &[], None, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(function: &AggregateUDF, values: ArrayRef) -> Result<ScalarValue> {
        let field: FieldRef = Arc::new(Field::new("x", values.data_type().clone(), true));
        let call = crate::combinators::Call::new(
            Arc::new(function.clone()),
            vec![crate::combinators::Argument::Value(Arc::clone(&field))],
        )?;
        let schema = datafusion::arrow::datatypes::Schema::new(vec![field]);
        let fields = schema.fields().to_vec();
        let exprs: Vec<Arc<dyn datafusion::physical_plan::PhysicalExpr>> =
            vec![Arc::new(datafusion::physical_expr::expressions::Column::new("x", 0))];
        let mut accumulator = function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(call.returns()),
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "s",
            is_distinct: false,
            exprs: &exprs,
            expr_fields: &fields,
        })?;
        accumulator.update_batch(&[values])?;
        accumulator.evaluate()
    }

    #[test]
    fn a_sum_of_bigint_does_not_wrap() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, i64::MAX, 2]));
        let expected = ScalarValue::Decimal128(Some(i128::from(i64::MAX) * 2 + 2), 38, 0);
        assert_eq!(evaluate(&sum(), values).unwrap(), expected);
    }

    #[test]
    fn an_average_of_bigint_is_exact_beyond_a_doubles_integers() {
        let big = 1i64 << 60;
        let values: ArrayRef = Arc::new(Int64Array::from(vec![big + 1, -big, big, -big, 0]));
        assert_eq!(evaluate(&avg(), values).unwrap(), ScalarValue::Float64(Some(0.2)));
    }

    #[test]
    fn nothing_sums_to_null() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
        assert_eq!(evaluate(&sum(), values.clone()).unwrap(), ScalarValue::Decimal128(None, 38, 0));
        assert_eq!(evaluate(&avg(), values).unwrap(), ScalarValue::Float64(None));
    }
}
