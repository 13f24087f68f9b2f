//! Where a connection stands in its transaction.
//!
//! Each statement is answered from its own snapshot and nothing is written, so a transaction holds nothing: but
//! drivers open one around everything, and rely on a failed one refusing further statements.

use pgwire::messages::response::TransactionStatus;
use stratus_sql::SqlError;

use super::errors::error;
use crate::service::Notice;

/// The state of a connection's transaction: a pure machine over the transaction commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// None is open.
    #[default]
    Idle,
    /// One is open, with these savepoints.
    Open(Vec<String>),
    /// One has failed, with these savepoints, and waits for its end.
    Failed(Vec<String>),
}

/// How a transaction command went: its tag, and a warning.
pub(crate) type Outcome = Result<(&'static str, Option<Notice>), SqlError>;

impl Transaction {
    /// What the client is told after each statement.
    pub(crate) fn status(&self) -> TransactionStatus {
        match self {
            Self::Idle => TransactionStatus::Idle,
            Self::Open(_) => TransactionStatus::Transaction,
            Self::Failed(_) => TransactionStatus::Error,
        }
    }

    /// Whether a transaction block is open, failed or not.
    pub(crate) fn is_block(&self) -> bool {
        *self != Self::Idle
    }

    /// A statement has failed.
    pub(crate) fn fail(&mut self) {
        if let Self::Open(savepoints) = self {
            *self = Self::Failed(std::mem::take(savepoints));
        }
    }

    /// Refuses any statement but an end of the transaction once it has failed.
    ///
    /// # Errors
    /// 25P02.
    pub(crate) fn refuse_if_failed(&self) -> Result<(), SqlError> {
        match self {
            Self::Failed(_) => Err(error(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            Self::Idle | Self::Open(_) => Ok(()),
        }
    }

    /// `BEGIN`
    ///
    /// # Errors
    /// 25P02 in a failed transaction.
    pub(crate) fn begin(&mut self) -> Outcome {
        self.refuse_if_failed()?;
        if self.is_block() {
            let warning = Notice::warning("25001", "there is already a transaction in progress");
            return Ok(("BEGIN", Some(warning)));
        }
        *self = Self::Open(Vec::new());
        Ok(("BEGIN", None))
    }

    /// `COMMIT`: of a failed transaction it is a rollback, and says so.
    ///
    /// # Errors
    /// 25P01 for `AND CHAIN` without a transaction.
    pub(crate) fn commit(&mut self, chain: bool) -> Outcome {
        let tag = if matches!(self, Self::Failed(_)) { "ROLLBACK" } else { "COMMIT" };
        self.end(tag, chain)
    }

    /// `ROLLBACK`
    ///
    /// # Errors
    /// 25P01 for `AND CHAIN` without a transaction.
    pub(crate) fn rollback(&mut self, chain: bool) -> Outcome {
        self.end("ROLLBACK", chain)
    }

    fn end(&mut self, tag: &'static str, chain: bool) -> Outcome {
        if !self.is_block() {
            if chain {
                return Err(error(
                    "25P01",
                    format!("{tag} AND CHAIN can only be used in transaction blocks"),
                ));
            }
            return Ok((tag, Some(Notice::warning("25P01", "there is no transaction in progress"))));
        }
        *self = if chain { Self::Open(Vec::new()) } else { Self::Idle };
        Ok((tag, None))
    }

    /// `SAVEPOINT name`
    ///
    /// # Errors
    /// 25P01 outside a transaction, 25P02 in a failed one.
    pub(crate) fn savepoint(&mut self, name: String) -> Outcome {
        self.refuse_if_failed()?;
        match self {
            Self::Open(savepoints) => {
                savepoints.push(name);
                Ok(("SAVEPOINT", None))
            }
            Self::Idle | Self::Failed(_) => Err(outside("SAVEPOINT")),
        }
    }

    /// `RELEASE name`: forgets it and those after it.
    ///
    /// # Errors
    /// 3B001 if there is none of this name, 25P01 outside a transaction, 25P02 in a failed one.
    pub(crate) fn release(&mut self, name: &str) -> Outcome {
        self.refuse_if_failed()?;
        match self {
            Self::Open(savepoints) => {
                let at = position(savepoints, name)?;
                savepoints.truncate(at);
                Ok(("RELEASE", None))
            }
            Self::Idle | Self::Failed(_) => Err(outside("RELEASE SAVEPOINT")),
        }
    }

    /// `ROLLBACK TO name`: forgets the ones after it, and mends a failed transaction.
    ///
    /// # Errors
    /// 3B001 if there is none of this name, 25P01 outside a transaction.
    pub(crate) fn rollback_to(&mut self, name: &str) -> Outcome {
        match self {
            Self::Idle => Err(outside("ROLLBACK TO SAVEPOINT")),
            Self::Open(savepoints) | Self::Failed(savepoints) => {
                let at = position(savepoints, name)?;
                savepoints.truncate(at + 1);
                *self = Self::Open(std::mem::take(savepoints));
                Ok(("ROLLBACK", None))
            }
        }
    }
}

fn outside(command: &str) -> SqlError {
    error("25P01", format!("{command} can only be used in transaction blocks"))
}

fn position(savepoints: &[String], name: &str) -> Result<usize, SqlError> {
    let found = savepoints.iter().rposition(|savepoint| savepoint == name);
    found.ok_or_else(|| error("3B001", format!("savepoint \"{name}\" does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_refuses_all_but_its_end() {
        let mut transaction = Transaction::default();
        transaction.fail();
        assert_eq!(transaction, Transaction::Idle, "a statement outside a block fails alone");
        transaction.begin().unwrap();
        transaction.fail();
        assert_eq!(transaction.status(), TransactionStatus::Error);
        assert_eq!(transaction.refuse_if_failed().unwrap_err().sqlstate, "25P02");
        assert_eq!(transaction.begin().unwrap_err().sqlstate, "25P02");
        assert_eq!(transaction.savepoint("a".into()).unwrap_err().sqlstate, "25P02");
        assert_eq!(transaction.commit(false).unwrap().0, "ROLLBACK");
        assert_eq!(transaction.status(), TransactionStatus::Idle);
    }

    #[test]
    fn a_savepoint_mends_a_failed_transaction() {
        let mut transaction = Transaction::default();
        transaction.begin().unwrap();
        for name in ["a", "b", "a", "c"] {
            transaction.savepoint(name.into()).unwrap();
        }
        transaction.fail();
        assert_eq!(transaction.rollback_to("x").unwrap_err().sqlstate, "3B001");
        assert_eq!(transaction.status(), TransactionStatus::Error);
        transaction.rollback_to("a").unwrap();
        assert_eq!(transaction, Transaction::Open(vec!["a".into(), "b".into(), "a".into()]));
        transaction.release("a").unwrap();
        assert_eq!(transaction, Transaction::Open(vec!["a".into(), "b".into()]));
        assert_eq!(transaction.release("c").unwrap_err().sqlstate, "3B001");
    }

    #[test]
    fn commands_out_of_place_warn_or_fail_as_in_postgresql() {
        let mut transaction = Transaction::default();
        assert_eq!(transaction.commit(false).unwrap().1.map(|w| w.sqlstate), Some("25P01"));
        assert_eq!(transaction.savepoint("a".into()).unwrap_err().sqlstate, "25P01");
        transaction.begin().unwrap();
        assert_eq!(transaction.begin().unwrap().1.map(|w| w.sqlstate), Some("25001"));
        assert_eq!(transaction.commit(true).unwrap(), ("COMMIT", None));
        assert!(transaction.is_block());
        assert_eq!(transaction.rollback(false).unwrap(), ("ROLLBACK", None));
        assert!(!transaction.is_block());
    }
}
