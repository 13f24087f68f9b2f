//! Errors of statements, written as psql writes them.

use std::fmt;

use tokio_postgres::error::{DbError, ErrorPosition};

/// An error or a notice of the server, or the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    severity: String,
    /// Five characters; none if the connection is gone.
    sqlstate: Option<String>,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    /// The text with the error, and the character in it, from 1.
    place: Option<(String, usize)>,
    position: Option<usize>,
}

impl Fault {
    /// What tokio-postgres reports.
    pub(crate) fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            return Self::from(error);
        }
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Self {
            severity: "ERROR".to_owned(),
            sqlstate: None,
            message: format!("the connection to the server is lost: {why}"),
            detail: None,
            hint: None,
            place: None,
            position: None,
        }
    }

    /// With the statement's text, to show the line with the error.
    #[must_use]
    pub(crate) fn within(mut self, statement: &str) -> Self {
        self.place = self.position.map(|position| (statement.to_owned(), position));
        self
    }

    /// Whether the server is gone.
    pub(crate) const fn is_lost(&self) -> bool {
        self.sqlstate.is_none()
    }

    /// The class of the error, two characters; empty if the server is gone.
    pub(crate) fn class(&self) -> &str {
        self.sqlstate().get(..2).unwrap_or_default()
    }

    /// The SQLSTATE; empty if the server is gone.
    pub(crate) fn sqlstate(&self) -> &str {
        self.sqlstate.as_deref().unwrap_or_default()
    }

    /// How many lines of the statement come before the one with the error.
    pub(crate) fn lines_before(&self) -> usize {
        self.place.as_ref().map_or(0, |(text, position)| line_of(text, *position).0 - 1)
    }
}

impl From<&DbError> for Fault {
    fn from(error: &DbError) -> Self {
        let position = match error.position() {
            Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
            _ => None,
        };
        Self {
            severity: error.severity().to_owned(),
            sqlstate: Some(error.code().code().to_owned()),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            place: None,
            position,
        }
    }
}

/// The number of the line with a character, from 1, its text, and the characters before that one.
fn line_of(text: &str, position: usize) -> (usize, &str, usize) {
    let (mut number, mut begin) = (1, 0);
    for (count, character) in text.chars().enumerate().take(position.saturating_sub(1)) {
        if character == '\n' {
            (number, begin) = (number + 1, count + 1);
        }
    }
    let line = text.lines().nth(number - 1).unwrap_or_default();
    (number, line, position.saturating_sub(1 + begin))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.sqlstate.as_ref().filter(|_| self.severity != "NOTICE" && self.severity != "INFO");
        match state {
            Some(state) => writeln!(f, "{}:  {state}: {}", self.severity, self.message)?,
            None => writeln!(f, "{}:  {}", self.severity, self.message)?,
        }
        if let Some((text, position)) = &self.place {
            let (number, line, before) = line_of(text, *position);
            let label = format!("LINE {number}: ");
            // Tabs stay tabs, so that the caret stands below its character.
            let indent: String = line
                .chars()
                .take(before)
                .map(|character| if character == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "{label}{line}\n{}{indent}^", " ".repeat(label.len()))?;
        }
        if let Some(detail) = &self.detail {
            writeln!(f, "DETAIL:  {detail}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "HINT:  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_error() {
        let statement = "CREATE MATERIALIZED VIEW v AS\n  SELECT page, median(ms) FROM clicks";
        let position = statement.find("median").map(|at| at + 1);
        let fault = Fault {
            severity: "ERROR".into(),
            sqlstate: Some("0A000".into()),
            message: "median keeps every value it sees, so its state has no bound".into(),
            detail: None,
            hint: Some("another one".into()),
            place: None,
            position,
        };
        let shown = fault.within(statement).to_string();
        assert_eq!(
            shown,
            "ERROR:  0A000: median keeps every value it sees, so its state has no bound\n\
             LINE 2:   SELECT page, median(ms) FROM clicks\n                       ^\nHINT:  another one\n"
        );
    }

    #[test]
    fn characters_are_counted_and_not_bytes() {
        assert_eq!(line_of("é\né x", 5), (2, "é x", 2));
        assert_eq!(line_of("abc", 4), (1, "abc", 3));
        assert_eq!(line_of("", 9), (1, "", 8));
    }
}
