//! One Arrow type per value, on every path that it takes.
//!
//! Sketches hash what they are given, and hash `Utf8` and `Utf8View` differently: the same 500 users, counted once
//! as the one and once as the other, merge to 1001. So whatever enters a key or an aggregate is brought to one of
//! few types first: no view types, no dictionaries, no large offsets, times in microseconds.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};

/// The type that values of `data_type` are brought to.
pub fn canonical_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, value) => canonical_type(value),
        DataType::RunEndEncoded(_, values) => canonical_type(values.data_type()),
        DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::List(item) => DataType::List(canonical_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(canonical_field).collect()),
        other => other.clone(),
    }
}

fn canonical_field(field: &Arc<Field>) -> Arc<Field> {
    Arc::new(field.as_ref().clone().with_data_type(canonical_type(field.data_type())))
}

/// The type of a column as users see it: canonical, and without unsigned integers, which SQL does not know.
pub(crate) fn output_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        other => canonical_type(other),
    }
}

/// Whether one value of such a type can be compared and encoded as a group key or a minimum.
pub(crate) fn is_plain(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Decimal128(_, _)
    ) || data_type.is_integer()
        || matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// The batch with exactly the columns of `schema`, found by name and cast where only the encoding differs.
/// A column that is missing, or a value that does not fit, is an error.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Err(DataFusionError::Execution(format!(
                "column \"{}\" is missing, there are: {}",
                field.name(),
                names(batch.schema_ref())
            )));
        };
        if column.data_type() == field.data_type() {
            columns.push(Arc::clone(column));
        } else {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            columns.push(cast_with_options(column, field.data_type(), &strict)?);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// The plan with exactly the columns of `schema` (more columns may remain, unread), each of its type; `None` when
/// that is what it has already. Casts are only added where the encoding differs.
pub(crate) fn conform_plan(plan: LogicalPlan, schema: &Schema) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = Vec::with_capacity(schema.fields().len());
    let mut changed = false;
    for field in schema.fields() {
        let (qualifier, found) = plan.schema().qualified_field_with_unqualified_name(field.name())?;
        let column = Expr::Column(datafusion::common::Column::from((qualifier, found)));
        if found.data_type() == field.data_type() {
            exprs.push(column);
        } else if same_family(found.data_type(), field.data_type()) {
            changed = true;
            exprs.push(
                cast(column, field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name()),
            );
        } else {
            return Err(DataFusionError::Plan(format!(
                "column \"{}\" is {}, where {} was declared",
                field.name(),
                found.data_type(),
                field.data_type()
            )));
        }
    }
    if changed { LogicalPlanBuilder::from(plan).project(exprs)?.build() } else { Ok(plan) }
}

/// Whether two types hold the same values and differ in their encoding alone.
fn same_family(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Timestamp(_, left), DataType::Timestamp(_, right)) => left.is_some() == right.is_some(),
        (DataType::List(left), DataType::List(right)) => same_family(left.data_type(), right.data_type()),
        (DataType::Struct(left), DataType::Struct(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(l, r)| l.name() == r.name() && same_family(l.data_type(), r.data_type()))
        }
        (DataType::Int64, DataType::UInt64) => true,
        _ => {
            let (left, right) = (canonical_type(left), canonical_type(right));
            match (&left, &right) {
                (DataType::List(_) | DataType::Struct(_), DataType::List(_) | DataType::Struct(_))
                    if left != right =>
                {
                    same_family(&left, &right)
                }
                _ => left == right,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{StringArray, StringViewArray};

    #[test]
    fn a_batch_conforms_by_name_and_encoding() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
        let other = Arc::new(Schema::new(vec![
            Field::new("z", DataType::Utf8, true),
            Field::new("a", DataType::Utf8View, true),
        ]));
        let batch = RecordBatch::try_new(
            other,
            vec![Arc::new(StringArray::from(vec!["z"])), Arc::new(StringViewArray::from(vec!["a"]))],
        )
        .unwrap();
        let batch = conform(&batch, &schema).unwrap();
        assert_eq!(
            batch.column(0).as_ref(),
            &StringArray::from(vec!["a"]) as &dyn datafusion::arrow::array::Array
        );
        let missing = Arc::new(Schema::new(vec![Field::new("b", DataType::Utf8, true)]));
        assert!(conform(&batch, &missing).unwrap_err().to_string().contains("column \"b\" is missing"));
    }
}
