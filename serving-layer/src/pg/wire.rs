//! The two directions of a connection's socket, and how a statement is watched while the socket is in use.
//!
//! While a statement computes or its rows are written, the connection also listens: for a cancel request, for the
//! end of the statement's time, for the end of the server, and for the end of the client, which shows only in what
//! can be read. What the client sends meanwhile is kept for later.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use stratus_sql::SqlError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};
use tokio::time::Sleep;

use super::errors::{Gravity, error, response};

/// What is written at once; beyond it, rows wait for the client.
const OUTBOUND_BYTES: usize = 64 << 10;
/// What a client may send ahead while a statement runs; beyond it, it waits.
const AHEAD_BYTES: usize = 1 << 20;

/// How far the server is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves.
    Serving,
    /// Statements that run may finish; nothing new begins.
    Draining,
    /// Everything ends now.
    Ending,
}

/// Why a statement, or the connection, must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The client has asked for it.
    Cancelled,
    /// Its time is over.
    TimedOut,
    /// The server ends.
    Ending,
    /// The client is gone.
    Gone,
}

impl Interrupt {
    /// The error that the client is told, if it still is there to be told.
    pub(crate) fn error(self) -> SqlError {
        match self {
            Self::Cancelled => error("57014", "canceling statement due to user request"),
            Self::TimedOut => error("57014", "canceling statement due to statement timeout"),
            Self::Ending => error("57P01", "terminating connection because the server shuts down"),
            Self::Gone => error("08006", "the client has closed the connection"),
        }
    }
}

/// What can interrupt one statement.
#[derive(Debug)]
pub(crate) struct Watch {
    cancelled: Pin<Box<OwnedNotified>>,
    timeout: Option<Pin<Box<Sleep>>>,
    phase: watch::Receiver<Phase>,
}

impl Watch {
    /// Begins to watch: a cancel request from now on counts.
    pub(crate) fn new(
        cancelled: &Arc<Notify>,
        timeout: Option<Duration>,
        phase: &watch::Receiver<Phase>,
    ) -> Self {
        let mut cancelled = Box::pin(Arc::clone(cancelled).notified_owned());
        cancelled.as_mut().enable();
        let timeout = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        Self { cancelled, timeout, phase: phase.clone() }
    }

    async fn interrupted(&mut self) -> Interrupt {
        let timeout = async {
            match &mut self.timeout {
                Some(timeout) => timeout.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let ending = async {
            // A sender that is gone means that the listener was dropped without its shutdown: the same end.
            let _ = self.phase.wait_for(|phase| *phase == Phase::Ending).await;
        };
        tokio::select! {
            () = self.cancelled.as_mut() => Interrupt::Cancelled,
            () = timeout => Interrupt::TimedOut,
            () = ending => Interrupt::Ending,
        }
    }
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Wire {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// What was received and not yet taken.
    pub(crate) inbound: BytesMut,
    outbound: BytesMut,
}

impl Wire {
    /// Takes over a socket.
    ///
    /// # Errors
    /// If the socket is no longer good.
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let (reader, writer) = socket.into_split();
        Ok(Self { reader, writer, inbound: BytesMut::new(), outbound: BytesMut::new() })
    }

    /// Receives more; false at the end. Nothing is lost if this is dropped.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(crate) async fn receive(&mut self) -> io::Result<bool> {
        Ok(self.reader.read_buf(&mut self.inbound).await? > 0)
    }

    /// Puts a message into the queue.
    ///
    /// # Errors
    /// If the message is larger than the protocol allows.
    pub(crate) fn send(&mut self, message: &PgWireBackendMessage) -> io::Result<()> {
        // A message that fails half-way must leave nothing behind.
        let before = self.outbound.len();
        message.encode(&mut self.outbound).map_err(|cause| {
            self.outbound.truncate(before);
            io::Error::other(cause)
        })
    }

    /// Puts bytes into the queue that are whole messages already.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.outbound.extend_from_slice(bytes);
    }

    /// Puts an error into the queue.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_error(&mut self, error: &SqlError, gravity: Gravity) -> io::Result<()> {
        self.send(&PgWireBackendMessage::ErrorResponse(response(error, gravity)))
    }

    /// Whether the queue is so long that it should be written before more is put into it.
    pub(crate) fn is_full(&self) -> bool {
        self.outbound.len() >= OUTBOUND_BYTES
    }

    /// Writes the queue.
    ///
    /// # Errors
    /// If the connection is broken.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all_buf(&mut self.outbound).await?;
        self.writer.flush().await
    }

    /// Writes the queue, unless the statement is interrupted; what is left of it then stays in the queue.
    ///
    /// # Errors
    /// The interrupt.
    pub(crate) async fn flush_watched(&mut self, watch: &mut Watch) -> Result<(), Interrupt> {
        let Self { reader, writer, inbound, outbound } = self;
        let written = watched(reader, inbound, watch, writer.write_all_buf(outbound)).await?;
        written.map_err(|_| Interrupt::Gone)
    }

    /// Waits for a piece of work, unless the statement is interrupted.
    ///
    /// # Errors
    /// The interrupt; the work is dropped.
    pub(crate) async fn watched<F: Future>(
        &mut self,
        watch: &mut Watch,
        work: F,
    ) -> Result<F::Output, Interrupt> {
        watched(&mut self.reader, &mut self.inbound, watch, work).await
    }

    /// Ends the connection with an error, as far as the client takes it in a second.
    pub(crate) async fn close_with(mut self, error: &SqlError) {
        if self.send_error(error, Gravity::Fatal).is_ok() {
            let goodbye = async {
                self.flush().await?;
                self.writer.shutdown().await
            };
            // A client that does not read has nothing to lose.
            let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
        }
    }
}

async fn watched<F: Future>(
    reader: &mut OwnedReadHalf,
    inbound: &mut BytesMut,
    watch: &mut Watch,
    work: F,
) -> Result<F::Output, Interrupt> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            interrupt = watch.interrupted() => return Err(interrupt),
            output = &mut work => return Ok(output),
            received = reader.read_buf(inbound), if inbound.len() < AHEAD_BYTES => {
                if !matches!(received, Ok(bytes) if bytes > 0) {
                    return Err(Interrupt::Gone);
                }
            }
        }
    }
}
