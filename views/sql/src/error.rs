//! Errors as a SQL client sees them: SQLSTATE, message, detail, hint, position.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use crate::position::split_parser_message;

/// An error with everything that the PostgreSQL protocol can tell about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// Five characters, as PostgreSQL's appendix A lists them.
    pub sqlstate: &'static str,
    /// What happened.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where, in characters from 1, within the statement's text.
    pub position: Option<usize>,
}

impl SqlError {
    /// An error with a SQLSTATE and a message.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    /// Something that is understood and refused (0A000).
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new("0A000", message)
    }

    /// A syntax error (42601).
    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    /// A broken promise within the product (XX000).
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new("XX000", message)
    }

    /// With a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a position, if one is known.
    #[must_use]
    pub fn at(mut self, position: Option<usize>) -> Self {
        self.position = position;
        self
    }

    /// With a position, unless it has one.
    #[must_use]
    pub(crate) fn or_at(mut self, position: Option<usize>) -> Self {
        self.position = self.position.or(position);
        self
    }

    /// With its position moved by `characters`: from a query's text to the statement that holds it.
    #[must_use]
    pub fn shifted(mut self, characters: usize) -> Self {
        self.position = self.position.map(|position| position + characters);
        self
    }
}

/// So that an error survives the way through DataFusion: [`sqlstate_of`] finds it again.
impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        Self::External(Box::new(error))
    }
}

/// What DataFusion reports, as a SQL client should see it. A position is not known here: DataFusion counts lines
/// and columns of the text that it was given.
pub fn sqlstate_of(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(source) => match source.downcast_ref::<SqlError>() {
            Some(error) => error.clone(),
            None => match source.downcast_ref::<ArrowError>() {
                Some(error) => of_arrow(error),
                None => SqlError::new("XX000", source.to_string()),
            },
        },
        DataFusionError::Context(_, inner) => sqlstate_of(inner),
        DataFusionError::Shared(inner) => sqlstate_of(inner),
        DataFusionError::Diagnostic(_, inner) => sqlstate_of(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(error) => sqlstate_of(error),
            None => SqlError::internal("an empty collection of errors"),
        },
        DataFusionError::ArrowError(error, _) => of_arrow(error),
        DataFusionError::SQL(error, _) => {
            let text = error.to_string();
            let text = text.trim_start_matches("sql parser error: ");
            let (message, _) = split_parser_message(text);
            SqlError::syntax(message)
        }
        DataFusionError::SchemaError(error, _) => of_schema(error),
        DataFusionError::Plan(message) => of_plan(message),
        DataFusionError::NotImplemented(message) => SqlError::new("0A000", message.clone()),
        DataFusionError::ResourcesExhausted(message) => SqlError::new("53200", message.clone()),
        DataFusionError::Configuration(message) => SqlError::new("22023", message.clone()),
        DataFusionError::Execution(message) => of_execution(message),
        DataFusionError::ExecutionJoin(error) if error.is_cancelled() => {
            SqlError::new("57014", "the statement was cancelled")
        }
        DataFusionError::IoError(error) => SqlError::new("58030", error.to_string()),
        DataFusionError::ObjectStore(error) => SqlError::new("58030", error.to_string()),
        other => SqlError::new("XX000", other.strip_backtrace()),
    }
}

fn of_arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new("22012", "division by zero"),
        ArrowError::ArithmeticOverflow(message) => SqlError::new("22003", format!("out of range: {message}")),
        ArrowError::CastError(message) => of_cast(message),
        ArrowError::ParseError(message) => SqlError::new("22P02", message.clone()),
        ArrowError::InvalidArgumentError(message) if message.contains("too large to store in a Decimal") => {
            SqlError::new("22003", message.clone())
        }
        ArrowError::InvalidArgumentError(message) => SqlError::new("22023", message.clone()),
        ArrowError::NotYetImplemented(message) => SqlError::new("0A000", message.clone()),
        ArrowError::MemoryError(message) => SqlError::new("53200", message.clone()),
        ArrowError::ExternalError(source) => match source.downcast_ref::<DataFusionError>() {
            Some(error) => sqlstate_of(error),
            None => match source.downcast_ref::<SqlError>() {
                Some(error) => error.clone(),
                None => SqlError::new("XX000", source.to_string()),
            },
        },
        ArrowError::IoError(message, _) => SqlError::new("58030", message.clone()),
        other => SqlError::new("XX000", other.to_string()),
    }
}

/// Arrow says of a text that is no number, and of a number that does not fit, that it cannot be cast.
fn of_cast(message: &str) -> SqlError {
    let of_text = message.contains("string") || message.contains("Utf8") || message.contains("parsing");
    SqlError::new(if of_text { "22P02" } else { "22003" }, message)
}

fn of_execution(message: &str) -> SqlError {
    let lower = message.to_lowercase();
    let sqlstate = if lower.contains("divide by zero") || lower.contains("division by zero") {
        "22012"
    } else if lower.contains("overflow") || lower.contains("out of range") {
        "22003"
    } else if lower.contains("parsing") || lower.contains("cast") || lower.contains("parse") {
        "22P02"
    } else {
        "22000"
    };
    SqlError::new(sqlstate, message)
}

fn of_schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
            names.dedup();
            let error = SqlError::new("42703", format!("column \"{}\" does not exist", field.flat_name()));
            if names.is_empty() { error } else { error.hint(format!("there are: {}", names.join(", "))) }
        }
        SchemaError::AmbiguousReference { field } => {
            SqlError::new("42702", format!("column reference \"{}\" is ambiguous", field.name))
                .hint("write the table's name before it")
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new("42701", format!("column \"{name}\" occurs more than once"))
        }
    }
}

fn of_plan(message: &str) -> SqlError {
    let sqlstate = if message.starts_with("table '") && message.contains("not found") {
        "42P01"
    } else if message.starts_with("Invalid function") || message.contains("No function matches") {
        "42883"
    } else if message.contains("must appear in the GROUP BY")
        || message.contains("must be part of the GROUP BY")
    {
        "42803"
    } else if message.contains("Projections require unique expression names") {
        "42701"
    } else if message.contains("coerce") || message.contains("coercion") || message.contains("common type") {
        "42804"
    } else {
        "42000"
    };
    SqlError::new(sqlstate, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_survives_datafusion() {
        let error = SqlError::new("55000", "not yet").hint("wait");
        let wrapped = DataFusionError::from(error.clone()).context("while planning");
        assert_eq!(sqlstate_of(&wrapped), error);
    }

    #[test]
    fn failures_of_values_have_class_22() {
        let arrow = |error| DataFusionError::ArrowError(Box::new(error), None);
        assert_eq!(sqlstate_of(&arrow(ArrowError::DivideByZero)).sqlstate, "22012");
        assert_eq!(sqlstate_of(&arrow(ArrowError::ArithmeticOverflow("x".into()))).sqlstate, "22003");
        let cast = ArrowError::CastError("Cannot cast string 'a' to value of Int32 type".into());
        assert_eq!(sqlstate_of(&arrow(cast)).sqlstate, "22P02");
    }
}
