//! The values of one state.

use std::{fmt, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use redb::{ReadableDatabase, ReadableTable};
use stratus_topology::TaskError;
use stratus_trident::{BackingMap, StateKind, TransactionAttempt};

use super::{
    DIGESTS, File, STATES,
    trouble::{Trouble, blocking},
    values,
};
use crate::{
    MapError, Stored,
    guard::{self, Guard, Seen},
    json,
};

/// The table of a state's values.
pub(super) fn table(name: &str) -> String {
    format!("values:{name}")
}

/// A state's values in a redb file.
pub struct RedbMap<T> {
    file: Arc<File>,
    name: Arc<str>,
    guard: Guard,
    /// Which state, where.
    what: String,
    value: PhantomData<fn() -> T>,
}

impl<T> RedbMap<T> {
    pub(super) fn new(file: Arc<File>, name: &str, guard: Guard, what: String) -> Self {
        Self { file, name: name.into(), guard, what, value: PhantomData }
    }
}

/// The last transaction that wrote.
fn seen(
    states: &impl ReadableTable<&'static str, (&'static str, u64)>,
    digests: &impl ReadableTable<&'static str, u64>,
    name: &str,
    kind: StateKind,
    what: &str,
) -> Result<Seen, Trouble> {
    let digest = digests.get(name)?.map_or(0, |digest| digest.value());
    match states.get(name)?.map(|held| (held.value().0 == guard::name(kind), held.value().1)) {
        Some((true, txid)) => Ok(Seen { txid, digest }),
        _ => Err(MapError::Cleared { what: what.to_owned() }.into()),
    }
}

impl<T> fmt::Debug for RedbMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedbMap").field(&self.what).finish()
    }
}

#[async_trait]
impl<T: Stored> BackingMap<T> for RedbMap<T> {
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        self.guard.begin_attempt(attempt);
    }

    fn is_of(&mut self, digest: Option<u64>) {
        self.guard.is_of(digest);
    }

    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        self.guard.end(&self.what)?;
        let mut found = Seen::default();
        if self.guard.guards(txid).is_some() {
            let what = format!("{}: beginning a transaction", self.what);
            let (file, name, kind) = (Arc::clone(&self.file), Arc::clone(&self.name), self.guard.kind);
            let told = what.clone();
            let look = move || {
                let txn = file.db.begin_read()?;
                seen(&txn.open_table(STATES)?, &txn.open_table(DIGESTS)?, &name, kind, &told)
            };
            found = blocking(&what, look).await.map_err(|error| self.guard.told(error))?;
        }
        Ok(self.guard.begin(&self.what, txid, found)?)
    }

    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        let what = format!("{}: reading {} keys", self.what, keys.len());
        let (file, name, keys) = (Arc::clone(&self.file), Arc::clone(&self.name), keys.to_vec());
        let kind = guard::name(self.guard.kind);
        let look = move || {
            let txn = file.db.begin_read()?;
            let table = txn.open_table(values(&table(&name)))?;
            let values = keys.iter().map(|key| {
                let Some(value) = table.get(key.as_str())? else { return Ok(None) };
                serde_json::from_slice(value.value()).map(Some).map_err(|error| {
                    Trouble::Damaged(format!("the value of {key:?} is none of this {kind} state: {error}"))
                })
            });
            values.collect::<Result<Vec<Option<T>>, Trouble>>()
        };
        Ok(blocking(&what, look).await?)
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.guard.standing.check(&self.what)?;
        let what = format!("{}: writing {} keys", self.what, entries.len());
        let entries = entries.into_iter().map(|(key, value)| match json::text(&value) {
            Ok(value) => Ok((key, value.into_bytes())),
            Err(cause) => Err(MapError::unwritable(&self.what, &key, &cause)),
        });
        let entries: Vec<(String, Vec<u8>)> = entries.collect::<Result<_, MapError>>()?;
        let (file, name, kind) = (Arc::clone(&self.file), Arc::clone(&self.name), self.guard.kind);
        let (txid, digest, told) = (self.guard.under_way(), self.guard.digest(), what.clone());
        let (attempt, standing) = (self.guard.attempt(), Arc::clone(&self.guard.standing));
        let write = move || {
            let txn = file.db.begin_write()?;
            {
                let (mut states, mut digests) = (txn.open_table(STATES)?, txn.open_table(DIGESTS)?);
                let seen = seen(&states, &digests, &name, kind, &told)?;
                guard::check(&told, txid, digest, seen)?;
                if let Some(attempt) = attempt {
                    // One write after the other, and only this process has the file open.
                    standing.latest(&told, attempt)?;
                }
                if txid > seen.txid {
                    states.insert(&*name, (guard::name(kind), txid))?;
                }
                if txid > seen.txid || (txid == seen.txid && digest != 0) {
                    digests.insert(&*name, digest)?;
                }
                let mut table = txn.open_table(values(&table(&name)))?;
                for (key, value) in &entries {
                    table.insert(key.as_str(), value.as_slice())?;
                }
            }
            // Immediate: on disk when it returns.
            Ok(txn.commit()?)
        };
        Ok(blocking(&what, write).await.map_err(|error| self.guard.told(error))?)
    }
}
