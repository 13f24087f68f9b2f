//! The bounded queue in front of an executor.
//!
//! Bounded in rows and in bytes that the rows hold in memory. A sender waits its turn until there is room, so what one
//! task sends to another arrives in order, also when the queue is full. A batch that is larger than the whole queue
//! passes alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
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

/// The topology has ended: nobody takes anything any more.
#[derive(Debug)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Room {
    rows: Semaphore,
    bytes: Semaphore,
    row_capacity: u32,
    byte_capacity: u32,
    most_rows: AtomicUsize,
    most_bytes: AtomicUsize,
}

impl Room {
    fn fill(&self) -> (usize, usize) {
        let rows = self.row_capacity as usize - self.rows.available_permits().min(self.row_capacity as usize);
        let bytes =
            self.byte_capacity as usize - self.bytes.available_permits().min(self.byte_capacity as usize);
        (rows, bytes)
    }
}

/// The senders' end.
#[derive(Clone, Debug)]
pub(crate) struct QueueSender {
    fragments: mpsc::UnboundedSender<(Fragment, u32, u32)>,
    room: Arc<Room>,
}

/// Room in a queue for one fragment.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    sender: &'a QueueSender,
    rows: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
}

/// The executor's end. Dropping it closes the queue.
#[derive(Debug)]
pub(crate) struct QueueReceiver {
    fragments: mpsc::UnboundedReceiver<(Fragment, u32, u32)>,
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
        most_rows: AtomicUsize::new(0),
        most_bytes: AtomicUsize::new(0),
    });
    let (sender, receiver) = mpsc::unbounded_channel();
    (QueueSender { fragments: sender, room: Arc::clone(&room) }, QueueReceiver { fragments: receiver, room })
}

impl QueueSender {
    /// Waits for room for these rows. Who no longer waits gives its place up.
    pub(crate) async fn room_for(&self, rows: &RecordBatch) -> Result<Place<'_>, Closed> {
        let room = &self.room;
        let count = (rows.num_rows() as u64).min(u64::from(room.row_capacity)) as u32;
        let size = (rows.get_array_memory_size() as u64).min(u64::from(room.byte_capacity)) as u32;
        // Always rows first: who has its rows waits for bytes, which the executor frees without waiting for anybody.
        let rows = room.rows.acquire_many(count).await.map_err(|_| Closed)?;
        let bytes = room.bytes.acquire_many(size).await.map_err(|_| Closed)?;
        Ok(Place { sender: self, rows, bytes })
    }

    pub(crate) fn gauge(&self) -> QueueGauge {
        QueueGauge(Arc::clone(&self.room))
    }
}

impl Place<'_> {
    /// Hands over the fragment that the place is for.
    pub(crate) fn take(self, fragment: Fragment) -> Result<(), Closed> {
        let Self { sender, rows, bytes } = self;
        let (count, size) = (rows.num_permits() as u32, bytes.num_permits() as u32);
        rows.forget();
        bytes.forget();
        let room = &sender.room;
        let (filled_rows, filled_bytes) = room.fill();
        room.most_rows.fetch_max(filled_rows, Relaxed);
        room.most_bytes.fetch_max(filled_bytes, Relaxed);
        sender.fragments.send((fragment, count, size)).map_err(|_| Closed)
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

    fn release(&self, (fragment, rows, bytes): (Fragment, u32, u32)) -> Fragment {
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
        let (rows, bytes) = self.0.fill();
        QueueFill {
            rows,
            most_rows: self.0.most_rows.load(Relaxed),
            row_capacity: self.0.row_capacity as usize,
            bytes,
            most_bytes: self.0.most_bytes.load(Relaxed),
            byte_capacity: self.0.byte_capacity as usize,
        }
    }
}
