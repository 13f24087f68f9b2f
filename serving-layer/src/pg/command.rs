//! Which statements the front answers itself, and which it hands to the engine.
//!
//! Transactions and session parameters belong to the connection. They are recognised by their words, because the
//! engine's parser knows only some of them.

use stratus_sql::SqlError;

use super::errors::error;
use super::lexer::{Piece, TokenKind};

/// A statement, as the front sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`; with `AND CHAIN` another transaction begins at once.
    Commit {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// `AND CHAIN`
        chain: bool,
    },
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `ROLLBACK TO name`
    RollbackTo(String),
    /// `RELEASE name`
    Release(String),
    /// `SET name = value`; no value means the default.
    Set {
        /// Until the end of the transaction only.
        local: bool,
        /// The parameter, in lower case.
        name: String,
        /// Its new value.
        value: Option<String>,
    },
    /// `SET TRANSACTION ...` with modes that change nothing here.
    SetTransaction,
    /// `RESET name`, `RESET ALL`
    Reset(Option<String>),
    /// `SHOW name`, `SHOW ALL`
    Show(Option<String>),
    /// `DISCARD ...`: whether everything goes.
    Discard {
        /// `ALL`
        all: bool,
    },
    /// `DEALLOCATE name`, `DEALLOCATE ALL`
    Deallocate(Option<String>),
    /// A command that has nothing to do here and is answered with its tag.
    Nothing(&'static str),
    /// Everything else.
    Engine {
        /// The first word, in lower case.
        verb: String,
    },
}

impl Command {
    /// The command of a statement.
    ///
    /// # Errors
    /// What is not offered is refused here (0A000 and the like), and so is a session command that makes no sense.
    pub(crate) fn of(piece: &Piece) -> Result<Self, SqlError> {
        let verb = piece.word(0).unwrap_or_default();
        match verb.as_str() {
            "begin" => {
                modes(
                    piece,
                    if matches!(piece.word(1).as_deref(), Some("work" | "transaction")) { 2 } else { 1 },
                )?;
                Ok(Self::Begin)
            }
            "start" if piece.words_are(1, &["transaction"]) => {
                modes(piece, 2)?;
                Ok(Self::Begin)
            }
            "commit" | "end" if piece.words_are(1, &["prepared"]) => Err(unsupported("two-phase commit")),
            "commit" | "end" => Ok(Self::Commit { chain: chain(piece, 1)? }),
            "rollback" if piece.words_are(1, &["prepared"]) => Err(unsupported("two-phase commit")),
            "rollback" | "abort" => rollback(piece),
            "savepoint" => Ok(Self::Savepoint(only_name(piece, 1)?)),
            "release" => {
                Ok(Self::Release(only_name(piece, if piece.words_are(1, &["savepoint"]) { 2 } else { 1 })?))
            }
            "set" => set(piece),
            "reset" => reset(piece),
            "show" => show(piece),
            "discard" => match piece.word(1).as_deref() {
                Some("all") => Ok(Self::Discard { all: true }),
                Some("plans" | "sequences" | "temp" | "temporary") => Ok(Self::Discard { all: false }),
                _ => Err(syntax(piece, 1)),
            },
            "deallocate" => {
                let at = if piece.words_are(1, &["prepare"]) { 2 } else { 1 };
                if piece.words_are(at, &["all"]) {
                    return Ok(Self::Deallocate(None));
                }
                Ok(Self::Deallocate(Some(only_name(piece, at)?)))
            }
            "unlisten" => Ok(Self::Nothing("UNLISTEN")),
            "close" if piece.words_are(1, &["all"]) => Ok(Self::Nothing("CLOSE CURSOR ALL")),
            "close" => Err(error(
                "34000",
                format!("cursor \"{}\" does not exist", piece.value(1).unwrap_or_default()),
            )),
            "copy" => Err(with_hint(unsupported("COPY"), "read with SELECT")),
            "declare" | "fetch" | "move" => Err(with_hint(
                unsupported("an SQL cursor"),
                "rows are streamed: fetch them in portions through the driver's fetch size instead",
            )),
            "prepare" | "execute" => {
                Err(with_hint(unsupported("PREPARE in SQL"), "prepare statements through the driver instead"))
            }
            "listen" | "notify" => Err(unsupported("LISTEN and NOTIFY")),
            "lock" => Err(unsupported("LOCK")),
            "load" | "do" | "call" | "vacuum" | "analyze" | "cluster" | "checkpoint" | "reindex" => {
                Err(unsupported(&verb.to_uppercase()))
            }
            "create" if creates_external(piece) => Err(error(
                "42501",
                "external tables are not allowed: nothing here may read the server's files",
            )),
            _ => Ok(Self::Engine { verb }),
        }
    }
}

/// The isolation of every transaction, as `SHOW transaction_isolation` says it: each statement sees what is
/// committed when it begins.
pub(crate) const ISOLATION: &str = "read committed";

fn unsupported(what: &str) -> SqlError {
    error("0A000", format!("{what} is not supported"))
}

fn with_hint(mut refused: SqlError, hint: &str) -> SqlError {
    refused.hint = Some(hint.to_owned());
    refused
}

/// A syntax error at a token, or at the end when there is none.
fn syntax(piece: &Piece, index: usize) -> SqlError {
    let mut syntax = match piece.written(index) {
        Some(near) => error("42601", format!("syntax error at or near \"{near}\"")),
        None => error("42601", "syntax error at end of input"),
    };
    let start = piece.tokens.get(index).map_or(piece.text.len(), |token| token.range.start);
    syntax.position = piece.text.get(..start).map(|before| before.chars().count() + 1);
    syntax
}

fn creates_external(piece: &Piece) -> bool {
    let mut at = 1;
    if piece.words_are(at, &["or", "replace"]) {
        at += 2;
    }
    if piece.words_are(at, &["unbounded"]) {
        at += 1;
    }
    piece.words_are(at, &["external"])
}

fn only_name(piece: &Piece, at: usize) -> Result<String, SqlError> {
    let is_name =
        piece.tokens.get(at).is_some_and(|t| matches!(t.kind, TokenKind::Word | TokenKind::QuotedName));
    if !is_name {
        return Err(syntax(piece, at));
    }
    if piece.tokens.len() > at + 1 {
        return Err(syntax(piece, at + 1));
    }
    piece.value(at).ok_or_else(|| syntax(piece, at))
}

fn chain(piece: &Piece, mut at: usize) -> Result<bool, SqlError> {
    if matches!(piece.word(at).as_deref(), Some("work" | "transaction")) {
        at += 1;
    }
    let (chain, end) = if piece.words_are(at, &["and", "no", "chain"]) {
        (false, at + 3)
    } else if piece.words_are(at, &["and", "chain"]) {
        (true, at + 2)
    } else {
        (false, at)
    };
    if piece.tokens.len() > end { Err(syntax(piece, end)) } else { Ok(chain) }
}

fn rollback(piece: &Piece) -> Result<Command, SqlError> {
    let at = if matches!(piece.word(1).as_deref(), Some("work" | "transaction")) { 2 } else { 1 };
    if piece.words_are(at, &["to", "savepoint"]) && piece.tokens.len() > at + 2 {
        return Ok(Command::RollbackTo(only_name(piece, at + 2)?));
    }
    if piece.words_are(at, &["to"]) {
        return Ok(Command::RollbackTo(only_name(piece, at + 1)?));
    }
    Ok(Command::Rollback { chain: chain(piece, 1)? })
}

/// Checks the modes of a transaction from `at` on: a promise that is not kept here is refused.
fn modes(piece: &Piece, mut at: usize) -> Result<(), SqlError> {
    while at < piece.tokens.len() {
        if piece.written(at) == Some(",") {
            at += 1;
        } else if piece.words_are(at, &["isolation", "level", "read", "committed"])
            || piece.words_are(at, &["isolation", "level", "read", "uncommitted"])
        {
            at += 4;
        } else if piece.words_are(at, &["isolation", "level"]) {
            return Err(isolation_refused());
        } else if piece.words_are(at, &["read", "only"])
            || piece.words_are(at, &["read", "write"])
            || piece.words_are(at, &["not", "deferrable"])
        {
            at += 2;
        } else if piece.words_are(at, &["deferrable"]) {
            at += 1;
        } else {
            return Err(syntax(piece, at));
        }
    }
    Ok(())
}

/// The refusal of an isolation level that would promise one snapshot for a whole transaction.
pub(crate) fn isolation_refused() -> SqlError {
    with_hint(
        error("0A000", "only the isolation level READ COMMITTED is offered"),
        "each statement is answered from one snapshot; put what must agree into one statement",
    )
}

fn set(piece: &Piece) -> Result<Command, SqlError> {
    let (local, at) = match piece.word(1).as_deref() {
        Some("local") => (true, 2),
        // `SET session = ...` does not exist, but `SET session characteristics` does.
        Some("session") if !piece.words_are(2, &["authorization"]) => (false, 2),
        _ => (false, 1),
    };
    if piece.words_are(at, &["characteristics", "as", "transaction"]) {
        modes(piece, at + 3)?;
        return Ok(Command::SetTransaction);
    }
    if piece.words_are(at, &["transaction"]) {
        if piece.words_are(at + 1, &["snapshot"]) {
            return Err(unsupported("SET TRANSACTION SNAPSHOT"));
        }
        modes(piece, at + 1)?;
        return Ok(Command::SetTransaction);
    }
    if piece.words_are(at, &["time", "zone"]) {
        return Ok(Command::Set { local, name: "timezone".into(), value: values(piece, at + 2)? });
    }
    if piece.words_are(at, &["names"]) {
        let value = if piece.tokens.len() > at + 1 { values(piece, at + 1)? } else { None };
        return Ok(Command::Set { local, name: "client_encoding".into(), value });
    }
    if piece.words_are(at, &["role"]) || piece.words_are(at, &["session", "authorization"]) {
        return Err(unsupported("changing the role"));
    }
    let (name, at) = parameter_name(piece, at)?;
    if piece.written(at) != Some("=") && !piece.words_are(at, &["to"]) {
        return Err(syntax(piece, at));
    }
    Ok(Command::Set { local, name, value: values(piece, at + 1)? })
}

/// A parameter's name, which may have dots, and where it ends.
fn parameter_name(piece: &Piece, mut at: usize) -> Result<(String, usize), SqlError> {
    let mut name = String::new();
    loop {
        let part = piece
            .tokens
            .get(at)
            .filter(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName))
            .and_then(|_| piece.value(at));
        name.push_str(&part.ok_or_else(|| syntax(piece, at))?);
        at += 1;
        if piece.written(at) != Some(".") {
            return Ok((name.to_ascii_lowercase(), at));
        }
        name.push('.');
        at += 1;
    }
}

/// A comma-separated list of values from `at` on, as one text; `None` for `DEFAULT`.
fn values(piece: &Piece, mut at: usize) -> Result<Option<String>, SqlError> {
    if at >= piece.tokens.len() {
        return Err(syntax(piece, at));
    }
    if piece.tokens.len() == at + 1 && matches!(piece.word(at).as_deref(), Some("default" | "local")) {
        return Ok(None);
    }
    let mut list = Vec::new();
    loop {
        let sign = match piece.written(at) {
            Some(sign @ ("-" | "+")) => {
                at += 1;
                sign
            }
            _ => "",
        };
        // `SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE` and the like are no list of values.
        let is_value = piece.tokens.get(at).is_some_and(|token| token.kind != TokenKind::Symbol);
        let value = piece.value(at).filter(|_| is_value).ok_or_else(|| syntax(piece, at))?;
        list.push(format!("{sign}{value}"));
        at += 1;
        match piece.written(at) {
            None => return Ok(Some(list.join(", "))),
            Some(",") => at += 1,
            Some(_) => return Err(syntax(piece, at)),
        }
    }
}

fn reset(piece: &Piece) -> Result<Command, SqlError> {
    if piece.words_are(1, &["all"]) && piece.tokens.len() == 2 {
        return Ok(Command::Reset(None));
    }
    if piece.words_are(1, &["time", "zone"]) {
        return Ok(Command::Reset(Some("timezone".into())));
    }
    if piece.words_are(1, &["role"]) || piece.words_are(1, &["session", "authorization"]) {
        return Ok(Command::Nothing("RESET"));
    }
    let (name, end) = parameter_name(piece, 1)?;
    if piece.tokens.len() > end { Err(syntax(piece, end)) } else { Ok(Command::Reset(Some(name))) }
}

fn show(piece: &Piece) -> Result<Command, SqlError> {
    if piece.words_are(1, &["all"]) && piece.tokens.len() == 2 {
        return Ok(Command::Show(None));
    }
    if piece.words_are(1, &["time", "zone"]) {
        return Ok(Command::Show(Some("timezone".into())));
    }
    if piece.words_are(1, &["transaction", "isolation", "level"]) {
        return Ok(Command::Show(Some("transaction_isolation".into())));
    }
    if piece.words_are(1, &["session", "authorization"]) {
        return Ok(Command::Show(Some("session_authorization".into())));
    }
    let (name, end) = parameter_name(piece, 1)?;
    if piece.tokens.len() > end { Err(syntax(piece, end)) } else { Ok(Command::Show(Some(name))) }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::split;
    use super::*;

    fn of(text: &str) -> Result<Command, SqlError> {
        Command::of(&split(text).unwrap().remove(0))
    }

    fn set(local: bool, name: &str, value: Option<&str>) -> Command {
        Command::Set { local, name: name.into(), value: value.map(Into::into) }
    }

    #[test]
    fn transactions_are_recognised_in_all_their_spellings() {
        for text in [
            "BEGIN",
            "begin work",
            "START TRANSACTION READ ONLY, ISOLATION LEVEL READ COMMITTED",
            "BEGIN TRANSACTION READ WRITE NOT DEFERRABLE",
        ] {
            assert_eq!(of(text).unwrap(), Command::Begin, "{text}");
        }
        assert_eq!(of("END").unwrap(), Command::Commit { chain: false });
        assert_eq!(of("COMMIT AND CHAIN").unwrap(), Command::Commit { chain: true });
        assert_eq!(of("ABORT").unwrap(), Command::Rollback { chain: false });
        assert_eq!(of("ROLLBACK TO SAVEPOINT \"A b\"").unwrap(), Command::RollbackTo("A b".into()));
        assert_eq!(of("ROLLBACK TO x").unwrap(), Command::RollbackTo("x".into()));
        assert_eq!(of("RELEASE SAVEPOINT x").unwrap(), Command::Release("x".into()));
    }

    #[test]
    fn a_promise_that_is_not_kept_is_refused() {
        assert_eq!(of("BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap_err().sqlstate, "0A000");
        assert_eq!(of("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap_err().sqlstate, "0A000");
        assert_eq!(of("COPY t TO '/etc/passwd'").unwrap_err().sqlstate, "0A000");
        assert_eq!(of("DECLARE c CURSOR FOR SELECT 1").unwrap_err().sqlstate, "0A000");
        let external = "CREATE OR REPLACE UNBOUNDED EXTERNAL TABLE t STORED AS CSV LOCATION '/etc'";
        assert_eq!(of(external).unwrap_err().sqlstate, "42501");
    }

    #[test]
    fn settings_are_read_in_all_their_spellings() {
        assert_eq!(of("SET a.B = 1").unwrap(), set(false, "a.b", Some("1")));
        assert_eq!(of("SET LOCAL x TO 'Y'").unwrap(), set(true, "x", Some("Y")));
        assert_eq!(of("SET SESSION x = -1.5").unwrap(), set(false, "x", Some("-1.5")));
        assert_eq!(of("SET DateStyle = ISO, MDY").unwrap(), set(false, "datestyle", Some("iso, mdy")));
        assert_eq!(of("SET x TO DEFAULT").unwrap(), set(false, "x", None));
        assert_eq!(of("SET TIME ZONE 'UTC'").unwrap(), set(false, "timezone", Some("UTC")));
        assert_eq!(of("SET NAMES 'utf8'").unwrap(), set(false, "client_encoding", Some("utf8")));
        assert_eq!(
            of("SHOW TRANSACTION ISOLATION LEVEL").unwrap(),
            Command::Show(Some("transaction_isolation".into()))
        );
        assert_eq!(of("RESET ALL").unwrap(), Command::Reset(None));
    }

    #[test]
    fn a_wrong_session_command_says_where() {
        let wrong = of("SET x 1").unwrap_err();
        assert_eq!((wrong.sqlstate, wrong.position), ("42601", Some(7)));
        let wrong = of("SAVEPOINT").unwrap_err();
        assert_eq!((wrong.sqlstate, wrong.position), ("42601", Some(10)));
    }

    #[test]
    fn everything_else_is_the_engines() {
        for (text, verb) in
            [("SELECT 1", "select"), ("(select 1)", ""), ("Create Materialized View v", "create")]
        {
            assert_eq!(of(text).unwrap(), Command::Engine { verb: verb.into() });
        }
    }
}
