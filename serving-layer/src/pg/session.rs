//! The statements that a connection answers itself: transactions, parameters, prepared statements.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use stratus_sql::SqlError;

use super::command::Command;
use super::connection::{Connection, Failure};
use super::errors::error;
use super::rows::{BatchRows, Formats};
use super::transaction::Outcome;
use crate::service::Notice;

/// What such a statement gave.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its completion.
    pub(crate) tag: &'static str,
    /// Its rows, if it is one that shows something.
    pub(crate) rows: Option<RecordBatch>,
    /// What there is to say about it.
    pub(crate) notice: Option<Notice>,
}

impl Done {
    fn tag(tag: &'static str) -> Self {
        Self { tag, rows: None, notice: None }
    }
}

/// The columns that a statement of the connection's own shows, if it shows any.
pub(crate) fn columns(command: &Command, spelled: impl Fn(&str) -> String) -> Option<SchemaRef> {
    let names = match command {
        Command::Show(Some(name)) => vec![spelled(name)],
        Command::Show(None) => ["name", "setting", "description"].map(str::to_owned).to_vec(),
        _ => return None,
    };
    let fields = names.into_iter().map(|name| Field::new(name, DataType::Utf8, true));
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

impl Connection {
    /// Carries out a statement of the connection's own.
    pub(super) fn session_command(&mut self, command: &Command) -> Result<Done, SqlError> {
        if !matches!(command, Command::Commit { .. } | Command::Rollback { .. } | Command::RollbackTo(_)) {
            self.transaction.refuse_if_failed()?;
        }
        match command {
            Command::Begin
            | Command::Commit { .. }
            | Command::Rollback { .. }
            | Command::Savepoint(_)
            | Command::RollbackTo(_)
            | Command::Release(_) => {
                let (tag, notice) = self.transaction_command(command)?;
                Ok(Done { tag, rows: None, notice })
            }
            Command::Set { local, name, value } => {
                let notice = self.parameters.set(*local, name, value.as_deref())?;
                Ok(Done { tag: "SET", rows: None, notice })
            }
            Command::SetTransaction => Ok(Done::tag("SET")),
            Command::Reset(name) => {
                self.parameters.reset(name.as_deref())?;
                Ok(Done::tag("RESET"))
            }
            Command::Show(name) => self.show(command, name.as_deref()),
            Command::Discard { all } => {
                if *all {
                    if self.transaction.is_block() {
                        return Err(error("25001", "DISCARD ALL cannot run inside a transaction block"));
                    }
                    self.parameters.reset(None)?;
                    self.portals.clear();
                    self.statements.clear();
                    return Ok(Done::tag("DISCARD ALL"));
                }
                Ok(Done::tag("DISCARD"))
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                Ok(Done::tag("DEALLOCATE ALL"))
            }
            Command::Deallocate(Some(name)) => match self.statements.remove(name) {
                Some(_) => Ok(Done::tag("DEALLOCATE")),
                None => Err(error("26000", format!("prepared statement \"{name}\" does not exist"))),
            },
            Command::Nothing(tag) => Ok(Done::tag(tag)),
            Command::Engine { verb } => {
                Err(error("XX000", format!("{verb} is not a command of the connection")))
            }
        }
    }

    /// Sends what such a statement gave, without the description of its columns.
    pub(super) fn send_done(&mut self, done: Done, formats: &Formats) -> Result<(), Failure> {
        self.send_notices(done.notice.as_slice())?;
        if let Some(batch) = done.rows {
            let mut rows = BatchRows::new(&batch.schema(), &batch, formats)?;
            while let Some(rows) = rows.next_rows()? {
                self.wire.send_bytes(rows.bytes());
            }
        }
        Ok(self.complete(done.tag)?)
    }

    fn transaction_command(&mut self, command: &Command) -> Outcome {
        let was_block = self.transaction.is_block();
        let outcome = match command {
            Command::Begin => self.transaction.begin()?,
            Command::Commit { chain } => self.transaction.commit(*chain)?,
            Command::Rollback { chain } => self.transaction.rollback(*chain)?,
            Command::Savepoint(name) => self.transaction.savepoint(name.clone())?,
            Command::RollbackTo(name) => self.transaction.rollback_to(name)?,
            Command::Release(name) => self.transaction.release(name)?,
            _ => return Err(error("XX000", "not a transaction command")),
        };
        if was_block && matches!(command, Command::Commit { .. } | Command::Rollback { .. }) {
            self.portals.clear();
            self.parameters.end(outcome.0 == "COMMIT");
            if self.transaction.is_block() {
                self.parameters.begin();
            }
        } else if !was_block && self.transaction.is_block() {
            self.parameters.begin();
        }
        Ok(outcome)
    }

    fn show(&self, command: &Command, name: Option<&str>) -> Result<Done, SqlError> {
        let values: Vec<ArrayRef> = match name {
            Some(name) => vec![Arc::new(StringArray::from(vec![self.parameters.show(name)?.1]))],
            None => {
                let (names, settings): (Vec<_>, Vec<_>) = self.parameters.show_all().into_iter().unzip();
                let descriptions = StringArray::new_null(names.len());
                vec![
                    Arc::new(StringArray::from(names)),
                    Arc::new(StringArray::from(settings)),
                    Arc::new(descriptions),
                ]
            }
        };
        let columns =
            columns(command, |name| self.spelled(name)).unwrap_or_else(|| Arc::new(Schema::empty()));
        let rows = RecordBatch::try_new(columns, values).map_err(|e| error("XX000", e.to_string()))?;
        Ok(Done { tag: "SHOW", rows: Some(rows), notice: None })
    }

    /// A parameter's name as it is spelled.
    pub(super) fn spelled(&self, name: &str) -> String {
        self.parameters.show(name).map_or_else(|_| name.to_owned(), |(spelled, _)| spelled)
    }
}
