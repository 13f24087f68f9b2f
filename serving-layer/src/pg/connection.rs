//! One client's connection: its messages in their order, and the statements of the simple protocol.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use pgwire::messages::PgWireBackendMessage as Reply;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ReadyForQuery};
use pgwire::messages::startup::ParameterStatus;
use stratus_sql::SqlError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::backends::Backend;
use super::catalog;
use super::command::Command;
use super::errors::{Gravity, error, notice, placed};
use super::extended::{Portal, Prepared};
use super::lexer::{self, Piece};
use super::messages::{self, Message, NOT_UTF8};
use super::rows::{Formats, Rows};
use super::settings::Parameters;
use super::transaction::Transaction;
use super::wire::{Interrupt, Phase, Watch, Wire};
use super::work::{Event, Job, Running};
use crate::service::{Notice, SqlSession};

/// A connection after its startup.
pub(crate) struct Connection {
    pub(super) wire: Wire,
    pub(super) session: Arc<dyn SqlSession>,
    pub(super) queries: Handle,
    pub(super) backend: Backend,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) parameters: Parameters,
    pub(super) transaction: Transaction,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    /// Something of the extended protocol has failed: what follows is skipped up to the next `Sync`.
    skipping: bool,
    /// Messages of the extended protocol have come, and their `Sync` has not.
    in_series: bool,
}

/// Why something could not be carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The statement has failed; the connection goes on.
    Statement(SqlError),
    /// The connection ends, with an error if the client is still there to be told.
    Connection(Option<SqlError>),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Statement(error)
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Connection(None)
    }
}

impl From<Interrupt> for Failure {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Cancelled | Interrupt::TimedOut => Self::Statement(interrupt.error()),
            Interrupt::Ending => Self::Connection(Some(interrupt.error())),
            Interrupt::Gone => Self::Connection(None),
        }
    }
}

impl Failure {
    /// The failure with its place in the client's text.
    pub(super) fn placed(self, before: Option<usize>) -> Self {
        match self {
            Self::Statement(error) => Self::Statement(placed(error, before)),
            Self::Connection(_) => self,
        }
    }
}

/// What the engine is given of a statement, and how many characters stand before it, if it is the client's own text.
pub(super) fn engine_text(piece: &Piece) -> (String, Option<usize>) {
    match catalog::translate(piece) {
        Some(translated) => (translated, None),
        None => (piece.text.clone(), Some(piece.offset)),
    }
}

/// Whether rows are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The statement is complete.
    Complete,
    /// The client has asked for no more rows for now.
    Suspended,
}

impl Connection {
    /// A connection whose client has been let in.
    pub(crate) fn new(
        wire: Wire,
        session: Arc<dyn SqlSession>,
        queries: Handle,
        backend: Backend,
        phase: watch::Receiver<Phase>,
        parameters: Parameters,
    ) -> Self {
        Self {
            wire,
            session,
            queries,
            backend,
            phase,
            parameters,
            transaction: Transaction::default(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            in_series: false,
        }
    }

    /// Serves the client until one of the two has enough.
    pub(crate) async fn run(mut self) {
        let reason = loop {
            if let Err(Failure::Connection(reason)) = self.step().await {
                break reason;
            }
        };
        if let Some(reason) = reason {
            self.wire.close_with(&reason).await;
        }
    }

    /// One message. A failed statement has been told to the client already.
    async fn step(&mut self) -> Result<(), Failure> {
        let message = self.next_message().await?;
        if self.skipping && !matches!(message, Message::Sync | Message::Terminate) {
            return Ok(());
        }
        match message {
            Message::Query(text) => self.query(&text).await,
            Message::Sync => {
                self.skipping = false;
                self.in_series = false;
                if !self.transaction.is_block() {
                    self.portals.clear();
                }
                self.ready().await
            }
            Message::Terminate => Err(Failure::Connection(None)),
            Message::Garbled { in_series: false } => {
                self.wire.send_error(&not_utf8(), Gravity::Error)?;
                self.transaction.fail();
                self.ready().await
            }
            Message::Flush => Ok(self.wire.flush().await?),
            // The rest of a COPY that was refused.
            Message::Unasked => Ok(()),
            message => {
                self.in_series = true;
                match self.extended(message).await {
                    Err(Failure::Statement(failed)) => {
                        self.wire.send_error(&failed, Gravity::Error)?;
                        self.transaction.fail();
                        self.portals.clear();
                        self.skipping = true;
                        Ok(self.wire.flush().await?)
                    }
                    done => done,
                }
            }
        }
    }

    async fn next_message(&mut self) -> Result<Message, Failure> {
        loop {
            let phase = *self.phase.borrow();
            if phase == Phase::Ending || (phase == Phase::Draining && !self.in_series) {
                return Err(Interrupt::Ending.into());
            }
            match messages::message(&mut self.wire.inbound) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(malformed) => return Err(Failure::Connection(Some(malformed))),
            }
            tokio::select! {
                changed = self.phase.changed() => {
                    if changed.is_err() {
                        return Err(Interrupt::Ending.into());
                    }
                }
                received = self.wire.receive() => {
                    if !received? {
                        return Err(Failure::Connection(None));
                    }
                }
            }
        }
    }

    /// Tells the client what has changed and that it may go on.
    async fn ready(&mut self) -> Result<(), Failure> {
        for (name, value) in self.parameters.news() {
            self.wire.send(&Reply::ParameterStatus(ParameterStatus::new(name.to_owned(), value)))?;
        }
        let status = self.transaction.status();
        self.wire.send(&Reply::ReadyForQuery(ReadyForQuery::new(status)))?;
        Ok(self.wire.flush().await?)
    }

    /// A text of the simple protocol: its statements in their order, up to the first that fails.
    async fn query(&mut self, text: &str) -> Result<(), Failure> {
        self.statements.remove("");
        self.portals.remove("");
        match lexer::split(text) {
            Err((message, position)) => {
                let mut unclosed = error("42601", message);
                unclosed.position = Some(position);
                self.wire.send_error(&unclosed, Gravity::Error)?;
                self.transaction.fail();
            }
            Ok(pieces) if pieces.is_empty() => {
                self.wire.send(&Reply::EmptyQueryResponse(EmptyQueryResponse::new()))?;
            }
            Ok(pieces) => {
                for piece in pieces {
                    match self.statement(&piece).await {
                        Err(Failure::Statement(failed)) => {
                            self.wire.send_error(&failed, Gravity::Error)?;
                            self.transaction.fail();
                            self.portals.clear();
                            break;
                        }
                        done => done?,
                    }
                }
            }
        }
        self.ready().await
    }

    async fn statement(&mut self, piece: &Piece) -> Result<(), Failure> {
        let command = Command::of(piece).map_err(|wrong| placed(wrong, Some(piece.offset)))?;
        let Command::Engine { verb } = command else {
            let done = self.session_command(&command)?;
            if let Some(batch) = &done.rows {
                let columns = Formats::text().describe(&batch.schema());
                self.wire.send(&Reply::RowDescription(columns))?;
            }
            return self.send_done(done, &Formats::text());
        };
        self.transaction.refuse_if_failed()?;
        let mut watch = self.watch();
        let (text, before) = engine_text(piece);
        let job = Job { text, parameters: Vec::new(), formats: Formats::text(), promised: None };
        let mut running = Running::start(&self.queries, Arc::clone(&self.session), job);
        let answered = self.answer(&mut running, &mut Rows::default(), &verb, 0, true, &mut watch).await;
        answered.map(|_| ()).map_err(|failure| failure.placed(before))
    }

    /// Begins to watch for what may interrupt a statement.
    pub(super) fn watch(&self) -> Watch {
        Watch::new(&self.backend.cancelled, self.parameters.statement_timeout(), &self.phase)
    }

    /// Passes on what a running statement gives, at most `limit` rows (0: all). `rest` has rows that were computed
    /// and not yet asked for. `describe` is whether the columns are sent first.
    pub(super) async fn answer(
        &mut self,
        running: &mut Running,
        rest: &mut Rows,
        verb: &str,
        limit: usize,
        describe: bool,
        watch: &mut Watch,
    ) -> Result<Progress, Failure> {
        let mut sent = 0;
        loop {
            if !rest.is_empty() {
                let rows = rest.split_to(if limit == 0 { usize::MAX } else { limit - sent });
                sent += rows.len();
                self.wire.send_bytes(rows.bytes());
                if self.wire.is_full() {
                    self.wire.flush_watched(watch).await?;
                }
                if sent == limit {
                    return Ok(Progress::Suspended);
                }
            }
            match self.wire.watched(watch, running.next()).await? {
                Event::Columns(columns, notices) => {
                    self.send_notices(&notices)?;
                    if describe {
                        self.wire.send(&Reply::RowDescription(Formats::text().describe(&columns)))?;
                    }
                }
                Event::Rows(rows) => *rest = rows,
                Event::End => {
                    self.complete(&rows_tag(verb, sent))?;
                    return Ok(Progress::Complete);
                }
                Event::Done(tag, mut notices) => {
                    if self.transaction.is_block() {
                        let message = format!("{tag} has taken effect: a ROLLBACK will not undo it");
                        notices.push(Notice::warning("01000", message));
                    }
                    self.send_notices(&notices)?;
                    self.complete(&tag)?;
                    return Ok(Progress::Complete);
                }
                Event::Failed(failed) => return Err(failed.into()),
            }
        }
    }

    pub(super) fn send_notices(&mut self, notices: &[Notice]) -> io::Result<()> {
        notices.iter().try_for_each(|told| self.wire.send(&Reply::NoticeResponse(notice(told))))
    }

    pub(super) fn complete(&mut self, tag: &str) -> io::Result<()> {
        self.wire.send(&Reply::CommandComplete(CommandComplete::new(tag.to_owned())))
    }
}

fn not_utf8() -> SqlError {
    error(NOT_UTF8, "invalid byte sequence for encoding \"UTF8\"")
}

/// The completion of a statement that gave rows.
pub(crate) fn rows_tag(verb: &str, rows: usize) -> String {
    match verb {
        "explain" => "EXPLAIN".to_owned(),
        "show" => "SHOW".to_owned(),
        _ => format!("SELECT {rows}"),
    }
}
