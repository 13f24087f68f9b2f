//! What goes wrong with a state, and what to do about it. Addresses are told without their passwords.

/// Why a state cannot be opened, read or written. `what` says what was tried, where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The address cannot be used. It is not repeated: it may hold a password.
    #[error("the address of the Redis server cannot be used: {0}")]
    Address(String),
    /// The store did not answer, or refused. What was to be written may have been written.
    #[error("{what}: {cause}")]
    Unavailable {
        /// What was tried, where.
        what: String,
        /// Why not, and what to do.
        cause: String,
    },
    /// What is stored is not what a state of this kind and type writes.
    #[error("{what}: {cause}")]
    Damaged {
        /// What was tried, where.
        what: String,
        /// What was found, and what to do.
        cause: String,
    },
    /// The state was begun as one of another kind.
    #[error(
        "{what}: it was begun as a {held} state and cannot be used as a {asked} one: take another name, or clear it and count again"
    )]
    OtherKind {
        /// Which state, where.
        what: String,
        /// What it is.
        held: String,
        /// What it was to be.
        asked: String,
    },
    /// A transaction before the highest that wrote.
    #[error(
        "{what}: this state has seen transaction {seen} and is asked for {asked}: the spout's ledger was lost, reset or exchanged, or this is a late write of a process that another one took over from. To go on would count batches twice or not at all. Restore the ledger; if it is gone for good, clear the state (or take another name for it) and count again from the beginning of the log"
    )]
    Behind {
        /// Which state, where.
        what: String,
        /// The highest transaction that wrote.
        seen: u64,
        /// The transaction that was asked for.
        asked: u64,
    },
    /// Another batch under the number of the last transaction that wrote.
    #[error(
        "{what}: transaction {txid} has written, and what is asked for under this number is another batch: the spout's ledger has lost its end, and another batch was given the number. To go on would count records twice or not at all. Restore the ledger; if what it had is gone for good, clear the state (or take another name for it) and count again from the beginning of the log"
    )]
    OtherBatch {
        /// Which state, where.
        what: String,
        /// The transaction.
        txid: u64,
    },
    /// A write of an attempt at a transaction, when a later attempt at it has written.
    #[error(
        "{what}: a later attempt at transaction {txid} has written, so this is a late write of one that was given up: a write that had no answer in time, or one of a process that another one took over from. It is refused, and nothing is to be done. If it is told again and again, the spout's ledger was restored from an earlier life, or a spout has left the topology while this transaction was under way: end the topology, delete the fence (Redis: HDEL trident:{{NAME}}:meta fence; redb keeps it in the process), and start the topology again"
    )]
    Replaced {
        /// Which state, where.
        what: String,
        /// The transaction.
        txid: u64,
    },
    /// A value that cannot be written down.
    #[error(
        "{what}: the value of {key} cannot be written: {cause}. Nothing of this put was, and so it will be whenever the batch is tried: filter such tuples before they are aggregated"
    )]
    Unwritable {
        /// Which state, where.
        what: String,
        /// The key.
        key: String,
        /// Why not.
        cause: String,
    },
    /// The server is set up in a way that loses states.
    #[error("{what}: {cause}")]
    Unsuitable {
        /// Which server.
        what: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// The store has lost what it had acknowledged. All tasks of the state in this process are refused from then on, for
    /// what one of them writes could hide what another one lost.
    #[error(
        "{what}: the store acknowledged write {acknowledged} of this state and now holds no more than {found}: it has lost writes (Redis: set appendonly yes and appendfsync always). Restore it and start this process again, or clear the state and the spout's ledger and count again from the beginning of the log"
    )]
    WentBack {
        /// Which state, where.
        what: String,
        /// How many writes were acknowledged to this process, counted from the state's beginning.
        acknowledged: u64,
        /// How many are there.
        found: u64,
    },
    /// The state was cleared under a topology that uses it. Handles that were open then are refused for good.
    #[error(
        "{what}: the state was cleared, or lost, while it was in use: end the topology, and start it again with the ledger that belongs to the state as it is now"
    )]
    Cleared {
        /// Which state, where.
        what: String,
    },
}

impl MapError {
    pub(crate) fn unwritable(what: &str, key: &str, cause: &dyn std::fmt::Display) -> Self {
        Self::Unwritable { what: what.to_owned(), key: key.to_owned(), cause: cause.to_string() }
    }
}
