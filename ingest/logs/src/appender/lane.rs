//! One owned partition's writer: a thread that turns the requests that came in meanwhile into one write and one
//! sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use stratus_seam::crash;
use stratus_seam::offsets::{Offset, Partition};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::AppendError;
use super::tail::{Storage, Tail};
use crate::directory::DirectoryLog;

/// How many requests may wait for one partition.
const QUEUE: usize = 1024;
/// How many bytes of waiting requests go into one write.
const GROUP_BYTES: usize = 8 << 20;

/// Whole lines that want to be appended.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) text: Bytes,
    /// Gets the offset after the last line, once it is durable.
    pub(super) reply: oneshot::Sender<Result<Offset, AppendError>>,
    /// The request's share of the memory that all requests may take.
    pub(super) _memory: OwnedSemaphorePermit,
}

/// The way to one partition's thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: Partition,
    requests: Option<mpsc::Sender<Request>>,
    poisoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn start<S: Storage + 'static>(
        log: &DirectoryLog,
        partition: Partition,
        tail: Tail<S>,
    ) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let poisoned = Arc::new(AtomicBool::new(false));
        let (log, flag) = (log.clone(), Arc::clone(&poisoned));
        let thread = Builder::new()
            .name(format!("append-{partition}"))
            .spawn(move || write(&log, partition, tail, queue, &flag))?;
        Ok(Self { partition, requests: Some(requests), poisoned, thread: Some(thread) })
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), AppendError> {
        let requests = self.requests.as_ref().ok_or(AppendError::Closed)?;
        requests.send(request).await.map_err(|_| AppendError::Closed)
    }
}

impl Drop for Lane {
    /// Waits for the thread, so that nothing is written any more once the lock is given back.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(partition = self.partition, "the thread of an appender has panicked");
        }
    }
}

fn write<S: Storage>(
    log: &DirectoryLog,
    partition: Partition,
    mut tail: Tail<S>,
    mut queue: mpsc::Receiver<Request>,
    poisoned: &AtomicBool,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = first.text.len();
        let mut group = vec![first];
        while bytes < GROUP_BYTES
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.text.len();
            group.push(next);
        }
        let mut end = tail.durable();
        let texts: Vec<Bytes> = group.iter().map(|request| request.text.clone()).collect();
        let outcome = tail.append(&texts);
        crash::point("append:before-answer");
        match &outcome {
            Ok(()) => log.appends().set_durable(partition, tail.durable()),
            Err(_) => poisoned.store(tail.is_poisoned(), Ordering::Relaxed),
        }
        for request in group {
            end += request.text.len() as u64;
            // Whoever asked may have gone away; the records are there all the same.
            let _ = request.reply.send(outcome.clone().map(|()| end));
        }
    }
    if !tail.is_poisoned() {
        log.appends().release(partition);
    }
}
