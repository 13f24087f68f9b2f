//! The parameters that a session can have, and what they may be.
//!
//! A parameter that would change answers in a way that is not offered (another encoding, another output style) is
//! refused or warned about; the many that tune a PostgreSQL server are taken and have nothing to tune.

use stratus_sql::SqlError;

use super::command::{ISOLATION, isolation_refused};
use super::errors::error;
use crate::service::Notice;

/// The version of PostgreSQL whose behaviour is offered, as drivers parse it.
pub const SERVER_VERSION: &str = concat!("16.6 (Stratus ", env!("CARGO_PKG_VERSION"), ")");

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anything.
    Any,
    /// Nobody may change it.
    Fixed,
    /// on or off
    Switch,
    /// on alone
    AlwaysOn,
    /// A time; a plain number is milliseconds.
    Time,
    /// UTF-8 under one of its names.
    Utf8,
    /// An ISO date style, whatever the order of day and month.
    IsoDates,
    /// One of the names of UTC; another zone is warned about and changes nothing.
    Utc,
    /// This word alone.
    Only(&'static str),
    /// READ COMMITTED, or the weaker READ UNCOMMITTED.
    Isolation,
}

/// Name as PostgreSQL spells it, its default, its rule.
pub(crate) const PARAMETERS: &[(&str, &str, Rule)] = &[
    ("application_name", "", Rule::Any),
    ("bytea_output", "hex", Rule::Only("hex")),
    ("check_function_bodies", "on", Rule::Switch),
    ("client_encoding", "UTF8", Rule::Utf8),
    ("client_min_messages", "notice", Rule::Any),
    ("cursor_tuple_fraction", "0.1", Rule::Any),
    ("DateStyle", "ISO, MDY", Rule::IsoDates),
    ("default_table_access_method", "heap", Rule::Any),
    ("default_tablespace", "", Rule::Any),
    ("default_transaction_deferrable", "off", Rule::Switch),
    ("default_transaction_isolation", ISOLATION, Rule::Isolation),
    ("default_transaction_read_only", "off", Rule::Switch),
    ("enable_nestloop", "on", Rule::Switch),
    ("enable_seqscan", "on", Rule::Switch),
    ("escape_string_warning", "on", Rule::Switch),
    ("extra_float_digits", "1", Rule::Any),
    ("geqo", "on", Rule::Switch),
    ("idle_in_transaction_session_timeout", "0", Rule::Time),
    ("idle_session_timeout", "0", Rule::Time),
    ("in_hot_standby", "off", Rule::Fixed),
    ("integer_datetimes", "on", Rule::Fixed),
    ("IntervalStyle", "postgres", Rule::Only("postgres")),
    ("is_superuser", "off", Rule::Fixed),
    ("jit", "off", Rule::Switch),
    ("lc_collate", "C", Rule::Fixed),
    ("lc_ctype", "C", Rule::Fixed),
    ("lc_messages", "C", Rule::Any),
    ("lc_monetary", "C", Rule::Any),
    ("lc_numeric", "C", Rule::Any),
    ("lc_time", "C", Rule::Any),
    ("lock_timeout", "0", Rule::Time),
    ("log_min_duration_statement", "-1", Rule::Any),
    ("log_statement", "none", Rule::Any),
    ("max_identifier_length", "63", Rule::Fixed),
    ("max_index_keys", "32", Rule::Fixed),
    ("max_parallel_workers_per_gather", "2", Rule::Any),
    ("quote_all_identifiers", "off", Rule::Switch),
    ("row_security", "on", Rule::Switch),
    ("search_path", "\"$user\", public", Rule::Any),
    ("server_encoding", "UTF8", Rule::Fixed),
    ("server_version", SERVER_VERSION, Rule::Fixed),
    ("server_version_num", "160006", Rule::Fixed),
    ("session_authorization", "", Rule::Fixed),
    ("standard_conforming_strings", "on", Rule::AlwaysOn),
    ("statement_timeout", "0", Rule::Time),
    ("synchronize_seqscans", "on", Rule::Switch),
    ("synchronous_commit", "on", Rule::Any),
    ("TimeZone", "UTC", Rule::Utc),
    ("transaction_deferrable", "off", Rule::Switch),
    ("transaction_isolation", ISOLATION, Rule::Isolation),
    ("transaction_read_only", "off", Rule::Switch),
    ("work_mem", "4MB", Rule::Any),
    ("xmloption", "content", Rule::Any),
];

/// A parameter under its name in any case: the name as it is spelled, its default, its rule.
pub(crate) fn known(name: &str) -> Option<(&'static str, &'static str, Rule)> {
    PARAMETERS.iter().find(|(spelled, ..)| spelled.eq_ignore_ascii_case(name)).copied()
}

pub(crate) fn unknown(name: &str) -> SqlError {
    error("42704", format!("unrecognized configuration parameter \"{name}\""))
}

/// The value of a parameter in its canonical form, and what to say about it.
pub(crate) fn accept(name: &str, value: &str) -> Result<(String, Option<Notice>), SqlError> {
    if name.contains('.') {
        return Ok((value.to_owned(), None));
    }
    let (spelled, default, rule) = known(name).ok_or_else(|| unknown(name))?;
    let invalid = || error("22023", format!("invalid value for parameter \"{spelled}\": \"{value}\""));
    let refused = |message: String| error("0A000", message);
    let lower = value.trim().to_ascii_lowercase();
    let canonical = match rule {
        Rule::Any => value.to_owned(),
        Rule::Fixed => {
            return Err(error("55P02", format!("parameter \"{spelled}\" cannot be changed")));
        }
        Rule::Switch => switch(&lower).ok_or_else(invalid)?.to_owned(),
        Rule::AlwaysOn => match switch(&lower) {
            Some("on") => "on".to_owned(),
            Some(_) => return Err(refused(format!("{spelled} is always on"))),
            None => return Err(invalid()),
        },
        Rule::Time => {
            milliseconds(&lower).ok_or_else(invalid)?;
            value.trim().to_owned()
        }
        Rule::Utf8 => match lower.replace(['-', '_'], "").as_str() {
            "utf8" | "unicode" => "UTF8".to_owned(),
            _ => {
                return Err(refused(format!("client_encoding is always UTF8, not \"{value}\"")));
            }
        },
        Rule::IsoDates => {
            let mut words = lower.split(',').map(str::trim);
            if !words
                .clone()
                .all(|w| ["iso", "mdy", "dmy", "ymd", "us", "european", "noneuropean"].contains(&w))
            {
                return Err(refused(format!("dates are always given in ISO style, not \"{value}\"")));
            }
            let order = words.find_map(|w| match w {
                "dmy" | "european" => Some("DMY"),
                "ymd" => Some("YMD"),
                "mdy" | "us" | "noneuropean" => Some("MDY"),
                _ => None,
            });
            format!("ISO, {}", order.unwrap_or("MDY"))
        }
        Rule::Utc => {
            if is_utc(&lower) {
                return Ok(("UTC".to_owned(), None));
            }
            let mut warning = Notice::warning("01000", format!("the time zone stays UTC, not \"{value}\""));
            warning.hint = Some("convert with AT TIME ZONE where another zone matters".to_owned());
            return Ok((default.to_owned(), Some(warning)));
        }
        Rule::Only(word) if lower == word => word.to_owned(),
        Rule::Only(word) => {
            return Err(refused(format!("{spelled} is always {word}, not \"{value}\"")));
        }
        Rule::Isolation => match lower.as_str() {
            "read committed" | "read uncommitted" => ISOLATION.to_owned(),
            "repeatable read" | "serializable" => return Err(isolation_refused()),
            _ => return Err(invalid()),
        },
    };
    Ok((canonical, None))
}

fn switch(value: &str) -> Option<&'static str> {
    match value {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some("on"),
        "off" | "false" | "no" | "0" | "f" | "n" => Some("off"),
        _ => None,
    }
}

fn is_utc(zone: &str) -> bool {
    ["utc", "etc/utc", "gmt", "etc/gmt", "zulu", "z", "uct", "0", "+0", "-0", "+00", "+00:00", "+0000"]
        .contains(&zone)
}

/// A time as PostgreSQL writes it in settings: a number and a unit, milliseconds if there is none.
pub(crate) fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let time = number.parse::<f64>().ok()? * factor;
    // The limit of PostgreSQL's own integer parameters.
    (time <= f64::from(i32::MAX)).then(|| time.round() as u64)
}
