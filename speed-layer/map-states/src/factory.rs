//! Factories of the three kinds of states.

use std::{fmt, marker::PhantomData};

use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use stratus_trident::{
    NonTransactionalMap, OpaqueMap, OpaqueValue, StateFactory, StateKind, TransactionalMap,
    TransactionalValue, TridentValue,
};

use crate::{Front, MapStore};

macro_rules! factories {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $state:ident<$value:ident>, $stored:ty;)*) => {$(
        $(#[$doc])*
        pub struct $name<$value, M> {
            store: M,
            name: String,
            cached: usize,
            value: PhantomData<fn() -> $value>,
        }

        impl<$value, M> $name<$value, M> {
            pub(crate) fn new(store: M, name: &str) -> Self {
                Self { store, name: name.to_owned(), cached: 0, value: PhantomData }
            }

            /// Keeps the values of so many keys of each task in memory, those that were used last; 0, as at first,
            /// is none. Only for a state that nobody else writes.
            #[must_use]
            pub fn cached(mut self, keys: usize) -> Self {
                self.cached = keys;
                self
            }
        }

        impl<$value, M: Clone> Clone for $name<$value, M> {
            fn clone(&self) -> Self {
                Self { cached: self.cached, ..Self::new(self.store.clone(), &self.name) }
            }
        }

        impl<$value, M: fmt::Debug> fmt::Debug for $name<$value, M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?}, {:?})"), self.name, self.store)
            }
        }

        #[async_trait]
        impl<$value: TridentValue, M: MapStore> StateFactory for $name<$value, M> {
            type State = $state<$value, Front<$stored, M::Map<$stored>>>;

            fn kind(&self) -> StateKind {
                StateKind::$kind
            }

            async fn make(
                &self,
                _context: &TaskContext,
                _partition: usize,
                _count: usize,
            ) -> Result<Self::State, TaskError> {
                Ok($state::new(Front::new(self.store.map(StateKind::$kind, &self.name).await?, self.cached)))
            }
        }
    )*};
}

factories! {
    /// Makes opaque states, `[txid, value, previous]` by key.
    OpaqueStates: Opaque, OpaqueMap<V>, OpaqueValue<V>;
    /// Makes transactional states, `[txid, value]` by key.
    TransactionalStates: Transactional, TransactionalMap<V>, TransactionalValue<V>;
    /// Makes states without a promise, the value alone by key.
    NonTransactionalStates: NonTransactional, NonTransactionalMap<V>, V;
}
