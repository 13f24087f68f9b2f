//! States in the order of their keys, so that a version's files can be pruned by the statistics of their parts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::StreamExt;

use crate::LakeError;
use crate::writer::with_schema;

/// The states with exactly the columns of `schema`, in the order of their key columns. They are held in memory until
/// the last of them has come, as the aggregation that they come from holds its groups. A key that is a list or a
/// struct has no statistics to prune by, and is left as it comes.
pub(crate) fn by_key(
    schema: &SchemaRef,
    states: SendableRecordBatchStream,
) -> Result<SendableRecordBatchStream> {
    let of = Arc::clone(schema);
    let typed = states.map(move |batch| {
        with_schema(&batch?, &of).map_err(|error| DataFusionError::External(Box::new(error)))
    });
    let typed: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), typed));
    let keys = schema.fields().iter().enumerate().filter(|(_, field)| {
        let number = field.name().strip_prefix('g').map(str::as_bytes).unwrap_or_default();
        let key = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        key && !matches!(field.data_type(), DataType::List(_) | DataType::Struct(_))
    });
    let order: Vec<PhysicalSortExpr> = keys
        .map(|(index, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
            PhysicalSortExpr::new_default(column)
        })
        .collect();
    let Some(order) = LexOrdering::new(order) else { return Ok(typed) };
    let once = Arc::new(Once { schema: Arc::clone(schema), states: Mutex::new(Some(typed)) });
    let source = StreamingTableExec::try_new(Arc::clone(schema), vec![once], None, vec![], false, None)?;
    SortExec::new(order, Arc::new(source)).execute(0, Arc::new(TaskContext::default()))
}

/// Why states did not come: what this crate found wrong with them, or else a failure of whatever computes them.
pub(crate) fn cause(error: DataFusionError, folder: &str) -> LakeError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<LakeError>() {
            Ok(ours) => *ours,
            Err(other) => LakeError::unavailable(format!("could not compute {folder}"))(other),
        },
        other => LakeError::unavailable(format!("could not compute {folder}"))(other),
    }
}

/// A stream as a table that can be read once.
struct Once {
    schema: SchemaRef,
    states: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner).take();
        states.unwrap_or_else(|| {
            let again = DataFusionError::Internal("states are sorted once".to_owned());
            let failed = futures::stream::iter([Err(again)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed))
        })
    }
}
