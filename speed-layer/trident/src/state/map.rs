//! Maps as states, over any store that can get and put many keys at once.

mod cache;

use std::{collections::HashMap, marker::PhantomData};

use async_trait::async_trait;
use stratus_topology::TaskError;

use super::{OpaqueValue, State, TransactionalValue};
use crate::{batch::TransactionAttempt, tuple::TridentValue};

pub use cache::CachedMap;

/// A store of values by key. Keys are JSON arrays of the key fields' values.
#[async_trait]
pub trait BackingMap<T>: Send + Sync + 'static {
    /// What is put from here on is this attempt's. A store that keeps the highest [fence](TransactionAttempt::fence) that
    /// wrote can refuse an earlier attempt whose write comes late.
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        let _ = attempt;
    }

    /// The transaction that begins next is the batch of which this is written down, as a digest; none: nobody knows. A
    /// store that remembers the digest of the last one can refuse another batch under its number: the spout's ledger must
    /// have lost its end.
    fn is_of(&mut self, digest: Option<u64>) {
        let _ = digest;
    }

    /// What is put from here on belongs to this transaction; none: to no transaction. A store that remembers which
    /// transaction wrote last refuses one before it: the spout's ledger must have been lost.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        let _ = txid;
        Ok(())
    }

    /// The value of each key, in order.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError>;

    /// Puts values. They are durable when this returns.
    ///
    /// # Errors
    ///
    /// Some, all or none may have been put. An error fails the batch, which is tried again.
    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError>;
}

/// A map from keys to values that batches update.
#[async_trait]
pub trait MapState<V: TridentValue>: State {
    /// The value of each key, in order. Outside of transactions, as for queries, it is the latest. Within one, of a key
    /// that this attempt has updated it is what that made of it; else, in an opaque map, the value before the
    /// transaction, whatever attempts before this one have written. A transactional map does not keep that value: to
    /// compute from what was there, use [`multi_update`](Self::multi_update), which is exact in both.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<V>>, TaskError>;

    /// Updates each key from its value before this transaction; answers with the new values. A key that was updated
    /// earlier in the same transaction, or stands earlier among these keys, is updated from there. What belongs to no
    /// transaction updates the latest value, whose transaction stays as it is; 0, which is before all of them, if there
    /// is none.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn multi_update(
        &mut self,
        keys: &[String],
        update: &mut (dyn FnMut(usize, Option<V>) -> Result<V, TaskError> + Send),
    ) -> Result<Vec<V>, TaskError>;
}

/// What the transaction under way has updated, and what it is. The store takes it as a whole at the end: of a key that is
/// updated twice it would otherwise take the first update without the second one, and a replay could not tell.
#[derive(Debug)]
struct Transaction<T> {
    /// Within, what the updates belong to; without, no commit is under way.
    txid: Option<Option<u64>>,
    entries: Vec<(String, T)>,
    /// Where each key is among them.
    places: HashMap<String, usize>,
}

impl<T> Default for Transaction<T> {
    fn default() -> Self {
        Self { txid: None, entries: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Clone> Transaction<T> {
    fn begin(&mut self, txid: Option<Option<u64>>) {
        self.txid = txid;
        self.entries.clear();
        self.places.clear();
    }

    /// What this transaction made of a key.
    fn own(&self, key: &str) -> Option<&T> {
        self.places.get(key).and_then(|place| self.entries.get(*place)).map(|(_, value)| value)
    }

    fn txid(&self) -> Result<Option<u64>, TaskError> {
        self.txid.ok_or_else(|| "this state is updated in commits alone, and none is under way".into())
    }

    /// The values of the keys, with whether this transaction wrote them.
    async fn values(
        &self,
        map: &mut impl BackingMap<T>,
        keys: &[String],
    ) -> Result<Vec<(Option<T>, bool)>, TaskError> {
        let asked: Vec<String> = keys.iter().filter(|key| self.own(key).is_none()).cloned().collect();
        let mut stored = if asked.is_empty() { Vec::new() } else { map.multi_get(&asked).await? }.into_iter();
        let values = keys.iter().map(|key| match self.own(key) {
            Some(value) => (Some(value.clone()), true),
            None => (stored.next().flatten(), false),
        });
        Ok(values.collect())
    }

    fn put(&mut self, key: &str, value: T) {
        match self.places.get(key) {
            Some(place) => self.entries[*place].1 = value,
            None => {
                self.places.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
            }
        }
    }

    /// Ends the transaction, and gives the store what it has updated.
    async fn commit(&mut self, map: &mut impl BackingMap<T>) -> Result<(), TaskError> {
        let entries = std::mem::take(&mut self.entries);
        self.begin(None);
        if entries.is_empty() { Ok(()) } else { map.multi_put(entries).await }
    }
}

macro_rules! map_state {
    ($(#[$doc:meta])* $name:ident stores $stored:ty: $read:ident, $update:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<V, B> {
            map: B,
            transaction: Transaction<$stored>,
            value: PhantomData<fn() -> V>,
        }

        impl<V: TridentValue, B: BackingMap<$stored>> $name<V, B> {
            /// A state over this store.
            pub fn new(map: B) -> Self {
                Self { map, transaction: Transaction::default(), value: PhantomData }
            }
        }

        #[async_trait]
        impl<V: TridentValue, B: BackingMap<$stored>> State for $name<V, B> {
            fn begin_attempt(&mut self, attempt: TransactionAttempt) {
                self.map.begin_attempt(attempt);
            }

            fn is_of(&mut self, digest: Option<u64>) {
                self.map.is_of(digest);
            }

            async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
                self.transaction.begin(None);
                self.map.begin_commit(txid).await?;
                self.transaction.begin(Some(txid));
                Ok(())
            }

            async fn commit(&mut self, _txid: Option<u64>) -> Result<(), TaskError> {
                self.transaction.commit(&mut self.map).await
            }

            fn abandon(&mut self) {
                self.transaction.begin(None);
            }
        }

        #[async_trait]
        impl<V: TridentValue, B: BackingMap<$stored>> MapState<V> for $name<V, B> {
            async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<V>>, TaskError> {
                let values = self.transaction.values(&mut self.map, keys).await?;
                let read = |(stored, own): (Option<$stored>, bool)| match stored {
                    Some(stored) => $read(&self.transaction, stored, own),
                    None => Ok(None),
                };
                values.into_iter().map(read).collect()
            }

            async fn multi_update(
                &mut self,
                keys: &[String],
                update: &mut (dyn FnMut(usize, Option<V>) -> Result<V, TaskError> + Send),
            ) -> Result<Vec<V>, TaskError> {
                let values = self.transaction.values(&mut self.map, keys).await?;
                let mut results = Vec::with_capacity(keys.len());
                for (at, (key, (stored, own))) in keys.iter().zip(values).enumerate() {
                    // A key may stand here more than once.
                    let (stored, own) = match self.transaction.own(key) {
                        Some(updated) => (Some(updated.clone()), true),
                        None => (stored, own),
                    };
                    let mut update = |before| update(at, before);
                    let (result, entry) = $update(&self.transaction, stored, own, &mut update)?;
                    results.push(result);
                    if let Some(entry) = entry {
                        self.transaction.put(key, entry);
                    }
                }
                Ok(results)
            }
        }
    };
}

type Update<'a, V> = &'a mut (dyn FnMut(Option<V>) -> Result<V, TaskError> + Send);

map_state! {
    /// A map without a promise: a replayed batch counts again.
    NonTransactionalMap stores V: latest, plain
}

map_state! {
    /// A map that counts a batch once if its replay is the same batch.
    TransactionalMap stores TransactionalValue<V>: latest_of_transactions, transactional
}

map_state! {
    /// A map that counts a batch once, also if its replay has other tuples.
    OpaqueMap stores OpaqueValue<V>: before, opaque
}

fn latest<V>(_transaction: &Transaction<V>, stored: V, _own: bool) -> Result<Option<V>, TaskError> {
    Ok(Some(stored))
}

fn latest_of_transactions<V>(
    _transaction: &Transaction<TransactionalValue<V>>,
    TransactionalValue(_, value): TransactionalValue<V>,
    _own: bool,
) -> Result<Option<V>, TaskError> {
    Ok(Some(value))
}

/// The latest value; while a transaction is under way, what is not its own is what was there before it.
fn before<V: Clone>(
    transaction: &Transaction<OpaqueValue<V>>,
    stored: OpaqueValue<V>,
    own: bool,
) -> Result<Option<V>, TaskError> {
    match transaction.txid.flatten() {
        Some(txid) if !own => Ok(stored.before(txid)?.cloned()),
        _ => Ok(Some(stored.current().clone())),
    }
}

fn plain<V: TridentValue>(
    _transaction: &Transaction<V>,
    stored: Option<V>,
    _own: bool,
    update: Update<'_, V>,
) -> Result<(V, Option<V>), TaskError> {
    let value = update(stored)?;
    Ok((value.clone(), Some(value)))
}

fn transactional<V: TridentValue>(
    transaction: &Transaction<TransactionalValue<V>>,
    stored: Option<TransactionalValue<V>>,
    own: bool,
    update: Update<'_, V>,
) -> Result<(V, Option<TransactionalValue<V>>), TaskError> {
    let Some(txid) = transaction.txid()? else {
        let at = stored.as_ref().map_or(0, |TransactionalValue(at, _)| *at);
        let value = update(stored.map(|TransactionalValue(_, value)| value))?;
        return Ok((value.clone(), Some(TransactionalValue(at, value))));
    };
    let before = match stored {
        // An earlier attempt at the same batch has counted already.
        Some(TransactionalValue(at, value)) if at == txid && !own => return Ok((value, None)),
        Some(TransactionalValue(at, _)) if at > txid => {
            return Err(format!("transaction {txid} is behind the state, where {at} has written").into());
        }
        stored => stored.map(|TransactionalValue(_, value)| value),
    };
    let value = update(before)?;
    Ok((value.clone(), Some(TransactionalValue(txid, value))))
}

fn opaque<V: TridentValue>(
    transaction: &Transaction<OpaqueValue<V>>,
    stored: Option<OpaqueValue<V>>,
    own: bool,
    update: Update<'_, V>,
) -> Result<(V, Option<OpaqueValue<V>>), TaskError> {
    let txid = transaction.txid()?;
    let Some(stored) = stored else {
        let value = update(None)?;
        return Ok((value.clone(), Some(OpaqueValue::new(txid.unwrap_or(0), value, None))));
    };
    let Some(txid) = txid else {
        let value = update(Some(stored.current().clone()))?;
        return Ok((value.clone(), Some(stored.outside(value))));
    };
    let previous = stored.before(txid)?.cloned();
    let from = if own { Some(stored.current().clone()) } else { previous.clone() };
    let value = update(from)?;
    Ok((value.clone(), Some(OpaqueValue::new(txid, value, previous))))
}
