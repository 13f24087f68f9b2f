//! Errors and notices, as they go over the wire.

use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use stratus_sql::SqlError;

use crate::service::{Notice, Severity};

/// An error without detail, hint or position.
pub(crate) fn error(sqlstate: &'static str, message: impl Into<String>) -> SqlError {
    SqlError { sqlstate, message: message.into(), detail: None, hint: None, position: None }
}

/// An error of a statement, placed in the client's text: `before` is the number of characters before the statement.
/// Without it the place is not told: one in a text that the client has not written would mislead it.
pub(crate) fn placed(mut error: SqlError, before: Option<usize>) -> SqlError {
    error.position = error.position.and_then(|position| Some(position + before?));
    error
}

/// What an error does to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// The statement has failed.
    Error,
    /// The connection ends.
    Fatal,
}

/// The error as a message.
pub(crate) fn response(error: &SqlError, gravity: Gravity) -> ErrorResponse {
    let severity = match gravity {
        Gravity::Error => "ERROR",
        Gravity::Fatal => "FATAL",
    };
    let mut fields = fields(severity, error.sqlstate, &error.message);
    optional(&mut fields, b'D', error.detail.as_deref());
    optional(&mut fields, b'H', error.hint.as_deref());
    optional(&mut fields, b'P', error.position.map(|position| position.to_string()).as_deref());
    ErrorResponse::new(fields)
}

/// A notice as a message.
pub(crate) fn notice(notice: &Notice) -> NoticeResponse {
    let severity = match notice.severity {
        Severity::Info => "INFO",
        Severity::Notice => "NOTICE",
        Severity::Warning => "WARNING",
    };
    let mut fields = fields(severity, notice.sqlstate, &notice.message);
    optional(&mut fields, b'D', notice.detail.as_deref());
    optional(&mut fields, b'H', notice.hint.as_deref());
    NoticeResponse::new(fields)
}

fn fields(severity: &str, sqlstate: &str, message: &str) -> Vec<(u8, String)> {
    vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', sqlstate.to_owned()),
        (b'M', without_nul(message)),
    ]
}

fn optional(fields: &mut Vec<(u8, String)>, code: u8, value: Option<&str>) {
    if let Some(value) = value {
        fields.push((code, without_nul(value)));
    }
}

/// A NUL ends a field on the wire: one inside a message would tear the rest off and break the framing.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_counted_in_the_clients_text() {
        let mut wrong = error("42703", "column \"x\" does not exist");
        wrong.position = Some(8);
        assert_eq!(placed(wrong.clone(), None).position, None);
        let fields = response(&placed(wrong, Some(10)), Gravity::Error).fields;
        assert!(fields.contains(&(b'P', "18".to_owned())));
        assert!(fields.contains(&(b'C', "42703".to_owned())));
        assert!(fields.contains(&(b'V', "ERROR".to_owned())));
    }

    #[test]
    fn a_nul_cannot_end_a_field() {
        let fields = response(&error("XX000", "a\0b"), Gravity::Fatal).fields;
        assert!(fields.contains(&(b'M', "a\u{fffd}b".to_owned())));
    }
}
