//! Aggregations of the tuples of a batch: per partition, or per group of a partition.

mod builtin;
pub(crate) mod chain;
mod rows;

use std::{any::Any, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use stratus_topology::TaskError;

pub use builtin::{Count, Max, Min, Number, Sum};
pub use chain::ChainedAggregator;
pub use rows::RowsAggregator;

use crate::{
    batch::TransactionAttempt,
    collector::TridentCollector,
    tuple::{TridentTuple, TridentValue},
};

/// The most general aggregation: it may emit any number of tuples at any time of a batch.
pub trait Aggregator: Clone + Send + Sync + 'static {
    /// What is kept of a batch, or of a group of it.
    type State: Send + 'static;

    /// Whether tuples of these fields can be aggregated; if not, why. Asked when the topology is built, so that a field
    /// of another type is no error of every batch. By default everything can.
    ///
    /// # Errors
    ///
    /// What is wrong, with the field's name and type: [`build`](crate::TridentTopology::build) answers with it.
    fn accepts(&self, input: &Schema) -> Result<(), String> {
        let _ = input;
        Ok(())
    }

    /// The aggregation of a batch, or of a group of it, begins.
    fn init(&mut self, batch: TransactionAttempt) -> Self::State;

    /// Takes a tuple.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn aggregate(
        &mut self,
        state: &mut Self::State,
        tuple: TridentTuple<'_>,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError>;

    /// All tuples have come.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn complete(&mut self, state: Self::State, out: &mut TridentCollector) -> Result<(), TaskError>;
}

/// An aggregation to one value, tuple by tuple.
pub trait ReducerAggregator: Clone + Send + Sync + 'static {
    /// The value.
    type Value: TridentValue;

    /// Whether tuples of these fields can be aggregated; if not, why. Asked when the topology is built, so that a field
    /// of another type is no error of every batch. By default everything can.
    ///
    /// # Errors
    ///
    /// What is wrong, with the field's name and type: [`build`](crate::TridentTopology::build) answers with it.
    fn accepts(&self, input: &Schema) -> Result<(), String> {
        let _ = input;
        Ok(())
    }

    /// The value of no tuples.
    fn init(&self) -> Self::Value;

    /// The value with one tuple more.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn reduce(&self, current: Self::Value, tuple: TridentTuple<'_>) -> Result<Self::Value, TaskError>;
}

/// An aggregation whose values can be combined, in any order and grouping: partial values are made before tuples are
/// repartitioned, and only those travel.
pub trait CombinerAggregator: Clone + Send + Sync + 'static {
    /// The value.
    type Value: TridentValue;

    /// Whether tuples of these fields can be aggregated; if not, why. Asked when the topology is built, so that a field
    /// of another type is no error of every batch. By default everything can.
    ///
    /// # Errors
    ///
    /// What is wrong, with the field's name and type: [`build`](crate::TridentTopology::build) answers with it.
    fn accepts(&self, input: &Schema) -> Result<(), String> {
        let _ = input;
        Ok(())
    }

    /// The value of one tuple.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn init(&self, tuple: TridentTuple<'_>) -> Result<Self::Value, TaskError>;

    /// The value of the tuples of both.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn combine(&self, one: Self::Value, other: Self::Value) -> Result<Self::Value, TaskError>;

    /// The value of no tuples.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    fn zero(&self) -> Result<Self::Value, TaskError>;
}

/// A reducer as an aggregator.
#[derive(Clone, Debug)]
pub struct Reduced<R>(pub R);

impl<R: ReducerAggregator> Aggregator for Reduced<R> {
    type State = Option<R::Value>;

    fn accepts(&self, input: &Schema) -> Result<(), String> {
        self.0.accepts(input)
    }

    fn init(&mut self, _batch: TransactionAttempt) -> Self::State {
        Some(self.0.init())
    }

    fn aggregate(
        &mut self,
        state: &mut Self::State,
        tuple: TridentTuple<'_>,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let current = state.take().unwrap_or_else(|| self.0.init());
        *state = Some(self.0.reduce(current, tuple)?);
        Ok(())
    }

    fn complete(&mut self, state: Self::State, out: &mut TridentCollector) -> Result<(), TaskError> {
        out.emit((state.unwrap_or_else(|| self.0.init()),))
    }
}

/// A combiner as an aggregator of the tuples themselves.
#[derive(Clone, Debug)]
pub struct Combined<C>(pub C);

impl<C: CombinerAggregator> Aggregator for Combined<C> {
    type State = Option<C::Value>;

    fn accepts(&self, input: &Schema) -> Result<(), String> {
        self.0.accepts(input)
    }

    fn init(&mut self, _batch: TransactionAttempt) -> Self::State {
        None
    }

    fn aggregate(
        &mut self,
        state: &mut Self::State,
        tuple: TridentTuple<'_>,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let value = self.0.init(tuple)?;
        *state = Some(match state.take() {
            Some(before) => self.0.combine(before, value)?,
            None => value,
        });
        Ok(())
    }

    fn complete(&mut self, state: Self::State, out: &mut TridentCollector) -> Result<(), TaskError> {
        let value = match state {
            Some(value) => value,
            None => self.0.zero()?,
        };
        out.emit((value,))
    }
}

/// A combiner as an aggregator of partial values: its input's only field is one.
#[derive(Clone, Debug)]
pub(crate) struct Recombined<C>(pub(crate) C);

impl<C: CombinerAggregator> Aggregator for Recombined<C> {
    type State = Option<C::Value>;

    fn init(&mut self, _batch: TransactionAttempt) -> Self::State {
        None
    }

    fn aggregate(
        &mut self,
        state: &mut Self::State,
        tuple: TridentTuple<'_>,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let value: C::Value = tuple.get(0)?;
        *state = Some(match state.take() {
            Some(before) => self.0.combine(before, value)?,
            None => value,
        });
        Ok(())
    }

    fn complete(&mut self, state: Self::State, out: &mut TridentCollector) -> Result<(), TaskError> {
        let value = match state {
            Some(value) => value,
            None => self.0.zero()?,
        };
        out.emit((value,))
    }
}

/// An aggregator whose state's type nobody needs to know.
pub(crate) trait AnyAggregator: Send {
    fn accepts(&self, input: &Schema) -> Result<(), String>;
    fn init(&mut self, batch: TransactionAttempt) -> Box<dyn Any + Send>;
    fn aggregate(
        &mut self,
        state: &mut Box<dyn Any + Send>,
        tuple: TridentTuple<'_>,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError>;
    fn complete(&mut self, state: Box<dyn Any + Send>, out: &mut TridentCollector) -> Result<(), TaskError>;
}

impl<A: Aggregator> AnyAggregator for A {
    fn accepts(&self, input: &Schema) -> Result<(), String> {
        Aggregator::accepts(self, input)
    }

    fn init(&mut self, batch: TransactionAttempt) -> Box<dyn Any + Send> {
        Box::new(Aggregator::init(self, batch))
    }

    fn aggregate(
        &mut self,
        state: &mut Box<dyn Any + Send>,
        tuple: TridentTuple<'_>,
        out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        match state.downcast_mut() {
            Some(state) => Aggregator::aggregate(self, state, tuple, out),
            None => Err("the group's state is another aggregator's".into()),
        }
    }

    fn complete(&mut self, state: Box<dyn Any + Send>, out: &mut TridentCollector) -> Result<(), TaskError> {
        match state.downcast() {
            Ok(state) => Aggregator::complete(self, *state, out),
            Err(_) => Err("the group's state is another aggregator's".into()),
        }
    }
}

/// A schema of one field that may be null.
pub(crate) fn single(name: &str, kind: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, kind, true)]))
}
