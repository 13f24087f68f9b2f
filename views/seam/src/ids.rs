//! The names of things that outlive a process.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A micro-batch of a source, numbered from 1 within a generation. 0 stands for the state before the first.
pub type TxId = u64;
/// The number of an epoch of a view within a generation: a name, never compared with another view's.
pub type EpochNo = u32;
/// The number of a shard of a source, from 0.
pub type ShardNo = u32;

macro_rules! uuid_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one, later in order than those made before.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.simple().fmt(f)
            }
        }
    };
}

uuid_name! {
    /// One life of a source's name: a source that was dropped and made again has another id.
    SourceId
}
uuid_name! {
    /// One life of a view's name. Speed state and versions belong to the id, never to the name.
    ViewId
}
uuid_name! {
    /// One run of the batch layer. Later runs come later in order.
    RunId
}
uuid_name! {
    /// One life of a source's speed state. A doubtful store is not repaired but replaced by a new generation.
    Generation
}
uuid_name! {
    /// One appending of a ledger entry: a txid that was appended anew, after a loss, has another attempt.
    Attempt
}

/// Who may write a source's speed state. Compared for equality only: the counter tells a reader of the store which
/// came later, the random id keeps two writers apart that counted from the same loss. Trident's fences for other states
/// order lives by the counter, and promise nothing once a ledger has lost its tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// One more than the highest that was seen when the token was made.
    pub counter: u64,
    /// Random.
    pub id: Uuid,
}

impl Token {
    /// A token that equals no other one.
    pub fn after(counter: u64) -> Self {
        Self { counter: counter + 1, id: Uuid::new_v4() }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.counter, self.id.simple())
    }
}
