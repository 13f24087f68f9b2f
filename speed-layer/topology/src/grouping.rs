//! Groupings: which task of a listener receives which tuple of a stream.

mod shuffle;

use std::{fmt, sync::Arc};

use arrow::array::{RecordBatch, UInt32Array};

use crate::{
    context::TaskError,
    hash::{hash_rows, second_hash},
    lineage::{Label, TaskId},
    topology::StreamRef,
};
use shuffle::Shuffle;

/// How a stream's tuples are spread over the tasks of a bolt that listens to it.
#[derive(Clone)]
#[non_exhaustive]
pub enum Grouping {
    /// Evenly: no task of the listener has received more from one emitting task than another by more than 128 tuples.
    Shuffle,
    /// Equal values of these fields go to the same task, whatever their Arrow encoding.
    Fields(Arc<[String]>),
    /// Everything goes to the listener's lowest task.
    Global,
    /// Every tuple goes to every task.
    All,
    /// The emitter names the task; for direct streams.
    Direct,
    /// Shuffles over the tasks in the same process, if there are any. In a local cluster that is all of them.
    LocalOrShuffle,
    /// The listener does not care. At present this is [`Shuffle`](Self::Shuffle), as in Storm.
    None,
    /// Equal values of these fields go to one of the same two tasks, the one that has received less. Whoever needs
    /// one result per key merges behind it.
    PartialKey(Arc<[String]>),
    /// As a grouping of the user's own decides; made once per emitting task.
    Custom(Arc<dyn Fn() -> Box<dyn CustomGrouping> + Send + Sync>),
}

impl Grouping {
    /// [`Grouping::Fields`] of these.
    pub fn fields(fields: &[&str]) -> Self {
        Self::Fields(fields.iter().map(ToString::to_string).collect())
    }

    /// [`Grouping::PartialKey`] of these.
    pub fn partial_key(fields: &[&str]) -> Self {
        Self::PartialKey(fields.iter().map(ToString::to_string).collect())
    }

    /// [`Grouping::Custom`] by what `make` makes.
    pub fn custom<G: CustomGrouping>(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(move || Box::new(make())))
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shuffle => "shuffle",
            Self::Fields(_) => "fields",
            Self::Global => "global",
            Self::All => "all",
            Self::Direct => "direct",
            Self::LocalOrShuffle => "local-or-shuffle",
            Self::None => "none",
            Self::PartialKey(_) => "partial-key",
            Self::Custom(_) => "custom",
        }
    }

    /// The fields that it goes by.
    pub fn key(&self) -> Option<&[String]> {
        match self {
            Self::Fields(fields) | Self::PartialKey(fields) => Some(fields),
            _ => None,
        }
    }
}

impl fmt::Debug for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.key() {
            Some(fields) => write!(f, "({})", fields.join(", ")),
            None => Ok(()),
        }
    }
}

/// What a custom grouping is told before it chooses.
#[derive(Clone, Debug)]
pub struct GroupingContext {
    /// The stream.
    pub stream: StreamRef,
    /// The emitting task.
    pub from: TaskId,
    /// The listener's tasks. Choices are indexes into these.
    pub targets: Vec<TaskId>,
}

/// A grouping of the user's own.
pub trait CustomGrouping: Send + 'static {
    /// Called once, before the first choice.
    fn prepare(&mut self, context: &GroupingContext) {
        let _ = context;
    }

    /// Chooses for each row the tasks that receive it: none, one or several.
    ///
    /// # Errors
    ///
    /// An error goes to the emitter, and no task receives anything.
    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError>;
}

/// Takes the choices of a custom grouping.
#[derive(Debug)]
pub struct TaskChoice {
    rows: Vec<Vec<u32>>,
    of: usize,
    label: Option<Label>,
}

impl TaskChoice {
    /// The mark that the rows are emitted with.
    pub fn label(&self) -> Option<Label> {
        self.label
    }

    /// How many targets there are.
    pub fn targets(&self) -> usize {
        self.rows.len()
    }

    /// Sends every row to the target with this index.
    ///
    /// # Panics
    ///
    /// If there is no such target.
    pub fn send_all(&mut self, target: usize) {
        self.rows[target].extend(0..self.of as u32);
    }

    /// Sends row `row` to the target with this index. Rows of one target are to be chosen in ascending order.
    ///
    /// # Panics
    ///
    /// If there is no such row or target.
    pub fn send(&mut self, row: usize, target: usize) {
        assert!(row < self.of, "row {row} of {}", self.of);
        self.rows[target].push(row as u32);
    }
}

/// Which rows of a batch go to one target.
#[derive(Debug)]
pub(crate) enum Selection {
    All,
    Slice { offset: usize, rows: usize },
    Rows(UInt32Array),
}

/// One emitting task's side of a subscription.
pub(crate) struct Partitioner {
    targets: usize,
    rule: Rule,
    hashes: Vec<u64>,
    /// How much each target had received when this was remembered.
    remembered: Vec<u64>,
}

enum Rule {
    Shuffle(Shuffle),
    Hash { columns: Vec<usize> },
    TwoChoices { columns: Vec<usize>, sent: Vec<u64> },
    First,
    Every,
    Named,
    Custom(Box<dyn CustomGrouping>),
}

impl Partitioner {
    pub(crate) fn new(
        grouping: &Grouping,
        context: &GroupingContext,
        column: impl Fn(&str) -> usize,
    ) -> Self {
        let targets = context.targets.len();
        let columns = |fields: &[String]| fields.iter().map(|field| column(field)).collect();
        let rule = match grouping {
            Grouping::Shuffle | Grouping::LocalOrShuffle | Grouping::None => {
                Rule::Shuffle(Shuffle::new(targets, context.from as usize))
            }
            Grouping::Fields(fields) => Rule::Hash { columns: columns(fields) },
            Grouping::PartialKey(fields) => {
                Rule::TwoChoices { columns: columns(fields), sent: vec![0; targets] }
            }
            Grouping::Global => Rule::First,
            Grouping::All => Rule::Every,
            Grouping::Direct => Rule::Named,
            Grouping::Custom(make) => {
                let mut custom = make();
                custom.prepare(context);
                Rule::Custom(custom)
            }
        };
        Self { targets, rule, hashes: Vec::new(), remembered: Vec::new() }
    }

    /// How much each target has received, where the rule goes by it.
    fn sent(&mut self) -> Option<&mut Vec<u64>> {
        match &mut self.rule {
            Rule::Shuffle(shuffle) => Some(&mut shuffle.sent),
            Rule::TwoChoices { sent, .. } => Some(sent),
            _ => None,
        }
    }

    /// Remembers what the targets have received, for [`undo`](Self::undo).
    pub(crate) fn remember(&mut self) {
        let mut remembered = std::mem::take(&mut self.remembered);
        if let Some(sent) = self.sent() {
            remembered.clone_from(sent);
        }
        self.remembered = remembered;
    }

    /// Takes back what was said since then: none of it was sent.
    pub(crate) fn undo(&mut self) {
        let remembered = std::mem::take(&mut self.remembered);
        if let Some(sent) = self.sent() {
            *sent = remembered;
        }
    }

    /// Whether the emitter names the targets.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.rule, Rule::Named)
    }

    /// Says which rows go to which target, by its index. Every list is ascending, so that order is kept.
    pub(crate) fn partition(
        &mut self,
        rows: &RecordBatch,
        label: Option<Label>,
        parts: &mut Vec<(usize, Selection)>,
    ) -> Result<(), TaskError> {
        let count = rows.num_rows();
        match &mut self.rule {
            Rule::First => parts.push((0, Selection::All)),
            Rule::Every => parts.extend((0..self.targets).map(|target| (target, Selection::All))),
            // A direct stream's batches go where their emitter says.
            Rule::Named => {}
            Rule::Shuffle(shuffle) => shuffle.cut(count, parts),
            Rule::Hash { .. } | Rule::TwoChoices { .. } if self.targets == 1 => {
                parts.push((0, Selection::All))
            }
            Rule::Hash { columns } => {
                hash(rows, columns, &mut self.hashes)?;
                let targets = self.targets as u64;
                gather(self.targets, count, parts, |row| reduced(self.hashes[row], targets));
            }
            Rule::TwoChoices { columns, sent } => {
                hash(rows, columns, &mut self.hashes)?;
                let targets = self.targets as u64;
                gather(self.targets, count, parts, |row| {
                    let hash = self.hashes[row];
                    let one = reduced(hash, targets);
                    // Another one than the first: so many steps further on, at least one.
                    let other = (one + 1 + reduced(second_hash(hash), targets - 1)) % self.targets;
                    let chosen = if sent[other] < sent[one] { other } else { one };
                    sent[chosen] += 1;
                    chosen
                });
            }
            Rule::Custom(custom) => {
                let mut choice = TaskChoice { rows: vec![Vec::new(); self.targets], of: count, label };
                custom.choose_tasks(rows, &mut choice)?;
                push(choice.rows, count, parts);
            }
        }
        Ok(())
    }
}

fn hash(rows: &RecordBatch, columns: &[usize], hashes: &mut Vec<u64>) -> Result<(), TaskError> {
    let key: Vec<_> = columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
    hash_rows(&key, hashes)?;
    Ok(())
}

/// Maps a hash to a number below `targets`, by its upper bits.
fn reduced(hash: u64, targets: u64) -> usize {
    ((u128::from(hash) * u128::from(targets)) >> 64) as usize
}

fn gather(
    targets: usize,
    count: usize,
    parts: &mut Vec<(usize, Selection)>,
    mut target: impl FnMut(usize) -> usize,
) {
    let expected = count / targets + count / (4 * targets) + 8;
    let mut rows: Vec<Vec<u32>> = (0..targets).map(|_| Vec::with_capacity(expected.min(count))).collect();
    for row in 0..count {
        rows[target(row)].push(row as u32);
    }
    push(rows, count, parts);
}

fn push(rows: Vec<Vec<u32>>, count: usize, parts: &mut Vec<(usize, Selection)>) {
    for (target, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let whole = rows.len() == count && rows.iter().enumerate().all(|(at, row)| at as u32 == *row);
        parts.push((target, if whole { Selection::All } else { Selection::Rows(rows.into()) }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::declare::fields;

    #[test]
    fn what_was_not_sent_does_not_count() {
        let stream = StreamRef { component: "spout".to_owned(), stream: "default".to_owned() };
        let context = GroupingContext { stream, from: 1, targets: vec![2, 3, 4] };
        let batch = |from: i64| {
            let column = Arc::new((from..from + 100).collect::<Int64Array>());
            RecordBatch::try_new(fields([("n", DataType::Int64)]), vec![column]).unwrap()
        };
        for grouping in [Grouping::Shuffle, Grouping::partial_key(&["n"]), Grouping::fields(&["n"])] {
            let [mut one, mut other] = [(); 2].map(|()| Partitioner::new(&grouping, &context, |_| 0));
            let parts = |partitioner: &mut Partitioner, from: i64| {
                let mut parts = Vec::new();
                partitioner.remember();
                partitioner.partition(&batch(from), None, &mut parts).unwrap();
                format!("{parts:?}")
            };
            for round in 0..20 {
                for refused in 0..round % 3 {
                    parts(&mut other, 1_000 * refused + 7);
                    other.undo();
                }
                assert_eq!(parts(&mut one, round), parts(&mut other, round), "{grouping:?}, round {round}");
            }
        }
    }
}
