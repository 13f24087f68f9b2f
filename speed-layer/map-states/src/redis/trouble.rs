//! What the server says, as a caller is told. The server does not repeat passwords; it may name the user.

use redis::{ErrorKind, RedisError};

use crate::MapError;

const LOG_IN: &str = "check user and password in the address";

/// What to do about an error of the server.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "WRONGTYPE" => {
            "a key of the state holds another type of value than was written: somebody else uses it; delete it and count again, or take another name for the state"
        }
        "OOM" => "the server has reached its maxmemory; give it more",
        "READONLY" => "the server is a replica; the address must lead to the master",
        "NOPERM" => {
            "the user lacks a right: states need HMGET, EVALSHA, SCRIPT LOAD, TYPE, EXISTS, HSET, HINCRBY and INFO, and UNLINK to be cleared"
        }
        "WRONGPASS" | "NOAUTH" => LOG_IN,
        "LOADING" => "the server is reading its data; wait until it has",
        "BUSY" => "the server is running somebody's script; wait, or end it with SCRIPT KILL",
        "MISCONF" => "the server cannot write to its disk; mend that, or set stop-writes-on-bgsave-error no",
        "MOVED" | "ASK" | "CLUSTERDOWN" => "the server is part of a cluster; use a standalone one",
        _ => return None,
    })
}

pub(super) fn told(what: &str, error: &RedisError) -> MapError {
    let said = error.detail().unwrap_or_default();
    let cause = match error.code() {
        _ if error.is_timeout() => "no answer in time: a write may yet take effect".to_owned(),
        Some(code) => match advice(code) {
            Some(advice) => format!("{code} {said}: {advice}"),
            None => format!("{code} {said}"),
        },
        None if error.kind() == ErrorKind::AuthenticationFailed => format!("{said}: {LOG_IN}"),
        None => format!("{error}: see that the server runs and can be reached"),
    };
    let what = what.to_owned();
    if error.code() == Some("WRONGTYPE") {
        return MapError::Damaged { what, cause };
    }
    MapError::Unavailable { what, cause }
}
