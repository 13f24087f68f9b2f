//! The extended protocol: statements that are prepared once and run with values, in portions of rows.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use pgwire::messages::PgWireBackendMessage as Reply;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::EmptyQueryResponse;
use stratus_sql::SqlError;

use super::arguments::{plain, told_type, value};
use super::command::Command;
use super::connection::{Connection, Failure, Progress, engine_text, rows_tag};
use super::errors::{error, placed};
use super::lexer::{self, Piece};
use super::messages::{Message, NOT_UTF8, Target};
use super::rows::{Formats, Rows};
use super::session;
use super::types::parameter_type;
use super::work::{Job, Running, Task};
use crate::service::Described;

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What it does; nothing if its text is empty.
    command: Option<Command>,
    /// What the engine is given.
    text: String,
    /// How many characters of the client's text stand before it, if it is the client's own.
    before: Option<usize>,
    /// The type id of each parameter, as the client is told it.
    told: Vec<u32>,
    /// The type of each parameter, as the engine wants it.
    wanted: Vec<DataType>,
    /// The columns of its answer, if it has any.
    columns: Option<SchemaRef>,
}

/// A prepared statement with values, and how far it has been run.
#[derive(Debug)]
pub(crate) struct Portal {
    statement: Arc<Prepared>,
    parameters: Vec<ScalarValue>,
    formats: Formats,
    state: State,
}

#[derive(Debug)]
enum State {
    Fresh,
    Suspended(Running, Rows),
    Complete,
}

impl Connection {
    /// One message of the extended protocol, other than `Sync`.
    pub(super) async fn extended(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Parse { name, text, types } => self.parse(name, &text, types).await,
            Message::Bind { portal, statement, formats, values, results } => {
                self.bind(portal, &statement, &formats, &values, results)
            }
            Message::Describe(Target::Statement(name)) => {
                let statement = self.statement_named(&name)?;
                let types = statement.told.clone();
                self.wire.send(&Reply::ParameterDescription(ParameterDescription::new(types)))?;
                self.describe(statement.columns.as_ref(), &Formats::text())
            }
            Message::Describe(Target::Portal(name)) => {
                let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
                let (columns, formats) = (portal.statement.columns.clone(), portal.formats.clone());
                self.describe(columns.as_ref(), &formats)
            }
            Message::Execute { portal, rows } => self.execute(&portal, rows).await,
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.statements.remove(&name)),
                    Target::Portal(name) => drop(self.portals.remove(&name)),
                }
                Ok(self.wire.send(&Reply::CloseComplete(CloseComplete::new()))?)
            }
            _ => Err(error(NOT_UTF8, "invalid byte sequence for encoding \"UTF8\"").into()),
        }
    }

    fn statement_named(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        let missing = || error("26000", format!("prepared statement \"{name}\" does not exist"));
        self.statements.get(name).cloned().ok_or_else(missing)
    }

    async fn parse(&mut self, name: String, text: &str, declared: Vec<u32>) -> Result<(), Failure> {
        if name.is_empty() {
            self.statements.remove(&name);
        } else if self.statements.contains_key(&name) {
            return Err(error("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        let mut pieces = lexer::split(text).map_err(|(message, position)| {
            let mut unclosed = error("42601", message);
            unclosed.position = Some(position);
            unclosed
        })?;
        if pieces.len() > 1 {
            return Err(error("42601", "cannot insert multiple commands into a prepared statement").into());
        }
        let statement = match pieces.pop() {
            None => Prepared {
                command: None,
                text: String::new(),
                before: None,
                told: declared,
                wanted: Vec::new(),
                columns: None,
            },
            Some(piece) => self.prepare(&piece, declared).await?,
        };
        self.statements.insert(name, Arc::new(statement));
        Ok(self.wire.send(&Reply::ParseComplete(ParseComplete::new()))?)
    }

    async fn prepare(&mut self, piece: &Piece, declared: Vec<u32>) -> Result<Prepared, Failure> {
        let command = Command::of(piece).map_err(|wrong| placed(wrong, Some(piece.offset)))?;
        self.refuse_in_failed_transaction(Some(&command))?;
        if !matches!(command, Command::Engine { .. }) {
            let columns = session::columns(&command, |name| self.spelled(name));
            return Ok(Prepared {
                command: Some(command),
                text: String::new(),
                before: None,
                told: Vec::new(),
                wanted: Vec::new(),
                columns,
            });
        }
        let (text, before) = engine_text(piece);
        let hints: Vec<Option<DataType>> = declared.iter().map(|oid| parameter_type(*oid)).collect();
        let session = Arc::clone(&self.session);
        let asked = text.clone();
        let described = Task::start(&self.queries, async move { session.describe(&asked, &hints).await });
        let mut watch = self.watch();
        let described = self.wire.watched(&mut watch, described).await??;
        let Described { parameters, columns } = described.map_err(|wrong| placed(wrong, before))?;
        let wanted: Vec<DataType> = parameters.into_iter().map(plain).collect();
        let declared_at = |at: usize| declared.get(at).copied().unwrap_or(0);
        let told = wanted.iter().enumerate().map(|(at, kind)| told_type(declared_at(at), kind)).collect();
        Ok(Prepared { command: Some(command), text, before, told, wanted, columns })
    }

    /// In a failed transaction only its end is taken.
    fn refuse_in_failed_transaction(&self, command: Option<&Command>) -> Result<(), SqlError> {
        match command {
            None | Some(Command::Commit { .. } | Command::Rollback { .. } | Command::RollbackTo(_)) => Ok(()),
            Some(_) => self.transaction.refuse_if_failed(),
        }
    }

    fn bind(
        &mut self,
        portal: String,
        statement: &str,
        formats: &[i16],
        values: &[Option<Bytes>],
        results: Vec<i16>,
    ) -> Result<(), Failure> {
        let name = statement;
        let statement = self.statement_named(name)?;
        self.refuse_in_failed_transaction(statement.command.as_ref())?;
        let needed = statement.wanted.len();
        if values.len() != needed {
            let given = values.len();
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {needed}"
            );
            return Err(error("08P01", message).into());
        }
        if formats.len() > 1 && formats.len() != values.len() {
            let (given, needed) = (formats.len(), values.len());
            let message = format!("bind message has {given} parameter formats but {needed} parameters");
            return Err(error("08P01", message).into());
        }
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(error("42P03", format!("portal \"{portal}\" already exists")).into());
        }
        let format = |at: usize| formats.get(if formats.len() == 1 { 0 } else { at }).copied().unwrap_or(0);
        if let Some(unknown) = formats.iter().find(|code| !matches!(code, 0 | 1)) {
            return Err(error("08P01", format!("unsupported format code: {unknown}")).into());
        }
        let kinds = statement.told.iter().zip(&statement.wanted);
        let parameters =
            values.iter().zip(kinds).enumerate().map(|(at, (bytes, (told, wanted)))| {
                value(at + 1, bytes.as_deref(), format(at), *told, wanted)
            });
        let parameters = parameters.collect::<Result<Vec<_>, _>>()?;
        let formats = Formats::asked(results)?;
        if let Some(columns) = &statement.columns {
            formats.check(columns.fields().len())?;
        }
        self.portals.insert(portal, Portal { statement, parameters, formats, state: State::Fresh });
        Ok(self.wire.send(&Reply::BindComplete(BindComplete::new()))?)
    }

    fn describe(&mut self, columns: Option<&SchemaRef>, formats: &Formats) -> Result<(), Failure> {
        let reply = match columns {
            Some(columns) => Reply::RowDescription(formats.describe(columns)),
            None => Reply::NoData(NoData::new()),
        };
        Ok(self.wire.send(&reply)?)
    }

    async fn execute(&mut self, name: &str, rows: u32) -> Result<(), Failure> {
        // The portal is taken out while it runs: if it fails it is gone, as in PostgreSQL.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let statement = Arc::clone(&portal.statement);
        self.refuse_in_failed_transaction(statement.command.as_ref())?;
        match &statement.command {
            None => self.wire.send(&Reply::EmptyQueryResponse(EmptyQueryResponse::new()))?,
            Some(Command::Engine { verb }) => {
                let limit = usize::try_from(rows).unwrap_or(usize::MAX);
                self.execute_on_engine(name, &mut portal, verb, limit).await?;
            }
            Some(command) => {
                if matches!(portal.state, State::Complete) {
                    return Err(cannot_run(name).into());
                }
                let done = self.session_command(command)?;
                self.send_done(done, &portal.formats)?;
                portal.state = State::Complete;
            }
        }
        // The end of a transaction has closed its portals, this one too.
        let ended = matches!(statement.command, Some(Command::Commit { .. } | Command::Rollback { .. }));
        if !ended {
            self.portals.insert(name.to_owned(), portal);
        }
        if self.wire.is_full() {
            self.wire.flush().await?;
        }
        Ok(())
    }

    async fn execute_on_engine(
        &mut self,
        name: &str,
        portal: &mut Portal,
        verb: &str,
        limit: usize,
    ) -> Result<(), Failure> {
        let (mut running, mut rest) = match std::mem::replace(&mut portal.state, State::Complete) {
            State::Fresh => {
                let job = Job {
                    text: portal.statement.text.clone(),
                    parameters: portal.parameters.clone(),
                    formats: portal.formats.clone(),
                    promised: portal.statement.columns.clone(),
                };
                (Running::start(&self.queries, Arc::clone(&self.session), job), Rows::default())
            }
            State::Suspended(running, rest) => (running, rest),
            State::Complete if portal.statement.columns.is_some() => {
                return Ok(self.complete(&rows_tag(verb, 0))?);
            }
            State::Complete => return Err(cannot_run(name).into()),
        };
        let mut watch = self.watch();
        let answered = self.answer(&mut running, &mut rest, verb, limit, false, &mut watch).await;
        match answered.map_err(|failure| failure.placed(portal.statement.before))? {
            Progress::Complete => Ok(()),
            Progress::Suspended => {
                portal.state = State::Suspended(running, rest);
                Ok(self.wire.send(&Reply::PortalSuspended(PortalSuspended::new()))?)
            }
        }
    }
}

fn no_portal(name: &str) -> SqlError {
    error("34000", format!("portal \"{name}\" does not exist"))
}

fn cannot_run(name: &str) -> SqlError {
    error("55000", format!("portal \"{name}\" cannot be run"))
}
