//! Bolts that copy, merge and filter, and to whom things happen.

use std::{
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, UInt32Array},
    compute::take_record_batch,
    datatypes::Int64Type,
};
use async_trait::async_trait;
use fastrand::Rng;
use stratus_topology::*;

use super::{
    ON_PURPOSE,
    plan::{self, Job, Mishap, Plan},
    sources::schema,
    trees::{Root, Trees, read, written},
};

/// Makes the bolts of a component.
pub(super) struct Worker {
    job: Job,
    mishap: Mishap,
    receivers: usize,
    seed: AtomicU64,
}

impl Worker {
    pub(super) fn new(plan: &Plan, bolt: &plan::Bolt) -> Self {
        let seed = AtomicU64::new(plan.seed.wrapping_mul(17) + bolt.part.tasks as u64);
        Self { job: bolt.job, mishap: bolt.mishap, receivers: plan.receivers(&bolt.part.id), seed }
    }

    pub(super) fn of(&self, trees: &Arc<Trees>) -> WorkerTask {
        WorkerTask {
            job: self.job,
            mishap: self.mishap,
            receivers: self.receivers,
            trees: Arc::clone(trees),
            rng: Rng::with_seed(self.seed.fetch_add(1_000, SeqCst)),
            held: Vec::new(),
            group: Vec::new(),
        }
    }
}

pub(super) struct WorkerTask {
    job: Job,
    mishap: Mishap,
    receivers: usize,
    trees: Arc<Trees>,
    rng: Rng,
    /// Done with, and to be acked later.
    held: Vec<(Tuples, Instant)>,
    /// To be merged.
    group: Vec<Tuples>,
}

fn roots(tuples: &Tuples) -> Vec<Vec<Root>> {
    tuples.rows().column(1).as_string::<i32>().iter().flatten().map(read).collect()
}

fn keys(tuples: &Tuples) -> Vec<i64> {
    tuples.rows().column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[async_trait]
impl Bolt for WorkerTask {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(schema());
    }

    async fn prepare(&mut self, _: &TaskContext) -> Result<(), TaskError> {
        let mishap = self.mishap;
        match mishap {
            Mishap::Panic if self.happens(10) => panic_any(ON_PURPOSE),
            Mishap::Error if self.happens(10) => Err("not today".into()),
            _ => Ok(()),
        }
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        if input.is_tick() {
            self.release(out);
            return self.merge(1, out).await;
        }
        if self.rng.u8(0..4) == 0 {
            self.release(out);
        }
        self.calamity(30)?;
        match self.job {
            Job::Merge(count) => {
                for row in 0..input.len() as u32 {
                    let one = input.take(&[row])?;
                    match self.settles_otherwise(&one, out) {
                        true => {}
                        false => self.group.push(one),
                    }
                    if self.group.len() >= count {
                        self.merge(count, out).await?;
                    }
                }
                Ok(())
            }
            Job::Copy(times) => {
                for _ in 0..times {
                    let every: Vec<u32> = (0..input.len() as u32).collect();
                    self.copy(&input, &every, out).await?;
                }
                self.settle(&input, out)
            }
            Job::Filter => {
                let some: Vec<u32> = (0..input.len() as u32).filter(|_| self.rng.bool()).collect();
                self.copy(&input, &some, out).await?;
                self.settle(&input, out)
            }
            Job::End => self.settle(&input, out),
        }
    }
}

impl WorkerTask {
    /// Whether something happens, which it does once in so many times.
    fn happens(&mut self, in_so_many: u32) -> bool {
        self.rng.u32(0..in_so_many) == 0 && self.trees.mishap()
    }

    fn calamity(&mut self, in_so_many: u32) -> Result<(), TaskError> {
        let mishap = self.mishap;
        match mishap {
            Mishap::Panic if self.happens(in_so_many) => panic_any(ON_PURPOSE),
            Mishap::Error if self.happens(in_so_many) => Err("it happens".into()),
            _ => Ok(()),
        }
    }

    /// Acks what is held.
    fn release(&mut self, out: &mut OutputCollector) {
        let ripe = |until: &Instant| *until <= Instant::now();
        for (tuples, _) in self.held.extract_if(.., |(_, until)| ripe(until)) {
            roots(&tuples).iter().for_each(|roots| self.trees.ack(roots));
            out.ack(&tuples);
        }
    }

    /// Whether a tuple fails, is forgotten or held instead of being acked.
    fn settles_otherwise(&mut self, one: &Tuples, out: &mut OutputCollector) -> bool {
        let mishap = self.mishap;
        match mishap {
            Mishap::Fail if self.happens(10) => out.fail(one, "it happens"),
            Mishap::Forget if self.happens(10) => {}
            // Held tuples cost no mishaps, or there would be too few.
            Mishap::Hold if self.rng.u8(0..3) == 0 => self.held.push((one.clone(), Instant::now())),
            Mishap::HoldTooLong if self.happens(30) => {
                self.held.push((one.clone(), Instant::now() + Duration::from_millis(1_300)));
            }
            _ => return false,
        }
        true
    }

    /// Acks the tuples, in one way or another, except those that something happens to.
    fn settle(&mut self, input: &Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        self.calamity(30)?;
        let roots = roots(input);
        let mut rows = Vec::new();
        for row in 0..input.len() as u32 {
            if !self.settles_otherwise(&input.take(&[row])?, out) {
                rows.push(row);
            }
        }
        rows.iter().for_each(|row| self.trees.ack(&roots[*row as usize]));
        match self.rng.u8(0..4) {
            0 if rows.len() == input.len() => out.ack(input),
            1 => out.ack(&input.take(&rows)?),
            2 => rows.iter().for_each(|row| out.ack_tuple(input.tuple(*row as usize))),
            _ => out.ack_rows(input, &rows),
        }
        self.calamity(30)
    }

    /// Emits some rows once more, in one way or another.
    async fn copy(
        &mut self,
        input: &Tuples,
        rows: &[u32],
        out: &mut OutputCollector,
    ) -> Result<(), TaskError> {
        let (keys, roots) = (keys(input), roots(input));
        rows.iter().for_each(|row| self.trees.send(&roots[*row as usize], self.receivers));
        let batch = take_record_batch(input.rows(), &UInt32Array::from(rows.to_vec()))?;
        match self.rng.u8(0..6) {
            0 if rows.len() == input.len() => out.emit(DEFAULT_STREAM, batch, Anchors::Same(input)).await?,
            1 => {
                let part = input.take(rows)?;
                out.emit(DEFAULT_STREAM, batch, Anchors::Same(&part)).await?;
            }
            2 => {
                let twice = |row: &u32| vec![input.tuple(*row as usize); 2];
                let lists: Vec<Vec<Tuple<'_>>> = rows.iter().map(twice).collect();
                out.emit(DEFAULT_STREAM, batch, Anchors::Lists(&lists)).await?;
            }
            3 => {
                for row in rows.iter().map(|row| *row as usize) {
                    let anchors = [input.tuple(row)];
                    out.emit_tuple(DEFAULT_STREAM, (keys[row], written(&roots[row])), &anchors).await?;
                }
            }
            4 => {
                for row in rows {
                    let one = input.take(&[*row])?;
                    let every = Anchors::Every(&[&one, &one]);
                    out.emit(DEFAULT_STREAM, one.rows().clone(), every).await?;
                }
            }
            _ => out.emit(DEFAULT_STREAM, batch, Anchors::Rows(input, rows)).await?,
        }
        self.calamity(60)
    }

    /// Emits one tuple for all of the group, if these are enough, and acks them.
    async fn merge(&mut self, least: usize, out: &mut OutputCollector) -> Result<(), TaskError> {
        if self.group.len() < least {
            return Ok(());
        }
        let group = std::mem::take(&mut self.group);
        self.calamity(30)?;
        let mut all: Vec<Root> = group.iter().flat_map(roots).flatten().collect();
        all.sort_unstable();
        all.dedup();
        self.trees.send(&all, self.receivers);
        let row = (keys(&group[0])[0], written(&all));
        let tuples: Vec<Tuple<'_>> = group.iter().map(|tuples| tuples.tuple(0)).collect();
        match self.rng.u8(0..3) {
            0 => out.emit_tuple(DEFAULT_STREAM, row, &tuples).await?,
            way => {
                let mut rows = RowBuilder::new(schema(), 1)?;
                rows.append(row)?;
                let every: Vec<&Tuples> = group.iter().collect();
                let lists = [tuples];
                let anchors = if way == 1 { Anchors::Every(&every) } else { Anchors::Lists(&lists) };
                out.emit(DEFAULT_STREAM, rows.finish(), anchors).await?;
            }
        }
        self.calamity(30)?;
        for tuples in &group {
            roots(tuples).iter().for_each(|roots| self.trees.ack(roots));
            out.ack(tuples);
        }
        Ok(())
    }
}
