//! The values of one state.

use std::{fmt, marker::PhantomData};

use async_trait::async_trait;
use stratus_topology::TaskError;
use stratus_trident::{BackingMap, TransactionAttempt};

use super::{Keys, connection::Connection, script, trouble};
use crate::{
    MapError, Stored,
    guard::{self, Guard, Seen},
    json,
    standing::Refusal,
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
    pub(super) fn new(connection: Connection, keys: Keys, guard: Guard, what: String) -> Self {
        Self { connection, keys, guard, what, value: PhantomData }
    }

    /// The last transaction that wrote, and how many writes there were.
    async fn seen(&mut self) -> Result<(Seen, u64), MapError> {
        let told = |error| trouble::told(&format!("{}: beginning a transaction", self.what), &error);
        let command =
            redis::cmd("HMGET").arg(&self.keys.meta).arg(&["kind", "txid", "writes", "digest"]).take();
        let found: Vec<Option<String>> = self.connection.run(&command).await.map_err(told)?;
        let [kind, txid, writes, digest] = <[_; 4]>::try_from(found)
            .map_err(|found| self.damaged(&format!("four fields were asked for: {found:?}")))?;
        if kind.as_deref() != Some(guard::name(self.guard.kind)) {
            return Err(self.guard.standing.refuse(&self.what, Refusal::Cleared));
        }
        let number = |field: &str, found: Option<String>| {
            let number = found.as_deref().map_or(Ok(0), str::parse);
            number.map_err(|_| self.damaged(&format!("the {field} in {} is {found:?}", self.keys.meta)))
        };
        let seen = Seen { txid: number("txid", txid)?, digest: number("digest", digest)? };
        Ok((seen, number("writes", writes)?))
    }

    fn damaged(&self, cause: &str) -> MapError {
        let cause =
            format!("{cause}: somebody else wrote it; restore it, or clear the state and count again");
        MapError::Damaged { what: self.what.clone(), cause }
    }

    /// The values are gone, all of them, and what they were is not known.
    fn lost(&self) -> MapError {
        MapError::Damaged { what: self.what.clone(), cause: self.keys.values_are_gone() }
    }

    /// None of the keys that were asked for has a value. That is so for new keys, and when the server has evicted all
    /// values or somebody has deleted them: then there is still a txid. It is asked for first, since the values were
    /// there as soon as it was.
    async fn are_not_lost(&mut self) -> Result<(), MapError> {
        if !self.guard.keeps_txids() || self.seen().await?.0.txid == 0 {
            return Ok(());
        }
        let told = |error| trouble::told(&format!("{}: looking for its values", self.what), &error);
        let command = redis::cmd("EXISTS").arg(&self.keys.values).take();
        let there: bool = self.connection.run(&command).await.map_err(told)?;
        if there { Ok(()) } else { Err(self.lost()) }
    }

    async fn put(&mut self, pairs: &[String]) -> Result<(), MapError> {
        self.guard.standing.check(&self.what)?;
        let (txid, floor) = (self.guard.under_way(), self.guard.standing.floor());
        let fence = self.guard.attempt().and_then(TransactionAttempt::fence).unwrap_or(0);
        let texts = [txid, floor, fence, self.guard.digest()].map(|number| number.to_string());
        let mut args = vec![guard::name(self.guard.kind)];
        args.extend(texts.iter().chain(pairs).map(String::as_str));
        let answer: Vec<String> =
            self.connection.call(&script::PUT, &self.keys, &args).await.map_err(|error| {
                trouble::told(&format!("{}: writing {} keys", self.what, pairs.len() / 2), &error)
            })?;
        let number = |text: &str| {
            text.parse().map_err(|_| self.damaged(&format!("{} counts {text:?}", self.keys.meta)))
        };
        let standing = &self.guard.standing;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["put", writes] => {
                standing.taken(number(writes)?);
                Ok(())
            }
            ["cleared"] => Err(standing.refuse(&self.what, Refusal::Cleared)),
            ["lost"] => Err(self.lost()),
            ["back", found] => {
                let refusal = Refusal::WentBack { acknowledged: floor, found: number(found)? };
                Err(standing.refuse(&self.what, refusal))
            }
            ["behind", seen] => {
                Err(MapError::Behind { what: self.what.clone(), seen: number(seen)?, asked: txid })
            }
            ["other"] => Err(MapError::OtherBatch { what: self.what.clone(), txid }),
            ["replaced"] => Err(MapError::Replaced { what: self.what.clone(), txid }),
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
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        self.guard.begin_attempt(attempt);
    }

    fn is_of(&mut self, digest: Option<u64>) {
        self.guard.is_of(digest);
    }

    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        self.guard.end(&self.what)?;
        let mut seen = Seen::default();
        if self.guard.guards(txid).is_some() {
            let floor = self.guard.standing.floor();
            let (found, writes) = self.seen().await?;
            if writes < floor {
                let refusal = Refusal::WentBack { acknowledged: floor, found: writes };
                return Err(self.guard.standing.refuse(&self.what, refusal).into());
            }
            seen = found;
        }
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
            if found.iter().all(Option::is_none) {
                self.are_not_lost().await?;
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
            let value = json::text(&value);
            let value = value.map_err(|cause| MapError::unwritable(&self.what, &key, &cause))?;
            pairs.extend([key, value]);
        }
        for pairs in pairs.chunks(2 * PUT) {
            self.put(pairs).await?;
        }
        Ok(())
    }
}
