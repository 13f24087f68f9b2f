//! Spouts that emit every tuple until it is acked.

use std::{
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use fastrand::Rng;
use stratus_topology::*;

use super::{
    ON_PURPOSE,
    plan::Plan,
    trees::{Root, Trees, written},
};

pub(super) fn schema() -> SchemaRef {
    fields([("key", DataType::Int64), ("roots", DataType::Utf8)])
}

/// Makes the spouts of a component.
pub(super) struct Source {
    spout: usize,
    seed: AtomicU64,
    receivers: usize,
}

impl Source {
    pub(super) fn new(plan: &Plan, spout: usize) -> Self {
        let receivers = plan.receivers(&plan.spouts[spout].id);
        Self { spout, seed: AtomicU64::new(plan.seed.wrapping_mul(31) + spout as u64), receivers }
    }

    pub(super) fn of(&self, trees: &Arc<Trees>) -> SourceTask {
        SourceTask {
            spout: self.spout,
            task: 0,
            receivers: self.receivers,
            trees: Arc::clone(trees),
            rng: Rng::with_seed(self.seed.fetch_add(1_000, SeqCst)),
        }
    }
}

pub(super) struct SourceTask {
    spout: usize,
    task: usize,
    receivers: usize,
    trees: Arc<Trees>,
    rng: Rng,
}

impl SourceTask {
    fn id(root: &Root) -> MessageId {
        u64::from(root.attempt) << 32 | u64::from(root.tuple)
    }

    fn root(&self, id: MessageId) -> Root {
        Root { spout: self.spout, tuple: id as u32, attempt: (id >> 32) as u32 }
    }

    fn mishap(&mut self) -> bool {
        self.rng.u8(0..30) == 0 && self.trees.mishap()
    }
}

#[async_trait]
impl Spout for SourceTask {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(schema());
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        self.trees.opened_spout(self.spout, self.task);
        if self.rng.u8(0..10) == 0 && self.trees.mishap() {
            return Err("not today".into());
        }
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        if self.mishap() {
            return Err("nothing to be had".into());
        }
        let most = self.rng.usize(1..30);
        let roots = self.trees.attempt(self.spout, self.task, most, self.receivers);
        if roots.is_empty() {
            return Ok(Next::Idle);
        }
        if self.mishap() {
            panic_any(ON_PURPOSE);
        }
        let key = |root: &Root| i64::from(root.tuple % 7);
        if self.rng.bool() {
            let mut rows = RowBuilder::new(schema(), roots.len())?;
            for root in &roots {
                rows.append((key(root), written(&[*root])))?;
            }
            let ids = MessageIds::Each(roots.iter().map(Self::id).collect());
            out.emit(DEFAULT_STREAM, rows.finish(), ids).await?;
        } else {
            for root in &roots {
                out.emit_tuple(DEFAULT_STREAM, (key(root), written(&[*root])), Some(Self::id(root))).await?;
            }
        }
        if self.mishap() {
            panic_any(ON_PURPOSE);
        }
        Ok(if self.rng.bool() { Next::Emitted } else { Next::Idle })
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        ids.iter().for_each(|id| self.trees.told(self.root(*id), true));
        if self.mishap() {
            panic_any(ON_PURPOSE);
        }
    }

    async fn failed(&mut self, ids: &[MessageId], _: &FailReason) {
        ids.iter().for_each(|id| self.trees.told(self.root(*id), false));
    }
}
