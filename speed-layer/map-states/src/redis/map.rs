//! The values of one state.

use std::{fmt, marker::PhantomData};

use async_trait::async_trait;
use stratus_topology::TaskError;
use stratus_trident::{BackingMap, StateKind};

use super::{Keys, connection::Connection, script, trouble};
use crate::{
    MapError, Stored,
    guard::{self, Guard},
};

/// Keys that are read by one command, which the server runs alone.
const READ: usize = 10_000;

/// Keys that are put by one call of the script. More are put by several, so that the server can answer others.
const PUT: usize = 50_000;

/// A state's values in a Redis hash; a connection of its own.
pub struct RedisMap<T> {
    connection: Connection,
    keys: Keys,
    guard: Guard,
    /// Which state, where.
    what: String,
    value: PhantomData<fn() -> T>,
}

impl<T> RedisMap<T> {
    pub(super) fn new(connection: Connection, keys: Keys, kind: StateKind, what: String) -> Self {
        Self { connection, keys, guard: Guard::new(kind), what, value: PhantomData }
    }

    async fn seen(&mut self) -> Result<u64, MapError> {
        let told = |error| trouble::told(&format!("{}: beginning a transaction", self.what), &error);
        let command = redis::cmd("HMGET").arg(&self.keys.meta).arg("kind").arg("txid").take();
        let (kind, txid): (Option<String>, Option<String>) =
            self.connection.run(&command).await.map_err(told)?;
        if kind.as_deref() != Some(guard::name(self.guard.kind)) {
            return Err(MapError::Cleared { what: self.what.clone() });
        }
        let Some(txid) = txid else { return Ok(0) };
        txid.parse().map_err(|_| self.damaged(&format!("the txid in {} is {txid:?}", self.keys.meta)))
    }

    fn damaged(&self, cause: &str) -> MapError {
        let cause =
            format!("{cause}: somebody else wrote it; restore it, or clear the state and count again");
        MapError::Damaged { what: self.what.clone(), cause }
    }

    async fn put(&mut self, pairs: &[String]) -> Result<(), MapError> {
        let txid = self.guard.under_way();
        let text = txid.to_string();
        let mut args = vec![guard::name(self.guard.kind), text.as_str()];
        args.extend(pairs.iter().map(String::as_str));
        let answer: Vec<String> =
            self.connection.call(&script::PUT, &self.keys, &args).await.map_err(|error| {
                trouble::told(&format!("{}: writing {} keys", self.what, pairs.len() / 2), &error)
            })?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["put"] => {
                self.guard.taken(txid);
                Ok(())
            }
            ["cleared"] => Err(MapError::Cleared { what: self.what.clone() }),
            ["behind", seen] => {
                let seen = seen.parse().map_err(|_| self.damaged(&format!("its txid is {seen:?}")))?;
                Err(MapError::Behind { what: self.what.clone(), seen, asked: txid })
            }
            _ => Err(self.damaged(&format!("the script answers {answer:?}"))),
        }
    }
}

impl<T> fmt::Debug for RedisMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisMap").field(&self.what).finish()
    }
}

#[async_trait]
impl<T: Stored> BackingMap<T> for RedisMap<T> {
    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        let seen = if self.guard.guards(txid).is_some() { self.seen().await? } else { 0 };
        Ok(self.guard.begin(&self.what, txid, seen)?)
    }

    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ) {
            let command = redis::cmd("HMGET").arg(&self.keys.values).arg(keys).take();
            let told = |error| trouble::told(&format!("{}: reading {} keys", self.what, keys.len()), &error);
            let found: Vec<Option<Vec<u8>>> = self.connection.run(&command).await.map_err(told)?;
            if found.len() != keys.len() {
                let cause = format!("{} keys were asked for and {} answered", keys.len(), found.len());
                return Err(self.damaged(&cause).into());
            }
            for (key, value) in keys.iter().zip(found) {
                let value = value.map(|value| serde_json::from_slice(&value)).transpose();
                let kind = guard::name(self.guard.kind);
                values.push(value.map_err(|error| {
                    self.damaged(&format!(
                        "the value of {key:?} in {} is none of this {kind} state: {error}",
                        self.keys.values
                    ))
                })?);
            }
        }
        Ok(values)
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        let mut pairs = Vec::with_capacity(2 * entries.len());
        for (key, value) in entries {
            pairs.push(key);
            pairs.push(serde_json::to_string(&value)?);
        }
        for pairs in pairs.chunks(2 * PUT) {
            self.put(pairs).await?;
        }
        Ok(())
    }
}
