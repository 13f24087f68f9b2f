//! Appending to a directory log, durably, for producers that do not write files themselves.
//!
//! A partition file belongs to the appender if a `<p>.owner` file lies beside it, and to any other program if none
//! does. With the first append the appender claims those of the declared partitions whose files do not exist; if
//! all exist, it adds a partition. So a program that writes `0.jsonl` keeps it, and a program that wants to write
//! beside the appender takes a number without an owner. Only one appender per log can be open.
//!
//! The lines of one request go to one partition, one behind the other; requests take the partitions in turn. The
//! answer comes when they are on disk. Requests that come together share a write and a sync. What was acknowledged
//! is never taken back. A request without an answer (a crash, a lost connection) may have been appended or not.

mod lane;
mod ownership;
mod tail;
mod torn;

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use stratus_seam::log::LogError;
use stratus_seam::offsets::{OffsetVector, Partition};
use tokio::sync::{Mutex, OnceCell, Semaphore, oneshot};

use crate::directory::{DirectoryLog, partition_path};
use crate::line;
use lane::{Lane, Request};
use tail::Tail;

/// How many bytes of requests may wait; further ones wait outside.
const MEMORY: usize = 64 << 20;

/// Why records were not appended, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another appender, probably of another process, has the log.
    #[error("{dir}: another process appends to this log and holds appender.lock; there can be only one")]
    Locked {
        /// The folder.
        dir: String,
    },
    /// A file could not be written. Nothing of the request is in the log; it may be sent again.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the file.
        what: String,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file is in a state that the appender does not understand, so it writes to it no more.
    #[error("{file} is not appended to any more: {why}. Look at the disk and the file, then start again")]
    Poisoned {
        /// The file.
        file: Arc<str>,
        /// What happened.
        why: Arc<str>,
    },
    /// The log itself cannot be used.
    #[error(transparent)]
    Log(Arc<LogError>),
    /// The appender is being closed.
    #[error("the appender is closed")]
    Closed,
}

impl AppendError {
    fn io(what: String, source: io::Error) -> Self {
        Self::Io { what, source: Arc::new(source) }
    }
}

/// Where a request's records are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Appended {
    /// How many records were appended.
    pub accepted: u64,
    /// The offset after the last of them, in the partition that they went to.
    pub offsets: OffsetVector,
}

/// The one that appends to a directory log. Dropping it waits for writes that are under way.
pub struct Appender {
    log: DirectoryLog,
    /// The files that were owned when the appender was opened, until their threads are started.
    recovered: Mutex<Vec<(Partition, Tail<File>)>>,
    lanes: OnceCell<Vec<Lane>>,
    turn: AtomicUsize,
    memory: Arc<Semaphore>,
    /// Declared last, so that it is given back after the threads of the lanes have ended.
    _lock: File,
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender")
            .field("dir", &self.log.dir())
            .field("lanes", &self.lanes.get())
            .finish_non_exhaustive()
    }
}

impl Appender {
    /// Opens a log for appending, and cuts lines that a crash has left half written off the owned files. Readers
    /// should use `log` or clones of it: they then see only what is durable.
    ///
    /// # Errors
    /// If another appender is open, or a file cannot be read, repaired or synced.
    pub fn open(log: &DirectoryLog) -> Result<Self, AppendError> {
        let dir = log.dir();
        let failed = |error| AppendError::io(format!("cannot open {} to append", dir.display()), error);
        let lock = ownership::lock(dir)
            .map_err(failed)?
            .ok_or_else(|| AppendError::Locked { dir: dir.display().to_string() })?;
        let mut recovered = Vec::new();
        for partition in ownership::owned(dir).map_err(failed)? {
            let tail = Tail::open(&partition_path(dir, partition))?;
            log.appends().set_durable(partition, tail.durable());
            recovered.push((partition, tail));
        }
        Ok(Self {
            log: log.clone(),
            recovered: Mutex::new(recovered),
            lanes: OnceCell::new(),
            turn: AtomicUsize::new(0),
            memory: Arc::new(Semaphore::new(MEMORY)),
            _lock: lock,
        })
    }

    /// Appends the lines of `body` as they are, without the blank ones, and returns once they are durable. Whether
    /// they are good records is not asked: a bad one becomes a dead letter.
    ///
    /// # Errors
    /// [`AppendError::Io`] and [`AppendError::Log`] if nothing was appended. After [`AppendError::Poisoned`] or
    /// [`AppendError::Closed`] the records may be in the log or not.
    pub async fn append(&self, body: Bytes) -> Result<Appended, AppendError> {
        let (text, accepted) = whole_lines(body);
        if accepted == 0 {
            return Ok(Appended { accepted, offsets: OffsetVector::zero() });
        }
        let lanes = self.lanes.get_or_try_init(|| self.start()).await?;
        let share = u32::try_from(text.len().min(MEMORY)).unwrap_or(u32::MAX);
        let memory =
            Arc::clone(&self.memory).acquire_many_owned(share).await.map_err(|_| AppendError::Closed)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = lanes.iter().cycle().skip(turn % lanes.len().max(1)).take(lanes.len());
        // If all are poisoned, the first tells why.
        let lane = in_turn.clone().find(|lane| !lane.is_poisoned()).or_else(|| in_turn.next());
        let lane = lane.ok_or(AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        lane.send(Request { text, reply, _memory: memory }).await?;
        let end = answer.await.map_err(|_| AppendError::Closed)??;
        Ok(Appended { accepted, offsets: OffsetVector::from([(lane.partition, end)]) })
    }

    /// Waits for writes that are under way, and gives the log back. Dropping does the same, but blocks.
    pub async fn close(self) {
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::error!(%error, "closing an appender failed");
        }
    }

    /// Claims partitions and starts their threads, with the first append.
    async fn start(&self) -> Result<Vec<Lane>, AppendError> {
        let mut recovered = self.recovered.lock().await;
        let owned: Vec<Partition> = recovered.iter().map(|(partition, _)| *partition).collect();
        let log = self.log.clone();
        let claimed = tokio::task::spawn_blocking(move || claim(&log, &owned)).await;
        recovered.extend(
            claimed.map_err(|error| AppendError::io("claiming partitions".to_owned(), error.into()))??,
        );
        let mut lanes = Vec::new();
        while let Some((partition, tail)) = recovered.pop() {
            let lane = Lane::start(&self.log, partition, tail).map_err(|error| {
                AppendError::io(format!("cannot start a thread for partition {partition}"), error)
            })?;
            lanes.push(lane);
        }
        lanes.sort_by_key(|lane| lane.partition);
        Ok(lanes)
    }
}

impl Drop for Appender {
    /// Files whose threads were never started are not written to any more either.
    fn drop(&mut self) {
        for (partition, _) in self.recovered.get_mut().drain(..) {
            self.log.appends().release(partition);
        }
    }
}

fn claim(log: &DirectoryLog, owned: &[Partition]) -> Result<Vec<(Partition, Tail<File>)>, AppendError> {
    let dir = log.dir();
    let declared = log.declared_partitions().map_err(|error| AppendError::Log(Arc::new(error)))?;
    let claimed = ownership::claim_free(dir, declared, owned)
        .map_err(|error| AppendError::io(format!("cannot claim a partition in {}", dir.display()), error))?;
    let mut tails = Vec::new();
    for partition in claimed {
        let tail = Tail::open(&partition_path(dir, partition))?;
        log.appends().set_durable(partition, tail.durable());
        tails.push((partition, tail));
    }
    Ok(tails)
}

/// A body as it goes into a file: no blank lines, and a newline at the end; and how many lines it has.
fn whole_lines(body: Bytes) -> (Bytes, u64) {
    let newlines = memchr::memchr_iter(b'\n', &body).count() as u64;
    let records = line::lines(&body).count() as u64;
    if newlines == records && body.ends_with(b"\n") {
        return (body, records);
    }
    let mut text = BytesMut::with_capacity(body.len() + 1);
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line::is_blank(line)) {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\n");
    }
    (text.freeze(), records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_into_a_file_whole_and_not_blank() {
        for (body, text, records) in [
            ("", "", 0),
            ("\n \n", "", 0),
            ("{}\n", "{}\n", 1),
            ("{}", "{}\n", 1),
            ("{}\r\n\r\nbad\n\n", "{}\r\nbad\n", 2),
            ("a\nb", "a\nb\n", 2),
        ] {
            let (written, counted) = whole_lines(Bytes::from_static(body.as_bytes()));
            assert_eq!((&written[..], counted), (text.as_bytes(), records), "{body:?}");
            assert_eq!(crate::lines(body.as_bytes()).count() as u64, records);
        }
    }
}
