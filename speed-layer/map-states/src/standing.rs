//! What a process knows of a state, whoever in it works on the state.
//!
//! A loss may be seen by any task and concerns all of them: what one task's write was acknowledged with, another one
//! must find. Were the tasks to know only of their own writes, a task whose write was lost would be refused, another
//! one would go on with the next transaction, and the store would then look to the first as if nothing were missing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stratus_trident::TransactionAttempt;

use crate::MapError;

/// What the handles of a process share about one state.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The highest count of writes that the store has acknowledged.
    acknowledged: u64,
    /// The last attempt that wrote, where the store does not keep that itself.
    latest: Option<TransactionAttempt>,
    /// Whether it was said that the state begins in the midst of the transactions.
    began_late: bool,
    /// Why nothing more is written. It stays: later writes of others must not make it look right again.
    refused: Option<Refusal>,
}

/// Why a state takes nothing more from this process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// The store holds fewer writes than it acknowledged.
    WentBack { acknowledged: u64, found: u64 },
    /// It was cleared while handles were open.
    Cleared,
}

impl Refusal {
    fn told(self, what: &str) -> MapError {
        let what = what.to_owned();
        match self {
            Self::WentBack { acknowledged, found } => MapError::WentBack { what, acknowledged, found },
            Self::Cleared => MapError::Cleared { what },
        }
    }
}

impl Standing {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many writes the store must hold at least. It is to be taken before the store is asked: meanwhile another
    /// task's write may be acknowledged that the answer did not yet know of.
    pub(crate) fn floor(&self) -> u64 {
        self.known().acknowledged
    }

    /// The store has acknowledged a write, and holds so many since.
    pub(crate) fn taken(&self, writes: u64) {
        let mut known = self.known();
        known.acknowledged = known.acknowledged.max(writes);
    }

    /// An attempt writes. An error if a later attempt at the same transaction has written.
    pub(crate) fn latest(&self, what: &str, attempt: TransactionAttempt) -> Result<(), MapError> {
        let mut known = self.known();
        let later =
            |latest: TransactionAttempt| latest.txid == attempt.txid && latest.attempt > attempt.attempt;
        if known.latest.is_some_and(later) {
            return Err(MapError::Replaced { what: what.to_owned(), txid: attempt.txid });
        }
        known.latest = Some(attempt);
        Ok(())
    }

    /// A state that no transaction has written begins with a later one than the first: it is new, or had no part in those
    /// before, or its store has lost everything, and nothing in the store says which. Said once.
    pub(crate) fn begins_late(&self, what: &str, txid: u64) {
        if !std::mem::replace(&mut self.known().began_late, true) {
            tracing::warn!(
                "{what}: nothing has written this state, and it begins with transaction {txid}. If it is not new, its \
                 store has lost it: end the topology, and restore the state or count again from the beginning of the log"
            );
        }
    }

    /// Refuses whatever comes from here on; answers with the error. The first reason stays.
    pub(crate) fn refuse(&self, what: &str, refusal: Refusal) -> MapError {
        self.known().refused.get_or_insert(refusal).told(what)
    }

    /// An error if the state was refused.
    pub(crate) fn check(&self, what: &str) -> Result<(), MapError> {
        self.known().refused.map_or(Ok(()), |refusal| Err(refusal.told(what)))
    }
}

/// The standing of each state of a store.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<HashMap<String, Arc<Standing>>>);

impl Standings {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Standing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The standing of the state of this name.
    pub(crate) fn of(&self, name: &str) -> Arc<Standing> {
        Arc::clone(self.all().entry(name.to_owned()).or_default())
    }

    /// The state was cleared: handles that are open are of the old one, and so are their caches. New ones begin anew.
    pub(crate) fn cleared(&self, name: &str) {
        if let Some(old) = self.all().remove(name) {
            old.known().refused = Some(Refusal::Cleared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stays_until_the_state_is_cleared() {
        let standings = Standings::default();
        let (one, two) = (standings.of("s"), standings.of("s"));
        one.taken(7);
        one.taken(6);
        assert_eq!(two.floor(), 7);
        one.check("s").unwrap();
        let refusal = Refusal::WentBack { acknowledged: two.floor(), found: 6 };
        assert!(matches!(two.refuse("s", refusal), MapError::WentBack { acknowledged: 7, found: 6, .. }));
        one.taken(8);
        // The first reason is the one that is told.
        let error = one.refuse("s", Refusal::Cleared);
        assert!(matches!(error, MapError::WentBack { acknowledged: 7, found: 6, .. }), "{error}");
        one.check("s").unwrap_err();
        standings.of("other").check("other").unwrap();
        standings.cleared("s");
        assert!(matches!(one.check("s"), Err(MapError::Cleared { .. })));
        let anew = standings.of("s");
        anew.check("s").unwrap();
        assert_eq!(anew.floor(), 0);
    }
}
