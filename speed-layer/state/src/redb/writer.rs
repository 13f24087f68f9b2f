//! The one thread that writes. Writes that wait while a transaction is under way go together into the next one: the
//! sixteen shards of a micro-batch, committed at once, cost one or two transactions instead of sixteen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use redb::{Database, WriteTransaction};
use stratus_seam::store::{Durability, StoreError};
use tokio::sync::oneshot;

use super::trouble::{Trouble, damaged, unavailable};

/// How many writes share one transaction at most, so that none waits for long.
const GROUP: usize = 64;

/// What a write does within a transaction, and whether it changed anything. It may be run twice, the first time in
/// a transaction that is given up.
pub(super) type Effect<T> = Box<dyn FnMut(&WriteTransaction) -> Result<(T, bool), Trouble> + Send>;

/// The writing thread of one file.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<Sender<Box<dyn Write>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(db: Arc<Database>) -> std::io::Result<Self> {
        let (queue, waiting) = channel();
        let thread =
            std::thread::Builder::new().name("redb-writer".into()).spawn(move || serve(&db, &waiting))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Has the effect and gives what it answers, once its transaction is committed. If the caller goes away meanwhile,
    /// the effect may still happen.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        what: String,
        durability: Durability,
        effect: Effect<T>,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || unavailable("state file", "its writer has stopped".into());
        let write = Box::new(Pending { what, durability, effect, done: None, reply });
        self.queue.as_ref().ok_or_else(stopped)?.send(write).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    /// Finishes what is under way, so that the file is free for the next one who opens it.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics; there is nothing to learn from how it ended.
            let _ = thread.join();
        }
    }
}

/// A write that waits for its turn.
trait Write: Send {
    fn durability(&self) -> Durability;
    /// Has the effect within the transaction, and says whether anything changed.
    fn run(&mut self, txn: &WriteTransaction) -> Result<bool, Trouble>;
    /// Tells the caller what became of it.
    fn tell(self: Box<Self>, outcome: Outcome);
}

enum Outcome {
    Committed,
    Failed(Trouble),
    /// The transaction that it was part of failed as a whole; the text says how.
    Lost(String),
    /// The same, and the file is to blame.
    Damaged(String),
}

struct Pending<T> {
    what: String,
    durability: Durability,
    effect: Effect<T>,
    done: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send> Write for Pending<T> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, txn: &WriteTransaction) -> Result<bool, Trouble> {
        let (done, changed) = (self.effect)(txn)?;
        self.done = Some(done);
        Ok(changed)
    }

    fn tell(self: Box<Self>, outcome: Outcome) {
        let what = &self.what;
        let answer = match (outcome, self.done) {
            (Outcome::Committed, Some(done)) => Ok(done),
            (Outcome::Committed, None) => Err(unavailable(what, "it was not run".into())),
            (Outcome::Failed(trouble), _) => Err(trouble.told(what)),
            (Outcome::Lost(cause), _) => Err(unavailable(what, cause)),
            (Outcome::Damaged(cause), _) => Err(damaged(what, &cause)),
        };
        // The caller may have gone away.
        let _ = self.reply.send(answer);
    }
}

fn serve(db: &Database, waiting: &Receiver<Box<dyn Write>>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        run(db, group);
    }
}

/// Runs a group in one transaction. If one of them fails, nothing of the group has happened yet, and each gets a
/// transaction of its own: a write never suffers from its neighbours.
fn run(db: &Database, mut group: Vec<Box<dyn Write>>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| together(db, &mut group)));
    match outcome {
        Ok(Ok(())) => group.into_iter().for_each(|write| write.tell(Outcome::Committed)),
        Ok(Err(Failure::OfOne(trouble))) => match group.pop() {
            Some(only) if group.is_empty() => only.tell(Outcome::Failed(trouble)),
            last => group.into_iter().chain(last).for_each(|write| run(db, vec![write])),
        },
        Ok(Err(Failure::OfAll(trouble))) => {
            let outcome: fn(String) -> Outcome = match &trouble {
                Trouble::Damaged(_) | Trouble::Redb(redb::Error::Corrupted(_)) => Outcome::Damaged,
                _ => Outcome::Lost,
            };
            let cause = trouble.cause();
            group.into_iter().for_each(|write| write.tell(outcome(cause.clone())));
        }
        Err(panic) => {
            let cause = panicked(panic.as_ref());
            group.into_iter().for_each(|write| write.tell(Outcome::Damaged(cause.clone())));
        }
    }
}

enum Failure {
    /// One write failed, and the transaction was given up.
    OfOne(Trouble),
    /// The transaction itself did not begin or end well.
    OfAll(Trouble),
}

fn together(db: &Database, group: &mut [Box<dyn Write>]) -> Result<(), Failure> {
    let all = |error: Trouble| Failure::OfAll(error);
    let mut txn = db.begin_write().map_err(|error| all(error.into()))?;
    let now = group.iter().any(|write| write.durability() == Durability::Now);
    let durability = if now { redb::Durability::Immediate } else { redb::Durability::None };
    txn.set_durability(durability).map_err(|error| all(error.into()))?;
    let mut changed = false;
    for write in group {
        changed |= write.run(&txn).map_err(Failure::OfOne)?;
    }
    let ended =
        if changed { txn.commit().map_err(Trouble::from) } else { txn.abort().map_err(Trouble::from) };
    ended.map_err(all)
}

/// What a panic of the storage engine said. It panics on pages that no crash leaves behind.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
