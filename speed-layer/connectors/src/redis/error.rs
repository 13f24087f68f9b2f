//! What goes wrong with the server, and what to do about it. Passwords never reach these texts: the server does not
//! repeat them, and it is named without them.

use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, RedisError};
use thiserror::Error;

/// Bytes of a key that are shown.
const SHOWN: usize = 120;

/// What to do about a server that is not reached.
const SEE: &str = "see whether it runs, and can be reached from here under this name";

/// Why a Redis server did not do what a bolt asked of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisBoltError {
    /// The address cannot be used. It is not repeated: it may hold a password.
    #[error("the address of the Redis server cannot be used: {0}")]
    Address(String),
    /// There is no connection to be had.
    #[error("cannot connect to the Redis server {server}: {cause}")]
    Connect {
        /// Host and port.
        server: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// The answers to the commands of a batch did not come. Some of the commands may have taken effect.
    #[error(
        "the Redis server {server} did not answer {commands} commands, which may yet take effect: {cause}"
    )]
    Unanswered {
        /// Host and port.
        server: String,
        /// How many commands there were.
        commands: usize,
        /// What is wrong.
        cause: String,
    },
    /// The server refused one command.
    #[error("the Redis server {server} refused {command} of key `{key}`: {cause}")]
    Refused {
        /// Host and port.
        server: String,
        /// The command's name.
        command: String,
        /// The key, shortened if it is long.
        key: String,
        /// What the server said, and what to do.
        cause: String,
    },
}

impl RedisBoltError {
    pub(super) fn connect(server: &str, timeout: Duration, error: &RedisError) -> Self {
        let cause = match error.is_timeout() {
            true => format!("no answer within {timeout:?}; {SEE}"),
            false if error.is_io_error() => format!("{}; {SEE}", told(error)),
            false => told(error),
        };
        Self::Connect { server: server.to_owned(), cause }
    }

    pub(super) fn unanswered(server: &str, timeout: Duration, commands: usize, error: &RedisError) -> Self {
        let cause = match error.is_timeout() {
            true => format!("no answer within {timeout:?}"),
            false => told(error),
        };
        Self::Unanswered { server: server.to_owned(), commands, cause }
    }

    pub(super) fn refused(server: &str, command: &Cmd, error: &RedisError) -> Self {
        let mut parts = command.args_iter().map(|arg| match arg {
            Arg::Simple(part) => shown(part),
            _ => String::new(),
        });
        let (command, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Self::Refused { server: server.to_owned(), command, key, cause: told(error) }
    }
}

fn shown(part: &[u8]) -> String {
    match part.get(..SHOWN) {
        Some(start) if part.len() > SHOWN => format!("{}…", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(part).into_owned(),
    }
}

/// What an error says, with advice.
fn told(error: &RedisError) -> String {
    let code = match error.kind() {
        ErrorKind::AuthenticationFailed => Some("WRONGPASS"),
        _ => error.code(),
    };
    let said = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) if error.kind() == ErrorKind::AuthenticationFailed => detail.to_owned(),
        _ => error.to_string(),
    };
    match code.and_then(advice) {
        Some(advice) => format!("{said}; {advice}"),
        None => said,
    }
}

/// What to do about an error of the server.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "WRONGTYPE" => {
            "the key holds a value of another type: give the bolt another key, or delete what is there"
        }
        "OOM" => "the server has reached its maxmemory: give it more, or let old keys expire",
        "READONLY" => "the server is a replica: the address must lead to the master",
        "NOPERM" => "the user lacks the right to this command or key: give it with ACL SETUSER",
        "WRONGPASS" | "NOAUTH" => "check user and password in the address",
        "LOADING" => "the server is reading its data: wait until it has",
        "BUSY" => "the server is running somebody's script: wait, or end it with SCRIPT KILL",
        "MISCONF" => {
            "the server cannot write to its disk: mend that, or set stop-writes-on-bgsave-error to no"
        }
        "MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN" => {
            "the server is a node of a Redis Cluster, and these bolts use single servers only"
        }
        "NOREPLICAS" => "the server has fewer replicas than min-replicas-to-write asks for",
        _ => return None,
    })
}

/// Whether another connection may lead to a server, or a state of it, that does not answer this.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_command_and_key() {
        let mut command = redis::cmd("HINCRBY");
        command.arg("k".repeat(SHOWN + 1)).arg("field").arg(1);
        let said: RedisError = redis::make_extension_error("OOM".to_owned(), Some("not allowed".to_owned()));
        let error = RedisBoltError::refused("host:1", &command, &said);
        let expected = format!(
            "the Redis server host:1 refused HINCRBY of key `{}…`: OOM not allowed; the server has reached its \
             maxmemory: give it more, or let old keys expire",
            "k".repeat(SHOWN)
        );
        assert_eq!(error.to_string(), expected);
    }
}
