//! `<agg>_state`, `<agg>_merge_state`, `<agg>_merge`: three wrappers that make any aggregate mergeable.
//!
//! Each aggregate call of a view is a [`Call`]: the function with the types of its arguments and the literals
//! among them (`approx_percentile_cont(x, 0.9)` cannot be merged without its 0.9). From it come three aggregate
//! functions of their own:
//!
//! - [`Call::state`] runs the inner accumulator over arguments and gives its state, as a struct;
//! - [`Call::merge_state`] takes the columns of states and gives the merged state, as a struct;
//! - [`Call::merge`] takes the columns of states and gives the final value.
//!
//! They are whole aggregates to DataFusion, so the last word on a group always has a final aggregation: a partial
//! one may emit a key twice, the struct that leaves here never comes twice for a key.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;

/// An argument of an aggregate call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Argument {
    /// A value per row, of this type.
    Value(FieldRef),
    /// The same for every row, and known.
    Literal(ScalarValue),
}

impl Argument {
    /// The type of its values.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Value(field) => field.data_type().clone(),
            Self::Literal(value) => value.data_type(),
        }
    }

    fn field(&self, position: usize) -> FieldRef {
        match self {
            Self::Value(field) => {
                Arc::new(Field::new(format!("x{position}"), field.data_type().clone(), field.is_nullable()))
            }
            Self::Literal(value) => {
                Arc::new(Field::new(format!("x{position}"), value.data_type(), value.is_null()))
            }
        }
    }
}

/// One aggregate call of a view: the function, its arguments' types, its literals, and the layout of its state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    function: Arc<AggregateUDF>,
    arguments: Vec<Argument>,
    states: Fields,
    returns: FieldRef,
}

impl Call {
    /// The call of `function` with these arguments. Fails when the function has no accumulator for them.
    pub fn new(function: Arc<AggregateUDF>, arguments: Vec<Argument>) -> Result<Self> {
        let fields: Vec<FieldRef> = arguments.iter().enumerate().map(|(i, a)| a.field(i)).collect();
        let returns = function.return_field(&fields)?;
        let states = function
            .state_fields(StateFieldsArgs {
                name: "s",
                input_fields: &fields,
                return_field: Arc::clone(&returns),
                ordering_fields: &[],
                is_distinct: false,
            })?
            .into_iter()
            .enumerate()
            // Names hold SQL text, and nullability means nothing once states have been to a file.
            .map(|(i, field)| Arc::new(Field::new(format!("s{i}"), field.data_type().clone(), true)))
            .collect();
        let call = Self { function, arguments, states, returns };
        call.trial()?;
        Ok(call)
    }

    /// Whether accumulators can be made, found now and not when the first event arrives.
    fn trial(&self) -> Result<()> {
        if self.groups_supported() {
            drop(self.groups()?);
        } else {
            drop(self.plain()?);
        }
        Ok(())
    }

    /// The inner function.
    pub fn function(&self) -> &Arc<AggregateUDF> {
        &self.function
    }

    /// The arguments.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// The columns of the state, `s0..`.
    pub fn states(&self) -> &Fields {
        &self.states
    }

    /// The type of the final value.
    pub fn returns(&self) -> &FieldRef {
        &self.returns
    }

    /// Arguments to states.
    pub fn state(self: &Arc<Self>, arguments: Vec<Expr>) -> Expr {
        AggregateUDF::from(Combinator::new(Arc::clone(self), Kind::State)).call(arguments)
    }

    /// States to a state.
    pub fn merge_state(self: &Arc<Self>, states: Vec<Expr>) -> Expr {
        AggregateUDF::from(Combinator::new(Arc::clone(self), Kind::MergeState)).call(states)
    }

    /// States to the final value.
    pub fn merge(self: &Arc<Self>, states: Vec<Expr>) -> Expr {
        AggregateUDF::from(Combinator::new(Arc::clone(self), Kind::Merge)).call(states)
    }

    /// The state over no rows at all, one scalar per state column.
    pub fn neutral(&self) -> Result<Vec<ScalarValue>> {
        if self.groups_supported() {
            let mut accumulator = self.groups()?;
            // One row that does not count. No row at all would not do: accumulators take a batch without NULLs and
            // without a filter as the word that every group has had a value, and a sum of nothing would be 0.
            let mut values = Vec::with_capacity(self.arguments.len());
            for argument in &self.arguments {
                values.push(ScalarValue::try_from(&argument.data_type())?.to_array()?);
            }
            let rejected = BooleanArray::from(vec![false]);
            accumulator.update_batch(&values, &[0], Some(&rejected), 1)?;
            let states = accumulator.state(EmitTo::All)?;
            states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
        } else {
            self.plain()?.state()
        }
    }

    fn with_args<T>(&self, run: impl FnOnce(AccumulatorArgs<'_>) -> T) -> T {
        let fields: Vec<FieldRef> = self.arguments.iter().enumerate().map(|(i, a)| a.field(i)).collect();
        let schema = Schema::new(fields.clone());
        let exprs: Vec<Arc<dyn PhysicalExpr>> = self
            .arguments
            .iter()
            .enumerate()
            .map(|(i, argument)| match argument {
                Argument::Value(_) => Arc::new(Column::new(&format!("x{i}"), i)) as Arc<dyn PhysicalExpr>,
                Argument::Literal(value) => Arc::new(Literal::new(value.clone())),
            })
            .collect();
        run(AccumulatorArgs {
            return_field: Arc::clone(&self.returns),
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "s",
            is_distinct: false,
            exprs: &exprs,
            expr_fields: &fields,
        })
    }

    fn groups_supported(&self) -> bool {
        self.with_args(|args| self.function.groups_accumulator_supported(args))
    }

    fn groups(&self) -> Result<Box<dyn GroupsAccumulator>> {
        self.with_args(|args| self.function.create_groups_accumulator(args))
    }

    /// An accumulator for one group.
    pub(crate) fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.plain()
    }

    fn plain(&self) -> Result<Box<dyn Accumulator>> {
        self.with_args(|args| self.function.accumulator(args))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    State,
    MergeState,
    Merge,
}

impl Kind {
    fn takes_states(self) -> bool {
        matches!(self, Self::MergeState | Self::Merge)
    }

    fn gives_states(self) -> bool {
        matches!(self, Self::State | Self::MergeState)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Combinator {
    name: String,
    kind: Kind,
    call: Arc<Call>,
    signature: Signature,
}

impl Combinator {
    fn new(call: Arc<Call>, kind: Kind) -> Self {
        let suffix = match kind {
            Kind::State => "state",
            Kind::MergeState => "merge_state",
            Kind::Merge => "merge",
        };
        let arguments = if kind.takes_states() { call.states.len() } else { call.arguments.len() };
        let signature = Signature::any(arguments, Volatility::Immutable);
        Self { name: format!("{}_{suffix}", call.function.name()), kind, call, signature }
    }
}

impl AggregateUDFImpl for Combinator {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let expected: Vec<&DataType> = if self.kind.takes_states() {
            self.call.states.iter().map(|field| field.data_type()).collect()
        } else {
            Vec::new()
        };
        if self.kind.takes_states() && expected != arguments.iter().collect::<Vec<_>>() {
            return Err(DataFusionError::Plan(format!(
                "{} takes states of {expected:?}, not of {arguments:?}",
                self.name
            )));
        }
        Ok(if self.kind.gives_states() {
            DataType::Struct(self.call.states.clone())
        } else {
            self.call.returns.data_type().clone()
        })
    }

    fn is_nullable(&self) -> bool {
        !self.kind.gives_states() && self.call.returns.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(self
            .call
            .states
            .iter()
            .map(|field| {
                Arc::new(field.as_ref().clone().with_name(format!("{}[{}]", args.name, field.name())))
            })
            .collect())
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Plain { inner: self.call.plain()?, kind: self.kind, states: self.call.states.clone() }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        self.call.groups_supported()
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { inner: self.call.groups()?, kind: self.kind, states: self.call.states.clone() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        None
    }
}

struct Plain {
    inner: Box<dyn Accumulator>,
    kind: Kind,
    states: Fields,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.inner)
    }
}

impl Accumulator for Plain {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.kind.takes_states() {
            self.inner.merge_batch(values)
        } else {
            self.inner.update_batch(values)
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if !self.kind.gives_states() {
            return self.inner.evaluate();
        }
        let columns =
            self.inner.state()?.iter().map(ScalarValue::to_array).collect::<Result<Vec<ArrayRef>>>()?;
        Ok(ScalarValue::Struct(Arc::new(pack(&self.states, columns)?)))
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    kind: Kind,
    states: Fields,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        if !self.kind.takes_states() {
            return self.inner.update_batch(values, groups, filter, total);
        }
        if filter.is_some() {
            return Err(DataFusionError::Internal("states are merged without a filter".to_owned()));
        }
        self.inner.merge_batch(values, groups, total)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        if !self.kind.gives_states() {
            return self.inner.evaluate(emit);
        }
        let columns = self.inner.state(emit)?;
        Ok(Arc::new(pack(&self.states, columns)?))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        if self.kind.takes_states() {
            return Ok(values.to_vec());
        }
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// The states as one struct. Sparse encodings and list elements' names are as the function declared them.
fn pack(fields: &Fields, columns: Vec<ArrayRef>) -> Result<StructArray> {
    let length = columns.first().map_or(0, |column| column.len());
    let columns = fields
        .iter()
        .zip(columns)
        .map(|(field, column)| {
            if column.data_type() == field.data_type() {
                Ok(column)
            } else {
                datafusion::arrow::compute::cast(&column, field.data_type()).map_err(DataFusionError::from)
            }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(StructArray::try_new_with_length(fields.clone(), columns, None, length)?)
}
