//! Aggregation of a partition of a batch, as a whole or by groups.

use std::{any::Any, collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
    row::{OwnedRow, RowConverter, SortField},
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use super::{BatchState, Processor, own, owned};
use crate::{
    aggregator::{
        AnyAggregator,
        chain::{Link, combinations},
    },
    batch::TransactionAttempt,
    collector::TridentCollector,
    keys::canonical,
    topology::batch_task,
    tuple::tuples,
};

/// One aggregation with the columns that it reads.
struct Part {
    aggregator: Box<dyn AnyAggregator>,
    input: Vec<usize>,
    emitted: SchemaRef,
}

/// What a group has come to: of each aggregation its state and what it emitted.
type Group = Vec<(Box<dyn Any + Send>, TridentCollector)>;

/// The groups of a batch, in the order in which they were first seen.
struct Groups {
    attempt: TransactionAttempt,
    places: HashMap<OwnedRow, usize>,
    groups: Vec<(Option<OwnedRow>, Group)>,
}

/// `partition_aggregate`, per group if there are key fields.
pub(crate) struct AggregateProcessor {
    parts: Vec<Part>,
    key: Vec<usize>,
    keys: RowConverter,
    schema: SchemaRef,
    of_nothing: OfNothing,
    /// The task's place, and how many there are.
    place: (usize, usize),
}

/// Whether there is a result where there are no tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfNothing {
    /// No: groups without tuples do not exist.
    Never,
    /// Every partition has one.
    Always,
    /// The batch as a whole has one.
    Once,
}

impl AggregateProcessor {
    /// `input` is the schema of what comes, `schema` that of what goes: the key's fields, then those emitted.
    pub(crate) fn new(
        input: &SchemaRef,
        key: &[usize],
        links: &[Link],
        schema: SchemaRef,
        of_nothing: OfNothing,
    ) -> Result<Self, TaskError> {
        let parts = links.iter().map(|link| {
            let columns = link.input.iter().map(|field| input.index_of(field)).collect::<Result<_, _>>()?;
            Ok(Part { aggregator: link.make(), input: columns, emitted: Arc::clone(&link.emitted) })
        });
        let sorts =
            key.iter().map(|column| SortField::new(input.field(*column).data_type().clone())).collect();
        Ok(Self {
            parts: parts.collect::<Result<_, TaskError>>()?,
            key: key.to_vec(),
            keys: RowConverter::new(sorts)?,
            schema,
            of_nothing,
            place: (0, 1),
        })
    }

    fn group(&mut self, attempt: TransactionAttempt) -> Result<Group, TaskError> {
        let parts = self.parts.iter_mut().map(|part| {
            let collector = TridentCollector::new(Arc::clone(&part.emitted));
            Ok((part.aggregator.init(attempt), collector))
        });
        parts.collect()
    }

    /// The place of each row's group.
    fn places(&mut self, groups: &mut Groups, rows: &RecordBatch) -> Result<Vec<usize>, TaskError> {
        if self.key.is_empty() {
            if groups.groups.is_empty() {
                let group = self.group(groups.attempt)?;
                groups.groups.push((None, group));
            }
            return Ok(vec![0; rows.num_rows()]);
        }
        let columns: Vec<ArrayRef> = self.key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        let keys = self.keys.convert_columns(&canonical(&columns)?)?;
        let mut places = Vec::with_capacity(rows.num_rows());
        for key in &keys {
            let key = key.owned();
            let place = match groups.places.get(&key) {
                Some(place) => *place,
                None => {
                    let group = self.group(groups.attempt)?;
                    groups.groups.push((Some(key.clone()), group));
                    groups.places.insert(key, groups.groups.len() - 1);
                    groups.groups.len() - 1
                }
            };
            places.push(place);
        }
        Ok(places)
    }

    /// What all groups come to, in one piece, if there is one aggregation and none of the groups has emitted anything so
    /// far: a batch of rows for each of many groups costs more than the rest of the aggregation.
    fn complete_together(
        &mut self,
        groups: &mut Vec<(Option<OwnedRow>, Group)>,
    ) -> Result<Option<RecordBatch>, TaskError> {
        let [part] = self.parts.as_mut_slice() else { return Ok(None) };
        let silent = |group: &Group| group.iter().all(|(_, collector)| collector.len() == 0);
        if !groups.iter().all(|(_, group)| silent(group)) {
            return Ok(None);
        }
        let mut collector = TridentCollector::new(Arc::clone(&part.emitted));
        let mut keys = Vec::with_capacity(groups.len());
        for (key, group) in std::mem::take(groups) {
            let before = collector.len();
            for (state, _) in group {
                part.aggregator.complete(state, &mut collector)?;
            }
            keys.extend(key.into_iter().flat_map(|key| std::iter::repeat_n(key, collector.len() - before)));
        }
        let values = collector.finish()?;
        let mut columns = match keys.is_empty() {
            true if !self.key.is_empty() => {
                return Ok(Some(RecordBatch::new_empty(Arc::clone(&self.schema))));
            }
            true => Vec::new(),
            false => self.keys.convert_rows(keys.iter().map(OwnedRow::row))?,
        };
        columns.extend(values.columns().iter().cloned());
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    fn complete(&mut self, key: Option<&OwnedRow>, group: Group) -> Result<Option<RecordBatch>, TaskError> {
        let mut emitted = Vec::with_capacity(group.len());
        for (part, (state, mut collector)) in self.parts.iter_mut().zip(group) {
            part.aggregator.complete(state, &mut collector)?;
            emitted.push(collector.finish()?);
        }
        let values = combinations(&emitted)?;
        let rows = values.first().map_or(0, |column| column.len());
        if rows == 0 {
            return Ok(None);
        }
        let mut columns = match key {
            Some(key) => self.keys.convert_rows(std::iter::repeat_n(key.row(), rows))?,
            None => Vec::new(),
        };
        columns.extend(values);
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}

#[async_trait]
impl Processor for AggregateProcessor {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.place = (context.task_index(), context.task_count());
        Ok(())
    }

    fn start_batch(&mut self, attempt: TransactionAttempt) -> BatchState {
        Box::new(Groups { attempt, places: HashMap::new(), groups: Vec::new() })
    }

    fn execute(
        &mut self,
        state: &mut BatchState,
        _input: usize,
        rows: RecordBatch,
        _out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let groups: &mut Groups = own(state)?;
        let places = self.places(groups, &rows)?;
        for (index, part) in self.parts.iter_mut().enumerate() {
            let input = rows.project(&part.input)?;
            for (tuple, place) in tuples(&input).zip(&places) {
                let (state, collector) = &mut groups.groups[*place].1[index];
                part.aggregator.aggregate(state, tuple, collector)?;
            }
        }
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        _attempt: TransactionAttempt,
        state: BatchState,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), TaskError> {
        let mut groups: Groups = owned(state)?;
        let of_nothing = match self.of_nothing {
            OfNothing::Never => false,
            OfNothing::Always => true,
            OfNothing::Once => batch_task(groups.attempt, self.place.1) == self.place.0,
        };
        if groups.groups.is_empty() && of_nothing {
            let group = self.group(groups.attempt)?;
            groups.groups.push((None, group));
        }
        if let Some(rows) = self.complete_together(&mut groups.groups)? {
            out.extend(Some(rows).filter(|rows| rows.num_rows() > 0));
            return Ok(());
        }
        let mut finished = Vec::with_capacity(groups.groups.len());
        for (key, group) in groups.groups {
            finished.extend(self.complete(key.as_ref(), group)?);
        }
        if !finished.is_empty() {
            out.push(arrow::compute::concat_batches(&self.schema, &finished)?);
        }
        Ok(())
    }
}
