//! From an emission to the queues of those who listen.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array},
    datatypes::SchemaRef,
    error::ArrowError,
};
use thiserror::Error;

use crate::{
    acker::Ackers,
    anchors::{Anchors, Origin, lineage},
    clock::Clock,
    context::TaskError,
    declare::SYSTEM_STREAM,
    grouping::{Partitioner, Selection},
    lineage::{Label, TaskId},
    metrics::OutputStats,
    queue::{Fragment, QueueSender},
    row::RowError,
    size::{SHARE, batch_bytes, pieces, take_rows},
    topology::StreamRef,
};

/// Why something could not be emitted. Nothing of it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The component does not declare this stream.
    #[error("component `{component}` emits to stream `{stream}`, but declares only {declared}")]
    UnknownStream {
        /// The emitter.
        component: String,
        /// The unknown stream.
        stream: String,
        /// What it declares.
        declared: String,
    },
    /// The rows are not what was declared.
    #[error("rows for stream `{stream}` have {found}, but {expected} is declared")]
    Schema {
        /// The stream.
        stream: StreamRef,
        /// The declared fields.
        expected: String,
        /// The rows' fields.
        found: String,
    },
    /// A tuple cannot be a row of the stream.
    #[error("a tuple for stream `{stream}`: {source}")]
    Row {
        /// The stream.
        stream: StreamRef,
        /// What is wrong.
        source: RowError,
    },
    /// There are fewer or more anchors or ids than rows.
    #[error("{rows} rows for stream `{stream}` came with {given} {what}: there must be one for each")]
    Count {
        /// The stream.
        stream: StreamRef,
        /// The rows.
        rows: usize,
        /// The anchors or ids.
        given: usize,
        /// Which of both.
        what: &'static str,
    },
    /// A row comes from a tuple that does not exist.
    #[error("rows for stream `{stream}` are anchored to row {row} of {of} tuples")]
    Anchor {
        /// The stream.
        stream: StreamRef,
        /// The missing tuple's row.
        row: u32,
        /// The tuples that there are.
        of: usize,
    },
    /// A direct stream needs a task, and only a direct stream takes one.
    #[error("stream `{stream}` is {declared}: use {instead}")]
    Direct {
        /// The stream.
        stream: StreamRef,
        /// How it is declared.
        declared: &'static str,
        /// What to call.
        instead: &'static str,
    },
    /// The named task does not listen to the stream.
    #[error("task {task} does not listen to stream `{stream}`")]
    NotListening {
        /// The stream.
        stream: StreamRef,
        /// The task.
        task: TaskId,
    },
    /// A custom grouping failed.
    #[error("the grouping of stream `{stream}` failed: {source}")]
    Grouping {
        /// The stream.
        stream: StreamRef,
        /// What it said.
        source: TaskError,
    },
    /// Arrow could not copy rows.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The topology has ended.
    #[error("the topology is being stopped")]
    Stopped,
}

/// One listener of a stream.
pub(crate) struct Route {
    pub(crate) targets: Vec<(TaskId, QueueSender)>,
    pub(crate) partitioner: Partitioner,
}

/// An output stream of a task.
pub(crate) struct OutStream {
    pub(crate) name: Arc<StreamRef>,
    pub(crate) schema: SchemaRef,
    pub(crate) direct: bool,
    pub(crate) stats: Arc<OutputStats>,
    pub(crate) routes: Vec<Route>,
    /// The task's other streams that someone listens to who also listens to this one, by their places: what is
    /// emitted to these and to this one must not overtake each other.
    pub(crate) meets: Vec<usize>,
}

/// The output side of a task.
pub(crate) struct Router {
    pub(crate) task: TaskId,
    pub(crate) streams: Vec<OutStream>,
    pub(crate) batch_rows: usize,
    /// Fragments of the topology that are sent and not yet worked off.
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) ids: fastrand::Rng,
    pub(crate) clock: Clock,
    pub(crate) ackers: Ackers,
    /// What is emitted is marked with this.
    pub(crate) label: Option<Label>,
    /// How many rows went to each task since somebody asked.
    pub(crate) sent: BTreeMap<TaskId, u64>,
}

/// Fragments with the queues that they go to.
pub(crate) type Outgoing = Vec<(QueueSender, Fragment)>;

impl Router {
    /// The place of a declared stream.
    pub(crate) fn stream(&self, id: &str) -> Result<usize, EmitError> {
        self.streams.iter().position(|stream| stream.name.stream == id).ok_or_else(|| {
            let declared: Vec<&str> = self.streams.iter().map(|stream| stream.name.stream.as_str()).collect();
            EmitError::UnknownStream {
                component: self
                    .streams
                    .first()
                    .map_or_else(String::new, |stream| stream.name.component.clone()),
                stream: id.to_owned(),
                declared: declared.join(", "),
            }
        })
    }

    /// How many bytes a batch for a stream may hold.
    pub(crate) fn batch_bytes(&self, stream: usize) -> usize {
        batch_bytes_of(&self.streams[stream].routes)
    }

    /// The rows with the stream's own schema, if they fit it by names and types.
    pub(crate) fn checked(&self, stream: usize, rows: RecordBatch) -> Result<RecordBatch, EmitError> {
        let OutStream { schema, name, .. } = &self.streams[stream];
        if Arc::ptr_eq(schema, rows.schema_ref()) {
            return Ok(rows);
        }
        let described = |schema: &SchemaRef| {
            let fields: Vec<String> = schema
                .fields()
                .iter()
                .map(|field| format!("{}: {}", field.name(), field.data_type()))
                .collect();
            format!("({})", fields.join(", "))
        };
        let found = rows.schema();
        let fits = found.fields().len() == schema.fields().len()
            && found.fields().iter().zip(schema.fields()).all(|(found, declared)| {
                found.name() == declared.name() && found.data_type() == declared.data_type()
            });
        if !fits {
            return Err(EmitError::Schema {
                stream: (**name).clone(),
                expected: described(schema),
                found: described(&found),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)?)
    }

    /// Says what goes where; nothing is sent yet. `to` is the task for a direct stream.
    pub(crate) fn plan(
        &mut self,
        stream: usize,
        rows: &RecordBatch,
        to: Option<TaskId>,
        mut origin: Origin<'_>,
    ) -> Result<Outgoing, EmitError> {
        let OutStream { name, direct, stats, routes, .. } = &mut self.streams[stream];
        match (*direct, to) {
            (true, None) => {
                let (declared, instead) = ("direct", "emit_direct with the receiving task");
                return Err(EmitError::Direct { stream: (**name).clone(), declared, instead });
            }
            (false, Some(_)) => {
                let (declared, instead) = ("not direct", "emit");
                return Err(EmitError::Direct { stream: (**name).clone(), declared, instead });
            }
            _ => {}
        }
        // First all that can fail: what is anchored is part of a tree, and must leave.
        let most_bytes = batch_bytes_of(routes);
        let most_rows = match origin.row_bytes() {
            0 => self.batch_rows,
            lineage => self.batch_rows.min((most_bytes / lineage).max(1)),
        };
        let pieces = pieces(rows, most_rows, most_bytes);
        routes.iter_mut().for_each(|route| route.partitioner.remember());
        let (planned, listens) = match planned(routes, rows, pieces, to, self.label) {
            Ok(planned) => planned,
            Err(error) => {
                routes.iter_mut().for_each(|route| route.partitioner.undo());
                return Err(match error {
                    Unplanned::Grouping(source) => EmitError::Grouping { stream: (**name).clone(), source },
                    Unplanned::Arrow(error) => error.into(),
                });
            }
        };
        if let (Some(task), true) = (to, !listens && rows.num_rows() > 0) {
            return Err(EmitError::NotListening { stream: (**name).clone(), task });
        }
        let mut outgoing = Vec::with_capacity(planned.len());
        for Part { route, target, piece, selection, rows } in planned {
            let lineage = lineage(&mut origin, piece.start, piece.len(), &selection, &mut self.ids);
            stats.transferred(rows.num_rows());
            let (to, queue) = &routes[route].targets[target];
            *self.sent.entry(*to).or_default() += rows.num_rows() as u64;
            let (stream, label) = (Arc::clone(name), self.label);
            outgoing
                .push((queue.clone(), Fragment { to: *to, from: self.task, stream, rows, lineage, label }));
        }
        stats.emitted(rows.num_rows());
        Ok(outgoing)
    }

    /// Tells who listens to the component's system stream what befell the task.
    pub(crate) async fn announce(&mut self, event: &str) -> Result<(), EmitError> {
        let stream = self.stream(SYSTEM_STREAM)?;
        let events: ArrayRef = Arc::new(StringArray::from(vec![event]));
        let rows = RecordBatch::try_new(Arc::clone(&self.streams[stream].schema), vec![events])?;
        let outgoing = self.plan(stream, &rows, None, Origin::Anchors(Anchors::None))?;
        self.send(outgoing).await
    }

    /// Sends what was planned, in order; waits wherever there is no room.
    pub(crate) async fn send(&mut self, outgoing: Outgoing) -> Result<(), EmitError> {
        self.in_flight.fetch_add(outgoing.len(), SeqCst);
        let mut unsent =
            Unsent { outgoing: outgoing.into(), in_flight: &self.in_flight, ackers: &self.ackers };
        while let Some((queue, fragment)) = unsent.outgoing.front() {
            let queue = queue.clone();
            let place = queue.room_for(fragment).await.map_err(|_| EmitError::Stopped)?;
            if let Some((_, fragment)) = unsent.outgoing.pop_front() {
                place.take(fragment).map_err(|_| EmitError::Stopped)?;
            }
        }
        Ok(())
    }
}

/// What has not left yet. Whoever emits may stop waiting for it; then nobody will receive it.
struct Unsent<'a> {
    outgoing: VecDeque<(QueueSender, Fragment)>,
    in_flight: &'a AtomicUsize,
    ackers: &'a Ackers,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.outgoing.len(), SeqCst);
        self.outgoing.iter().for_each(|(_, fragment)| self.ackers.lost(&fragment.lineage));
    }
}

/// Rows for one target.
struct Part {
    route: usize,
    target: usize,
    /// The piece of the emitted rows that they were selected from.
    piece: Range<usize>,
    selection: Selection,
    rows: RecordBatch,
}

/// Why nothing was planned.
enum Unplanned {
    Grouping(TaskError),
    Arrow(ArrowError),
}

impl From<ArrowError> for Unplanned {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

/// Says which rows go to which target, piece by piece, and whether somebody listens there to direct tuples.
fn planned(
    routes: &mut [Route],
    rows: &RecordBatch,
    pieces: Vec<Range<usize>>,
    to: Option<TaskId>,
    label: Option<Label>,
) -> Result<(Vec<Part>, bool), Unplanned> {
    let (mut planned, mut listens) = (Vec::new(), false);
    let mut parts = Vec::new();
    for piece in pieces {
        let whole = if piece.len() == rows.num_rows() { rows } else { &rows.slice(piece.start, piece.len()) };
        for (number, route) in routes.iter_mut().enumerate() {
            // The test kit listens to direct streams by another grouping: it hears everything.
            match to.filter(|_| route.partitioner.is_direct()) {
                Some(to) => {
                    let target = route.targets.iter().position(|(task, _)| *task == to);
                    listens |= target.is_some();
                    parts.extend(target.map(|target| (target, Selection::All)));
                }
                None => {
                    let grouped = route.partitioner.partition(whole, label, &mut parts);
                    grouped.map_err(Unplanned::Grouping)?;
                }
            }
            for (target, selection) in parts.drain(..) {
                let rows = selected(rows, &piece, whole, &selection)?;
                planned.push(Part { route: number, target, piece: piece.clone(), selection, rows });
            }
        }
    }
    Ok((planned, listens))
}

/// The selected rows of `whole`, which is a piece of `batch`. Few rows are copied.
fn selected(
    batch: &RecordBatch,
    piece: &Range<usize>,
    whole: &RecordBatch,
    selection: &Selection,
) -> Result<RecordBatch, ArrowError> {
    let (offset, rows) = match *selection {
        Selection::All => (0, piece.len()),
        Selection::Slice { offset, rows } => (offset, rows),
        Selection::Rows(ref rows) => return take_rows(whole, rows),
    };
    if rows == whole.num_rows() && rows * SHARE >= batch.num_rows() {
        return Ok(whole.clone());
    }
    if rows * SHARE >= batch.num_rows() {
        return Ok(whole.slice(offset, rows));
    }
    take_rows(whole, &UInt32Array::from_iter_values((offset..offset + rows).map(|row| row as u32)))
}

/// How many bytes a batch may hold that goes these ways.
fn batch_bytes_of(routes: &[Route]) -> usize {
    let queues = routes.iter().flat_map(|route| &route.targets).map(|(_, queue)| queue.byte_capacity());
    batch_bytes(queues.min().unwrap_or(usize::MAX))
}
