//! The bounded queue in front of an executor.
//!
//! Bounded in rows and in bytes that the rows and their lineage hold in memory. A sender waits its turn until there is
//! room, so what one task sends to another arrives in order, also when the queue is full. A batch that is larger than the
//! whole queue passes alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use arrow::array::RecordBatch;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::{
    lineage::{Label, Lineage, TaskId},
    metrics::QueueFill,
    topology::StreamRef,
};

/// Rows of one stream, on their way from one task to another.
#[derive(Debug)]
pub(crate) struct Fragment {
    pub(crate) to: TaskId,
    pub(crate) from: TaskId,
    pub(crate) stream: Arc<StreamRef>,
    pub(crate) rows: RecordBatch,
    pub(crate) lineage: Lineage,
    pub(crate) label: Option<Label>,
}

impl Fragment {
    /// How many bytes it keeps in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.lineage.bytes()
    }
}

/// The topology has ended: nobody takes anything any more.
#[derive(Debug)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Room {
    rows: Semaphore,
    bytes: Semaphore,
    row_capacity: u32,
    byte_capacity: u32,
    filled_rows: Filled,
    filled_bytes: Filled,
}

/// What really waits in a queue, counted where it goes in and out: it says whether the room is given out well.
#[derive(Debug, Default)]
struct Filled {
    now: AtomicUsize,
    /// The most that there ever was.
    most: AtomicUsize,
    /// The most that one fragment ever had.
    largest: AtomicUsize,
}

impl Filled {
    fn enter(&self, count: usize) {
        let now = self.now.fetch_add(count, SeqCst) + count;
        self.most.fetch_max(now, SeqCst);
        self.largest.fetch_max(count, SeqCst);
    }

    fn leave(&self, count: usize) {
        self.now.fetch_sub(count, SeqCst);
    }
}

/// A fragment with the room that it takes up.
#[derive(Debug)]
struct Waiting {
    fragment: Fragment,
    rows: u32,
    bytes: u32,
    /// How many bytes it really has.
    size: usize,
}

/// The senders' end.
#[derive(Clone, Debug)]
pub(crate) struct QueueSender {
    fragments: mpsc::UnboundedSender<Waiting>,
    room: Arc<Room>,
}

/// Room in a queue for one fragment.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    sender: &'a QueueSender,
    rows: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
    size: usize,
}

/// The executor's end. Dropping it closes the queue.
#[derive(Debug)]
pub(crate) struct QueueReceiver {
    fragments: mpsc::UnboundedReceiver<Waiting>,
    room: Arc<Room>,
}

/// Reads how full a queue is.
#[derive(Clone, Debug)]
pub(crate) struct QueueGauge(Arc<Room>);

/// A queue for at most so many rows and bytes.
pub(crate) fn queue(rows: usize, bytes: usize) -> (QueueSender, QueueReceiver) {
    let bounded = |bound: usize| bound.clamp(1, u32::MAX as usize) as u32;
    let (row_capacity, byte_capacity) = (bounded(rows), bounded(bytes));
    let room = Arc::new(Room {
        rows: Semaphore::new(row_capacity as usize),
        bytes: Semaphore::new(byte_capacity as usize),
        row_capacity,
        byte_capacity,
        filled_rows: Filled::default(),
        filled_bytes: Filled::default(),
    });
    let (sender, receiver) = mpsc::unbounded_channel();
    (QueueSender { fragments: sender, room: Arc::clone(&room) }, QueueReceiver { fragments: receiver, room })
}

impl QueueSender {
    /// Waits for room for a fragment. Who no longer waits gives its place up.
    pub(crate) async fn room_for(&self, fragment: &Fragment) -> Result<Place<'_>, Closed> {
        let room = &self.room;
        let size = fragment.bytes();
        let count = (fragment.rows.num_rows() as u64).min(u64::from(room.row_capacity)) as u32;
        let held = (size as u64).min(u64::from(room.byte_capacity)) as u32;
        // Always rows first: who has its rows waits for bytes, which the executor frees without waiting for anybody.
        let rows = room.rows.acquire_many(count).await.map_err(|_| Closed)?;
        let bytes = room.bytes.acquire_many(held).await.map_err(|_| Closed)?;
        Ok(Place { sender: self, rows, bytes, size })
    }

    /// How many bytes may wait.
    pub(crate) fn byte_capacity(&self) -> usize {
        self.room.byte_capacity as usize
    }

    pub(crate) fn gauge(&self) -> QueueGauge {
        QueueGauge(Arc::clone(&self.room))
    }
}

impl Place<'_> {
    /// Hands over the fragment that the place is for.
    pub(crate) fn take(self, fragment: Fragment) -> Result<(), Closed> {
        let Self { sender, rows: row_permits, bytes: byte_permits, size } = self;
        let (rows, bytes) = (row_permits.num_permits() as u32, byte_permits.num_permits() as u32);
        row_permits.forget();
        byte_permits.forget();
        sender.room.filled_rows.enter(fragment.rows.num_rows());
        sender.room.filled_bytes.enter(size);
        sender.fragments.send(Waiting { fragment, rows, bytes, size }).map_err(|_| Closed)
    }
}

impl QueueReceiver {
    /// The next fragment; waits for one. `None`: every sender is gone.
    pub(crate) async fn recv(&mut self) -> Option<Fragment> {
        let taken = self.fragments.recv().await?;
        Some(self.release(taken))
    }

    /// The next fragment, if one waits.
    pub(crate) fn try_recv(&mut self) -> Option<Fragment> {
        let taken = self.fragments.try_recv().ok()?;
        Some(self.release(taken))
    }

    /// How many bytes may wait.
    pub(crate) fn byte_capacity(&self) -> usize {
        self.room.byte_capacity as usize
    }

    fn release(&self, waiting: Waiting) -> Fragment {
        let Waiting { fragment, rows, bytes, size } = waiting;
        // Before others may come in.
        self.room.filled_rows.leave(fragment.rows.num_rows());
        self.room.filled_bytes.leave(size);
        self.room.rows.add_permits(rows as usize);
        self.room.bytes.add_permits(bytes as usize);
        fragment
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        self.room.rows.close();
        self.room.bytes.close();
    }
}

impl QueueGauge {
    pub(crate) fn read(&self) -> QueueFill {
        let Room { row_capacity, byte_capacity, filled_rows, filled_bytes, .. } = &*self.0;
        QueueFill {
            rows: filled_rows.now.load(SeqCst),
            most_rows: filled_rows.most.load(SeqCst),
            largest_rows: filled_rows.largest.load(SeqCst),
            row_capacity: *row_capacity as usize,
            bytes: filled_bytes.now.load(SeqCst),
            most_bytes: filled_bytes.most.load(SeqCst),
            largest_bytes: filled_bytes.largest.load(SeqCst),
            byte_capacity: *byte_capacity as usize,
        }
    }
}
