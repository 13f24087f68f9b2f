//! The executor of a spout's tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{Backoff, Command, Ended, NOBODY, Orders, discard, guarded, text_of};
use crate::{
    acker::SpoutEvent,
    context::TaskContext,
    metrics::ComponentStats,
    router::EmitError,
    spout::{Next, Spout},
    spout_collector::SpoutOutputCollector,
    topology::SpoutFactory,
};

/// How long an executor rests whose spouts have nothing.
const IDLE: Duration = Duration::from_millis(1);

/// One task of a spout.
pub(crate) struct SpoutTask {
    pub(crate) context: TaskContext,
    pub(crate) out: SpoutOutputCollector,
}

/// Runs some tasks of a spout.
pub(crate) struct SpoutExecutor {
    pub(crate) tasks: Vec<SpoutTask>,
    pub(crate) make: SpoutFactory,
    pub(crate) events: mpsc::UnboundedReceiver<SpoutEvent>,
    pub(crate) command: Command,
    pub(crate) max_pending: usize,
    pub(crate) linger: Duration,
    /// How many executors of the topology's spouts may emit.
    pub(crate) at_work: Arc<AtomicUsize>,
    pub(crate) stats: Arc<ComponentStats>,
    /// The place of the task whose call is or was the latest.
    pub(crate) at: usize,
}

/// Why an executor stopped working with its spouts.
enum Broken {
    Panicked,
    Ended,
}

impl From<Ended> for Broken {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// A spout could not be opened.
struct NotReady;

/// Counts an executor as one that may emit.
struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A spout with what its executor knows of it.
struct Working {
    spout: Box<dyn Spout>,
    failures: Backoff,
    /// It is not asked before this, after an error.
    rests_until: Option<Instant>,
}

impl SpoutExecutor {
    /// Works until the topology ends.
    pub(crate) async fn run(mut self) {
        if self.command.begin().await.is_err() {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            let mut spouts = Vec::with_capacity(self.tasks.len());
            // The calls are guarded one by one. This is for whatever else panics: an executor that is gone would leave
            // a topology that looks alive and does nothing.
            let ended = match guarded(self.live(&mut spouts, &mut backoff)).await {
                Ok(ended) => ended,
                Err(panic) => {
                    self.broken(&panic);
                    false
                }
            };
            // The one that panicked is in no state to be called.
            let others = spouts.iter_mut().enumerate().filter(|(at, _)| ended || *at != self.at);
            for (_, working) in others {
                if let Err(panic) = guarded(async { working.spout.close().await }).await {
                    self.stats.panicked(&panic);
                }
            }
            if let Err(panic) = discard(spouts) {
                self.stats.panicked(&panic);
            }
            // New spouts know nothing of what the old ones emitted.
            self.tasks.iter_mut().for_each(|task| task.out.forget());
            if ended || self.command.pause(backoff.next()).await.is_err() {
                return;
            }
        }
    }

    /// Opens spouts and works with them. Whether that is all, or the executor is to start over.
    async fn live(&mut self, spouts: &mut Vec<Working>, backoff: &mut Backoff) -> bool {
        match self.open(spouts).await {
            Ok(()) => matches!(self.work(spouts, backoff).await, Broken::Ended),
            Err(NotReady) => false,
        }
    }

    /// Adds new spouts, ready to work.
    async fn open(&mut self, spouts: &mut Vec<Working>) -> Result<(), NotReady> {
        self.at = NOBODY;
        for task in &mut self.tasks {
            let make = &self.make;
            let opened = guarded(async {
                let mut spout = make();
                spout.open(&task.context).await?;
                spout.activate().await;
                Ok::<_, crate::context::TaskError>(spout)
            });
            match opened.await {
                Ok(Ok(spout)) => {
                    spouts.push(Working { spout, failures: Backoff::default(), rests_until: None })
                }
                Ok(Err(error)) => {
                    let error = text_of(&error);
                    tracing::warn!(
                        component = task.context.component(),
                        error,
                        "a spout could not be opened"
                    );
                    self.stats.erred(&error);
                    return Err(NotReady);
                }
                Err(panic) => {
                    tracing::error!(component = task.context.component(), panic, "opening a spout panicked");
                    self.stats.panicked(&panic);
                    return Err(NotReady);
                }
            }
            // Whoever listens hears of it; if the topology ends, that is seen soon enough.
            if let Err(panic) = guarded(task.out.announce("startup")).await {
                self.stats.panicked(&panic);
                return Err(NotReady);
            }
        }
        Ok(())
    }

    async fn work(&mut self, spouts: &mut [Working], backoff: &mut Backoff) -> Broken {
        let mut resting = false;
        let mut at_work = None;
        loop {
            let orders = self.command.current();
            if orders == Orders::End {
                return Broken::Ended;
            }
            if orders == Orders::Work && at_work.is_none() {
                // Whoever orders rest and sees that nobody is at work must be able to rely on it: so first this, and
                // then the orders once more.
                at_work = Some(AtWork::new(&self.at_work));
                continue;
            }
            let rest = orders == Orders::Rest;
            if rest != resting {
                resting = rest;
                if let Err(panic) = self.turn(spouts, rest).await {
                    return self.broken(&panic);
                }
            }
            match self.round(spouts, resting).await {
                Ok(true) => {
                    backoff.reset();
                    // Whoever shares the thread gets its turn also if nothing here had to wait.
                    tokio::task::consume_budget().await;
                }
                Ok(false) => {
                    if resting {
                        // Whatever waited to be sent has left.
                        at_work = None;
                    }
                    if let Err(broken) = self.idle(spouts, orders).await {
                        return broken;
                    }
                }
                Err(broken) => return broken,
            }
        }
    }

    /// Hands over what was settled and asks each spout once. Whether there was anything to do.
    async fn round(&mut self, spouts: &mut [Working], resting: bool) -> Result<bool, Broken> {
        let mut busy = false;
        while let Ok(event) = self.events.try_recv() {
            busy = true;
            self.hand_over(spouts, event).await?;
        }
        for (index, working) in spouts.iter_mut().enumerate() {
            busy |= self.ask(index, working, resting).await?;
        }
        Ok(busy)
    }

    async fn ask(&mut self, index: usize, working: &mut Working, resting: bool) -> Result<bool, Broken> {
        self.at = index;
        let SpoutTask { context, out } = &mut self.tasks[index];
        let rests = working.rests_until.is_some_and(|until| Instant::now() < until);
        let mut busy = false;
        if !resting && !rests && out.pending() < self.max_pending {
            match guarded(async { working.spout.next(out).await }).await {
                Ok(Ok(next)) => {
                    working.failures.reset();
                    working.rests_until = None;
                    busy = next == Next::Emitted;
                }
                Ok(Err(error)) => {
                    if matches!(error.downcast_ref(), Some(EmitError::Stopped)) {
                        return Err(Broken::Ended);
                    }
                    let error = text_of(&error);
                    tracing::warn!(
                        component = context.component(),
                        task = context.task(),
                        error,
                        "a spout failed"
                    );
                    self.stats.erred(&error);
                    working.rests_until = Some(Instant::now() + working.failures.next());
                }
                Err(panic) => return Err(self.broken(&panic)),
            }
        }
        if !busy || out.lingers(self.linger) {
            match guarded(out.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(EmitError::Stopped)) => return Err(Broken::Ended),
                Ok(Err(error)) => {
                    let error = text_of(&error);
                    tracing::warn!(
                        component = context.component(),
                        task = context.task(),
                        error,
                        "tuples are lost"
                    );
                    self.stats.erred(&error);
                    working.rests_until = Some(Instant::now() + working.failures.next());
                    // Other streams may have tuples waiting.
                    busy = true;
                }
                Err(panic) => return Err(self.broken(&panic)),
            }
        }
        for (ids, reason) in std::mem::take(&mut out.lost) {
            busy = true;
            if let Err(panic) = guarded(async { working.spout.failed(&ids, &reason).await }).await {
                return Err(self.broken(&panic));
            }
        }
        if !out.done.is_empty() {
            busy = true;
            let done = std::mem::take(&mut out.done);
            if let Err(panic) = guarded(async { working.spout.acked(&done).await }).await {
                return Err(self.broken(&panic));
            }
        }
        Ok(busy)
    }

    async fn hand_over(&mut self, spouts: &mut [Working], event: SpoutEvent) -> Result<(), Broken> {
        let batch = match &event {
            SpoutEvent::Acked { batch, .. } | SpoutEvent::Failed { batch, .. } => *batch,
        };
        let Some(index) = self.tasks.iter().position(|task| task.context.task() == batch.task) else {
            return Ok(());
        };
        self.at = index;
        let out = &mut self.tasks[index].out;
        let spout = &mut spouts[index].spout;
        let told = match &event {
            SpoutEvent::Acked { rows, .. } => {
                let ids = out.settled(batch, rows);
                // A spout before this one emitted the others.
                if ids.is_empty() {
                    return Ok(());
                }
                guarded(async { spout.acked(&ids).await }).await
            }
            SpoutEvent::Failed { rows, reason, .. } => {
                let ids = out.settled(batch, rows);
                if ids.is_empty() {
                    return Ok(());
                }
                guarded(async { spout.failed(&ids, reason).await }).await
            }
        };
        told.map_err(|panic| self.broken(&panic))
    }

    /// Waits until there may be something to do. `seen` are the orders that the round before was for: later ones end
    /// the wait at once.
    async fn idle(&mut self, spouts: &mut [Working], seen: Orders) -> Result<(), Broken> {
        let full = self.tasks.iter().all(|task| task.out.pending() >= self.max_pending);
        let resting = seen == Orders::Rest;
        let mut orders = self.command.0.clone();
        let event = tokio::select! {
            event = self.events.recv() => event,
            changed = orders.wait_for(|orders| *orders != seen) => match changed {
                Ok(_) => None,
                Err(_) => return Err(Broken::Ended),
            },
            // Neither a spout at rest nor one with too many pending tuples is asked, so nothing is missed.
            () = tokio::time::sleep(IDLE), if !full && !resting => None,
        };
        match event {
            Some(event) => self.hand_over(spouts, event).await,
            None => Ok(()),
        }
    }

    fn broken(&self, panic: &str) -> Broken {
        tracing::error!(
            component = self.tasks.first().map(|task| task.context.component()),
            panic,
            "a spout panicked"
        );
        self.stats.panicked(panic);
        Broken::Panicked
    }

    /// Tells the spouts that the topology rests or works again.
    async fn turn(&mut self, spouts: &mut [Working], rest: bool) -> Result<(), String> {
        for (index, working) in spouts.iter_mut().enumerate() {
            self.at = index;
            let spout = &mut working.spout;
            let told = async {
                match rest {
                    true => spout.deactivate().await,
                    false => spout.activate().await,
                }
            };
            guarded(told).await?;
        }
        Ok(())
    }
}
