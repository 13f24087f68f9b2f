//! Any aggregate function as one whose states are text: for whoever keeps states himself and combines them one by one.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Accumulator;
use stratus_seam::encoding::{decode_rows, encode_rows, supports};

use crate::combinators::{Argument, Call};
use crate::error::{SqlError, sqlstate_of};
use crate::session;

/// An aggregate function over arguments of known types. Its states are the accumulator's own, written as the views'
/// states are (see [`stratus_seam::encoding`]).
#[derive(Debug, Clone)]
pub struct TextStates {
    call: Call,
    states: Vec<FieldRef>,
    /// The state of no rows.
    neutral: String,
}

impl TextStates {
    /// The function of this name, as SQL knows it, over values of exactly these types: `avg` takes `Float64` and
    /// decimals, not integers, which SQL casts for it.
    ///
    /// # Errors
    /// If there is no such function, it does not take these types, or its states cannot be written.
    pub fn of(function: &str, arguments: &[DataType]) -> std::result::Result<Self, SqlError> {
        let context = session::session_context();
        let known = context.state().aggregate_functions().get(&function.to_lowercase()).cloned();
        let Some(known) = known else {
            let message = format!("there is no aggregate function {function}");
            return Err(SqlError::new("42883", message));
        };
        let typed = arguments.iter().map(|kind| Arc::new(Field::new("x", kind.clone(), true)));
        let values = typed.map(|field| Argument::Value(field as FieldRef)).collect();
        let call = Call::new(known, values).map_err(|error| sqlstate_of(&error))?;
        let states: Vec<FieldRef> = call.states().iter().cloned().collect();
        match states.iter().find(|state| !supports(state.data_type())) {
            Some(state) => Err(SqlError::new(
                "0A000",
                format!(
                    "the states of {function} have values of type {}, which cannot be kept",
                    state.data_type()
                ),
            )),
            None => {
                let neutral = call.neutral().and_then(|state| text(&state));
                let neutral = neutral.map_err(|error| sqlstate_of(&error))?;
                Ok(Self { call, states, neutral })
            }
        }
    }

    /// The field of the function's value.
    pub fn returns(&self) -> &FieldRef {
        self.call.returns()
    }

    /// The state of no rows.
    pub fn neutral(&self) -> &str {
        &self.neutral
    }

    /// The state of some rows: a column for each argument.
    ///
    /// # Errors
    /// If the function fails on a value.
    pub fn state(&self, rows: &[ArrayRef]) -> std::result::Result<String, SqlError> {
        let state = || {
            let mut accumulator = self.call.accumulator()?;
            accumulator.update_batch(rows)?;
            text(&accumulator.state()?)
        };
        state().map_err(|error| sqlstate_of(&error))
    }

    /// The state of the rows of all of these.
    ///
    /// # Errors
    /// If one of them is not a state of this function.
    pub fn merge(&self, states: &[&str]) -> std::result::Result<String, SqlError> {
        let merged = || text(&self.merged(states)?.state()?);
        merged().map_err(|error| sqlstate_of(&error))
    }

    /// The value of a state.
    ///
    /// # Errors
    /// If it is not a state of this function.
    pub fn value(&self, state: &str) -> std::result::Result<ScalarValue, SqlError> {
        let value = || self.merged(&[state])?.evaluate();
        value().map_err(|error| sqlstate_of(&error))
    }

    /// The values of some states, as a column.
    ///
    /// # Errors
    /// If one of them is not a state of this function.
    pub fn values<'a>(
        &self,
        states: impl IntoIterator<Item = &'a str>,
    ) -> std::result::Result<ArrayRef, SqlError> {
        let values =
            states.into_iter().map(|state| self.value(state)).collect::<std::result::Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Ok(new_empty_array(self.returns().data_type()));
        }
        ScalarValue::iter_to_array(values).map_err(|error| sqlstate_of(&error))
    }

    fn merged(&self, states: &[&str]) -> Result<Box<dyn Accumulator>> {
        // Some accumulators do not take the state of no rows, which changes nothing.
        let states = states.iter().copied().filter(|state| *state != self.neutral);
        let columns =
            decode_rows(states, &self.states).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let mut accumulator = self.call.accumulator()?;
        if columns.first().is_some_and(|column| !column.is_empty()) {
            accumulator.merge_batch(&columns)?;
        }
        Ok(accumulator)
    }
}

fn text(state: &[ScalarValue]) -> Result<String> {
    let columns = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
    let rows = encode_rows(&columns, 1).map_err(|error| DataFusionError::External(Box::new(error)))?;
    rows.into_iter().next().ok_or_else(|| DataFusionError::Internal("a state without columns".to_owned()))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;

    use super::*;

    fn column(values: impl IntoIterator<Item = i64>, kind: &DataType) -> Vec<ArrayRef> {
        let whole: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        vec![datafusion::arrow::compute::cast(&whole, kind).unwrap()]
    }

    #[test]
    fn states_of_parts_merge_to_the_state_of_the_whole() {
        let (whole, float) = (DataType::Int64, DataType::Float64);
        for (name, kind) in [
            ("count", &whole),
            ("sum", &whole),
            ("min", &whole),
            ("bit_xor", &whole),
            ("approx_distinct", &whole),
            ("avg", &float),
            ("max", &float),
            ("stddev", &float),
        ] {
            let states = TextStates::of(name, std::slice::from_ref(kind)).unwrap();
            let part = |part| states.state(&column(part, kind)).unwrap();
            let parts: Vec<String> = [0..10, 10..11, 11..40].into_iter().map(part).collect();
            let neutral = states.neutral();
            let mut all: Vec<&str> = parts.iter().map(String::as_str).collect();
            all.push(neutral);
            let merged = states.merge(&all).unwrap();
            let whole = part(0..40);
            assert_eq!(states.value(&merged).unwrap(), states.value(&whole).unwrap(), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_or_no_state_is_refused() {
        let error = TextStates::of("nothing", &[DataType::Int64]).unwrap_err();
        assert!(error.message.contains("there is no aggregate function nothing"), "{error:?}");
        let sum = TextStates::of("SUM", &[DataType::Int64]).unwrap();
        assert!(sum.value("[\"x\"]").is_err() && sum.merge(&["nonsense"]).is_err());
        assert_eq!(sum.value(sum.neutral()).unwrap(), ScalarValue::Int64(None));
    }
}
