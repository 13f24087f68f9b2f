//! Types of values, and the commands that write, read and find them.

use redis::{Cmd, cmd};

/// What a tuple's key and value are to Redis: Storm's description of a data type, with the additional key where there
/// is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisDataType {
    /// Stored by `SET key value`; looked up by `GET key`.
    String,
    /// A hash of this name, whose fields are the tuples' keys. `HSET name key value`; `HGET name key`.
    Hash(String),
    /// Stored at the end by `RPUSH key value`. Looked up is the first element (`LINDEX key 0`), which stays: Storm's
    /// bolt takes it away, and with it what was looked up when the answer or the tuple is lost.
    List,
    /// `SADD key value`; looked up is the number of members, `SCARD key`.
    Set,
    /// A sorted set of this name, whose members are the tuples' keys; the values are their scores, numbers as text.
    /// `ZADD name value key`; `ZSCORE name key`.
    SortedSet(String),
    /// `PFADD key value`; looked up is about how many different values there were, `PFCOUNT key`.
    HyperLogLog,
}

impl RedisDataType {
    pub(super) fn store(&self, key: &[u8], value: &[u8]) -> Cmd {
        match self {
            Self::String => three("SET", key, value),
            Self::Hash(name) => four("HSET", name, key, value),
            Self::List => three("RPUSH", key, value),
            Self::Set => three("SADD", key, value),
            Self::SortedSet(name) => four("ZADD", name, value, key),
            Self::HyperLogLog => three("PFADD", key, value),
        }
    }

    pub(super) fn look_up(&self, key: &[u8]) -> Cmd {
        match self {
            Self::String => two("GET", key),
            Self::Hash(name) => three("HGET", name.as_bytes(), key),
            Self::List => three("LINDEX", key, b"0"),
            Self::Set => two("SCARD", key),
            Self::SortedSet(name) => three("ZSCORE", name.as_bytes(), key),
            Self::HyperLogLog => two("PFCOUNT", key),
        }
    }
}

/// Where a key has to be for its tuple to pass a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisMembership {
    /// Among the server's keys, whatever the type of its value: `EXISTS key`.
    Keys,
    /// Among the fields of a hash of this name: `HEXISTS name key`.
    Hash(String),
    /// Among the members of a set of this name: `SISMEMBER name key`.
    Set(String),
    /// Among the members of a sorted set of this name: `ZSCORE name key`.
    SortedSet(String),
}

impl RedisMembership {
    pub(super) fn command(&self, key: &[u8]) -> Cmd {
        match self {
            Self::Keys => two("EXISTS", key),
            Self::Hash(name) => three("HEXISTS", name.as_bytes(), key),
            Self::Set(name) => three("SISMEMBER", name.as_bytes(), key),
            Self::SortedSet(name) => three("ZSCORE", name.as_bytes(), key),
        }
    }
}

fn two(name: &str, key: &[u8]) -> Cmd {
    let mut command = cmd(name);
    command.arg(key);
    command
}

fn three(name: &str, key: &[u8], value: &[u8]) -> Cmd {
    let mut command = two(name, key);
    command.arg(value);
    command
}

fn four(name: &str, outer: &str, one: &[u8], other: &[u8]) -> Cmd {
    let mut command = three(name, outer.as_bytes(), one);
    command.arg(other);
    command
}
