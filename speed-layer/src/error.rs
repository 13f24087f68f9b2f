//! What can go wrong in the speed layer, by what is to be done about it.

use stratus_logs::codec::CodecError;
use stratus_seam::catalog_log::CatalogError;
use stratus_seam::encoding::EncodingError;
use stratus_seam::ids::Attempt;
use stratus_seam::ledger::LedgerMisfit;
use stratus_seam::log::LogError;
use stratus_seam::recovery::Unreadable;
use stratus_seam::shard::Refusal;
use stratus_seam::store::StoreError;

/// Why the coordinator of a source left its work. Everything but [`SpeedError::Stop`] and a log that was replaced is
/// answered by recovering from what the store then says; see [`SpeedError::is_final`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeedError {
    /// A person must look; trying again changes nothing.
    #[error("{0}")]
    Stop(String),
    /// Something for which the hold on the state is let go, told elsewhere.
    #[error("{0}")]
    Recovers(String),
    /// The topology of the views could not be started.
    #[error("the topology of the source's views: {0}")]
    Topology(String),
    /// Another writer has the ledger, or it went back.
    #[error("the ledger has another writer or went back")]
    LostLedger,
    /// A shard refused a commit.
    #[error("shard {shard} refused txid {txid}: {refusal}")]
    Refused {
        /// The shard.
        shard: u32,
        /// The txid.
        txid: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A shard changed hands while it was claimed.
    #[error("shard {0} changed hands while it was claimed")]
    LostShard(u32),
    /// The log delivers other records for a range than the ledger has written down.
    #[error(
        "txid {txid}, partition {partition}: the ledger says {expected} records in {from}..{to}, the log delivers {found}"
    )]
    OtherRecords {
        /// The txid.
        txid: u64,
        /// The appending of it.
        attempt: Attempt,
        /// The partition.
        partition: u32,
        /// The range's beginning.
        from: u64,
        /// The range's end.
        to: u64,
        /// The records when the range was written down.
        expected: u64,
        /// The records now.
        found: u64,
    },
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A decision was made on facts that no longer hold.
    #[error(transparent)]
    Misfit(#[from] LedgerMisfit),
    /// A stored state cannot be read.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The codec, other than for a bad record.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A view could not be prepared or computed.
    #[error("view \"{view}\": {message}")]
    View {
        /// Its name.
        view: String,
        /// What happened.
        message: String,
    },
}

impl SpeedError {
    /// Whether a person must look, because trying again changes nothing.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self, Self::Stop(_) | Self::Log(LogError::Replaced { .. }))
    }

    /// The entry that can never be processed again as it was written down, if that is what is wrong.
    pub(crate) fn unreadable(&self) -> Option<Unreadable> {
        match self {
            Self::OtherRecords { attempt, .. } => {
                Some(Unreadable { attempt: *attempt, why: self.to_string() })
            }
            _ => None,
        }
    }
}
