//! What every store is held to: one function per promise of [`stratus_seam::store`]. A case panics if the store
//! breaks its promise. Each works on sources of its own, so that cases may share a store.

#![allow(clippy::unwrap_used, reason = "a suite of tests: to panic is how it fails")]

mod ambiguity;
mod claims;
mod commits;
mod finding;
mod ledger;
mod owner;
mod reading;

use std::future::Future;
use std::sync::Arc;

use stratus_seam::store::StateStore;

pub use self::ambiguity::*;
pub use self::claims::*;
pub use self::commits::*;
pub use self::finding::*;
pub use self::ledger::*;
pub use self::reading::*;

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// Runs every case, each on a store made for it.
        ///
        /// # Panics
        /// If the store breaks a promise.
        pub async fn run_all<M, F>(make: M)
        where
            M: Fn() -> F,
            F: Future<Output = Arc<dyn StateStore>>,
        {
            $(
                tracing::debug!(case = stringify!($case), "conformance");
                $case(make().await).await;
            )*
        }
    };
}

cases!(
    nothing_is_created_by_asking,
    ledger_is_compared_and_set,
    entries_change_with_the_record,
    requests_stay_until_withdrawn,
    pins_are_renewed_and_taken_back,
    claim_needs_the_shard_as_seen,
    claim_by_another_generation_empties,
    claim_twice_is_once,
    takeover_keeps_contents,
    commit_is_applied,
    commit_again_is_no_change,
    misfits_are_refused_and_change_nothing,
    emptied_store_refuses_its_writer,
    large_commits_are_whole,
    any_characters_are_kept,
    shards_and_sources_are_apart,
    forgotten_source_is_gone,
    undo_reaches_back_to_its_depth,
    read_at_t_while_the_shard_is_ahead,
    pages_are_complete_while_commits_go_on,
    dropped_scopes_go_and_others_stay,
    drop_while_paging_is_noticed,
    found_keys_are_what_paging_and_filtering_gives,
    found_keys_are_of_one_moment,
    found_keys_are_brought_to_t,
    lost_commit_answers_are_settled_by_reading,
    lost_ledger_answers_are_settled_by_reading,
    lost_claim_answers_are_settled_by_asking_again,
    late_effects_of_a_zombie_are_refused,
    late_drop_touches_no_later_epoch,
);
