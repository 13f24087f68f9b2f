//! What goes wrong with the server, and how callers are told. Passwords never reach these texts: the server does not
//! repeat them, and the address is told without them.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use stratus_seam::store::StoreError;

use super::layout::Unreadable;

/// Why a Redis store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address cannot be used. The address itself is not repeated: it may hold a password.
    #[error("the address of the Redis server cannot be used: {0}")]
    Address(String),
    /// The server cannot be used as it is set up.
    #[error("the Redis server {server} cannot be used: {cause}")]
    Unsuitable {
        /// Where it is.
        server: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// No answer, or a refusal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A failure of one call, before it is known what was asked of whom.
#[derive(Debug)]
pub(super) enum Trouble {
    Redis(RedisError),
    Unreadable(Unreadable),
    Store(StoreError),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Unreadable> for Trouble {
    fn from(cause: Unreadable) -> Self {
        Self::Unreadable(cause)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(Unreadable(format!("a record is not what was written: {error}")))
    }
}

impl Trouble {
    /// Whether the server said that it does not know our functions. Then nothing was run.
    pub(super) fn is_unknown_function(&self) -> bool {
        matches!(self, Self::Redis(error) if error.detail().is_some_and(|text| text.contains("Function not found")))
    }

    /// Whether the server gave an answer, so that the connection is in order.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.kind() != ErrorKind::AuthenticationFailed
                    && error.code().is_some()
                    && !matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
            }
            Self::Unreadable(_) | Self::Store(_) => true,
        }
    }

    /// As a caller is told. `what` says what was tried, where.
    pub(super) fn told(self, what: &str) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Unreadable(Unreadable(cause)) => return damaged(what, &cause),
            Self::Redis(error) if error.is_timeout() => {
                return unavailable(what, "no answer in time: it may yet take effect".into());
            }
            Self::Redis(error) => error,
        };
        let said = error.detail().unwrap_or_default().to_owned();
        match error.code() {
            Some("DAMAGED") => damaged(what, &said),
            Some("WRONGTYPE") => damaged(what, "a key holds another type of value than was written"),
            Some(code) => match advice(code) {
                Some(advice) => unavailable(what, format!("{code} {said}: {advice}")),
                None => unavailable(what, format!("{code} {said}")),
            },
            None if error.kind() == ErrorKind::AuthenticationFailed => {
                unavailable(what, format!("{said}: {LOG_IN}"))
            }
            None => unavailable(what, error.to_string()),
        }
    }
}

const LOG_IN: &str = "check user and password in the address of the state store";

/// What to do about an error of the server.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => "the server has reached its maxmemory; give it more, or drop views",
        "READONLY" => "the server is a replica; the address must lead to the master",
        "NOPERM" => "the user lacks a right; docs/redis.md lists those that are needed",
        "WRONGPASS" | "NOAUTH" => LOG_IN,
        "LOADING" => "the server is reading its data; wait until it has",
        "BUSY" => {
            "the server is running somebody's script; wait, or end it with SCRIPT KILL or FUNCTION KILL"
        }
        "MISCONF" => "the server cannot write to its disk; mend that, or set stop-writes-on-bgsave-error no",
        "MOVED" | "ASK" | "CLUSTERDOWN" => "the server is part of a cluster, which this version does not use",
        "NOREPLICAS" => "the server has fewer replicas than min-replicas-to-write asks for",
        _ => return None,
    })
}

/// Whether an error is the server's refusal of a command that its users may not use, or that it does not offer.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.code() == Some("NOPERM")
        || error.detail().is_some_and(|text| text.starts_with("unknown command"))
}

pub(super) fn damaged(what: &str, cause: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{what}: {cause}; if this stays so, delete the source's keys: its state is rebuilt by itself from the log and the lake"
    ))
}

pub(super) fn unavailable(what: &str, cause: String) -> StoreError {
    StoreError::Unavailable { what: what.into(), source: cause.into() }
}
