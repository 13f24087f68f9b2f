//! What a speed layer does when it starts, or when a write was refused: go on, or begin a new generation.
//!
//! When in doubt, a new generation: a doubtful store is not repaired but replaced, and every view begins at its own
//! newest version's vector. That is also the way out when an entry cannot be read again as it was: the master dataset
//! decides what the records of a range are, and a new generation reads them from it.

use std::collections::BTreeMap;

use crate::ids::{Attempt, Generation, TxId, ViewId};
use crate::ledger::{Ledger, Txn};
use crate::log::LogId;
use crate::offsets::OffsetVector;
use crate::shard::{Scope, ShardMeta};

/// An entry that was to be processed again, and whose records are no longer what they were: part of its range is a
/// gap, or the log delivers others. Learned by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The entry: its attempt, since another ledger may use its number for other records.
    pub attempt: Attempt,
    /// What was wrong, for people.
    pub why: String,
}

/// What was found before anything was written.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The ledger's record; none if there is none.
    pub ledger: Option<&'a Ledger>,
    /// Each shard's record with the keys that its scopes really have; none for an empty one.
    pub shards: &'a [Option<(ShardMeta, BTreeMap<Scope, u64>)>],
    /// The ledger's entries, in order.
    pub txns: &'a [Txn],
    /// The version of the engine that runs now.
    pub engine: &'a str,
    /// The views of the source with their versions that this engine can read, oldest first: the cut and the
    /// generation that gave it.
    pub views: &'a BTreeMap<ViewId, Vec<(OffsetVector, Generation)>>,
    /// The incarnation of the log that the source was created over.
    pub source_log: &'a LogId,
    /// Where the source's history begins: a record below it belongs to no layer.
    pub source_start: &'a OffsetVector,
    /// The incarnation that the log has now.
    pub log: &'a LogId,
    /// Where the log ends now.
    pub end: &'a OffsetVector,
    /// The entry at which the last attempt to go on failed for good.
    pub unreadable: Option<&'a Unreadable>,
    /// How many shards the configuration asks for; a generation keeps its own number.
    pub shard_count: u32,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The speed state fits together: take it over and process the entries from `replay` on, if there are any.
    Resume {
        /// The first txid that some shard does not hold, or that is not committed.
        replay: TxId,
    },
    /// It does not, or there is none: begin a new generation, for this reason.
    Begin {
        /// For people.
        reason: String,
    },
    /// Nothing can be continued, and a person must look.
    Stop {
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Decides what to do about what was found.
pub fn plan(facts: &Facts<'_>) -> Plan {
    if facts.log != facts.source_log {
        return Plan::Stop {
            reason: format!(
                "the log is not the one that the source was created over (it is {}, it was {}): it was deleted and made again. Drop the source and create it anew, or put the old log back",
                facts.log, facts.source_log
            ),
        };
    }
    if let Some(reason) = below_its_start(facts) {
        return Plan::Stop { reason };
    }
    let Some(ledger) = facts.ledger else {
        return Plan::Begin { reason: "there is no speed state yet".into() };
    };
    if let Some(reason) = log_went_back(ledger, facts.end) {
        return Plan::Stop { reason };
    }
    match doubt(ledger, facts) {
        Some(reason) => Plan::Begin { reason },
        None => Plan::Resume { replay: lowest(ledger, facts) + 1 },
    }
}

/// A log that ends below where the source began is not what it was either.
fn below_its_start(facts: &Facts<'_>) -> Option<String> {
    let (partition, start) =
        facts.source_start.iter().find(|(partition, start)| facts.end.get(*partition) < *start)?;
    Some(format!(
        "partition {partition} of the log ends at offset {}, below {start}, where the source begins: the log lost its tail or was replaced. Put the log back, or drop the source and create it anew",
        facts.end.get(partition)
    ))
}

/// A log that ends below what was absorbed from it has lost records or was replaced in place.
fn log_went_back(ledger: &Ledger, end: &OffsetVector) -> Option<String> {
    let (partition, absorbed) =
        ledger.appended_to.iter().find(|(partition, absorbed)| end.get(*partition) < *absorbed)?;
    Some(format!(
        "partition {partition} of the log ends at offset {}, below {absorbed}, up to which it was read: the log lost its tail or was replaced. Put the log back, or drop the source and create it anew",
        end.get(partition)
    ))
}

/// The first reason not to trust the speed state, if there is one.
fn doubt(ledger: &Ledger, facts: &Facts<'_>) -> Option<String> {
    if ledger.log != *facts.log {
        return Some("the speed state belongs to an earlier incarnation of the log".into());
    }
    if ledger.engine != facts.engine {
        return Some(format!("the speed state was written by {}, this is {}", ledger.engine, facts.engine));
    }
    doubtful_shard(ledger, facts)
        .or_else(|| doubtful_entries(ledger, facts))
        .or_else(|| unreadable_entry(ledger, facts))
        .or_else(|| facts.views.iter().find_map(|(view, versions)| doubtful_view(ledger, *view, versions)))
}

fn doubtful_shard(ledger: &Ledger, facts: &Facts<'_>) -> Option<String> {
    // A generation that has no entry yet may not have claimed all of its shards.
    let fresh = ledger.appended == 0;
    if facts.shards.len() != ledger.shards as usize {
        return Some(format!(
            "the ledger speaks of {} shards, there are {}",
            ledger.shards,
            facts.shards.len()
        ));
    }
    for (shard, found) in facts.shards.iter().enumerate() {
        let of_generation = found.as_ref().filter(|(meta, _)| meta.generation == ledger.generation);
        let Some((meta, keys)) = of_generation else {
            if fresh {
                continue;
            }
            return Some(format!("shard {shard} is empty or of another generation"));
        };
        if meta.txid > ledger.appended {
            return Some(format!(
                "shard {shard} holds txid {}, but the ledger's last entry is {}: the ledger lost its tail",
                meta.txid, ledger.appended
            ));
        }
        if meta.token.id.is_nil() || (meta.txid == 0 && meta.attempt.is_some()) {
            return Some(format!("shard {shard} holds a part of the txid after {}", meta.txid));
        }
        let entry = facts.txns.iter().find(|txn| txn.txid == meta.txid);
        if entry.is_some_and(|txn| meta.attempt != Some(txn.attempt)) {
            return Some(format!("shard {shard} holds another attempt of txid {}", meta.txid));
        }
        if let Some((scope, rows)) =
            meta.rows.iter().find(|(scope, rows)| keys.get(scope).copied().unwrap_or(0) != **rows)
        {
            return Some(format!(
                "shard {shard} has {} keys of epoch {} of a view where it must have {rows}: the store lost some",
                keys.get(scope).copied().unwrap_or(0),
                scope.epoch
            ));
        }
    }
    None
}

/// Every txid that is not on all shards, or not committed, needs its entry.
fn doubtful_entries(ledger: &Ledger, facts: &Facts<'_>) -> Option<String> {
    let first = lowest(ledger, facts) + 1;
    let missing = (first..=ledger.appended).find(|txid| !facts.txns.iter().any(|txn| txn.txid == *txid))?;
    Some(format!("the ledger no longer has the entry of txid {missing}, which a shard still needs"))
}

/// An entry that cannot be read again can never be committed. It matters only while it still must be.
fn unreadable_entry(ledger: &Ledger, facts: &Facts<'_>) -> Option<String> {
    let unreadable = facts.unreadable?;
    let first = lowest(ledger, facts) + 1;
    let entry = facts.txns.iter().find(|txn| txn.txid >= first && txn.attempt == unreadable.attempt)?;
    Some(format!("the records of txid {} are no longer what they were: {}", entry.txid, unreadable.why))
}

/// The headers that published versions rely on must be in the ledger.
fn doubtful_view(ledger: &Ledger, view: ViewId, versions: &[(OffsetVector, Generation)]) -> Option<String> {
    let (newest, generation) = versions.last()?;
    let Some(epochs) = ledger.views.get(&view) else {
        return Some(format!("the ledger does not know view {view}, which has a published version"));
    };
    if *generation == ledger.generation && epochs.chain(newest).is_none() {
        return Some(format!(
            "the ledger lost the cut {newest} that the newest version of view {view} rests on"
        ));
    }
    let readable = versions.iter().any(|(cut, _)| epochs.chain(cut).is_some());
    (!readable).then(|| format!("no version of view {view} joins on to its speed state"))
}

/// The highest txid that is committed and that every shard holds.
fn lowest(ledger: &Ledger, facts: &Facts<'_>) -> TxId {
    let held = |found: &Option<(ShardMeta, BTreeMap<Scope, u64>)>| {
        found
            .as_ref()
            .filter(|(meta, _)| meta.generation == ledger.generation)
            .map_or(0, |(meta, _)| meta.txid)
    };
    facts.shards.iter().map(held).fold(ledger.committed, TxId::min)
}

/// The record of the new generation that [`Plan::Begin`] asks for. A view begins at its newest version's cut; one
/// that has none begins at the end of the log, where its first run will follow it. None begins below the source's
/// start, where the master dataset has nothing.
pub fn begin(facts: &Facts<'_>, reason: &str) -> Ledger {
    let from = |versions: &Vec<(OffsetVector, Generation)>| {
        versions.last().map_or_else(|| facts.end.clone(), |(cut, _)| cut.clone()).join(facts.source_start)
    };
    let views = facts.views.iter().map(|(view, versions)| (*view, from(versions))).collect();
    let on_shards = facts.shards.iter().flatten().map(|(meta, _)| meta.token.counter);
    let in_ledger = facts.ledger.map(|ledger| ledger.token.counter);
    let seen = on_shards.chain(in_ledger).max().unwrap_or(0);
    Ledger::begin(reason, facts.engine, facts.log.clone(), facts.shard_count, &views, facts.end.clone(), seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Token;
    use crate::offsets::OffsetRange;

    type Shards = Vec<Option<(ShardMeta, BTreeMap<Scope, u64>)>>;
    type Versions = BTreeMap<ViewId, Vec<(OffsetVector, Generation)>>;

    struct Found {
        ledger: Ledger,
        shards: Shards,
        txns: Vec<Txn>,
        views: Versions,
        log: LogId,
        start: OffsetVector,
        end: OffsetVector,
    }

    impl Found {
        /// Two entries, both on both shards, the first one committed; one view with a version at 0.
        fn healthy() -> Self {
            let view = ViewId::new();
            let log = LogId("l".into());
            let views = BTreeMap::from([(view, OffsetVector::zero())]);
            let ledger = Ledger::begin("test", "e", log.clone(), 2, &views, OffsetVector::zero(), 0);
            let range = |from, to| BTreeMap::from([(0, OffsetRange { from, to, records: 1 })]);
            let (ledger, one) = ledger.append(range(0, 5)).unwrap();
            let (ledger, two) = ledger.append(range(5, 9)).unwrap();
            let ledger = ledger.commit(&one, &BTreeMap::new()).unwrap();
            let shard = || {
                let mut meta = ShardMeta::empty(ledger.generation, ledger.token);
                meta.txid = 2;
                meta.attempt = Some(two.attempt);
                Some((meta, BTreeMap::new()))
            };
            let versions = BTreeMap::from([(view, vec![(OffsetVector::zero(), Generation::new())])]);
            Self {
                shards: vec![shard(), shard()],
                txns: vec![one, two],
                views: versions,
                log,
                start: OffsetVector::zero(),
                end: OffsetVector::from([(0, 9)]),
                ledger,
            }
        }

        fn plan(&self) -> Plan {
            plan(&self.facts())
        }

        fn facts(&self) -> Facts<'_> {
            Facts {
                ledger: Some(&self.ledger),
                shards: &self.shards,
                txns: &self.txns,
                engine: "e",
                views: &self.views,
                source_log: &self.log,
                source_start: &self.start,
                log: &self.log,
                end: &self.end,
                unreadable: None,
                shard_count: 2,
            }
        }

        fn shard(&mut self, index: usize) -> &mut ShardMeta {
            &mut self.shards[index].as_mut().unwrap().0
        }
    }

    #[test]
    fn what_fits_together_is_resumed_from_the_lowest() {
        let mut found = Found::healthy();
        assert_eq!(found.plan(), Plan::Resume { replay: 2 });
        found.shard(1).txid = 0;
        found.shard(1).attempt = None;
        assert_eq!(found.plan(), Plan::Resume { replay: 1 });
        found.txns.remove(0);
        assert!(matches!(found.plan(), Plan::Begin { .. }));
    }

    #[test]
    fn a_store_that_lost_something_is_replaced() {
        let mut emptied = Found::healthy();
        emptied.shards[0] = None;
        let mut ahead = Found::healthy();
        ahead.shard(0).txid = 3;
        let mut other = Found::healthy();
        other.shard(0).attempt = Some(crate::ids::Attempt::new());
        let mut torn = Found::healthy();
        torn.shard(1).txid = 0;
        let mut torn_later = Found::healthy();
        torn_later.shard(0).token.id = uuid::Uuid::nil();
        let mut evicted = Found::healthy();
        let scope = Scope { view: ViewId::new(), epoch: 1 };
        evicted.shard(1).rows.insert(scope, 1);
        let mut unknown = Found::healthy();
        unknown.views.insert(ViewId::new(), vec![(OffsetVector::zero(), Generation::new())]);
        let mut upgraded = Found::healthy();
        upgraded.ledger.engine = "an earlier one".into();
        let mut cut_lost = Found::healthy();
        let generation = cut_lost.ledger.generation;
        for versions in cut_lost.views.values_mut() {
            versions.push((OffsetVector::from([(0, 5)]), generation));
        }
        for found in [emptied, ahead, other, torn, torn_later, evicted, unknown, upgraded, cut_lost] {
            assert!(matches!(found.plan(), Plan::Begin { .. }), "{:?}", found.plan());
        }
    }

    #[test]
    fn a_version_of_a_lost_generation_does_not_unseat_the_one_that_is_readable() {
        let mut found = Found::healthy();
        for versions in found.views.values_mut() {
            versions.push((OffsetVector::from([(0, 7)]), Generation::new()));
        }
        assert_eq!(found.plan(), Plan::Resume { replay: 2 });
    }

    #[test]
    fn a_new_generation_begins_at_each_views_newest_version() {
        let mut found = Found::healthy();
        let old = *found.views.keys().next().unwrap();
        found.views.insert(old, vec![(OffsetVector::from([(0, 5)]), Generation::new())]);
        let new = ViewId::new();
        found.views.insert(new, Vec::new());
        found.shard(1).token = Token::after(40);
        let ledger = begin(&found.facts(), "test");
        assert_eq!(ledger.views[&old].epochs[0].from, OffsetVector::from([(0, 5)]));
        assert_eq!(ledger.views[&new].epochs[0].from, found.end);
        assert_eq!((ledger.start, ledger.target), (OffsetVector::from([(0, 5)]), found.end.clone()));
        assert_eq!(ledger.token.counter, 42);
    }

    #[test]
    fn a_log_that_is_another_one_or_went_back_stops() {
        let mut shrunk = Found::healthy();
        shrunk.end = OffsetVector::from([(0, 8)]);
        assert!(matches!(shrunk.plan(), Plan::Stop { .. }));
        let found = Found::healthy();
        let other = LogId("other".into());
        let facts = Facts { log: &other, ..found.facts() };
        assert!(matches!(plan(&facts), Plan::Stop { .. }));
    }

    #[test]
    fn a_log_that_ends_below_the_sources_start_stops() {
        let mut found = Found::healthy();
        found.start = OffsetVector::from([(1, 3)]);
        let facts = Facts { ledger: None, ..found.facts() };
        let Plan::Stop { reason } = plan(&facts) else { panic!("{:?}", plan(&facts)) };
        assert!(reason.contains("partition 1") && reason.contains("offset 0, below 3"), "{reason}");
    }

    #[test]
    fn an_entry_that_cannot_be_read_again_begins_a_new_generation() {
        let mut found = Found::healthy();
        let unreadable = |attempt| Unreadable { attempt, why: "offsets 5..9 of partition 0 are lost".into() };
        let (committed, pending) = (found.txns[0].attempt, found.txns[1].attempt);
        let plan_with =
            |found: &Found, attempt| plan(&Facts { unreadable: Some(&unreadable(attempt)), ..found.facts() });
        // Every shard holds the first one, and it is committed: nobody will read it again.
        assert_eq!(plan_with(&found, committed), Plan::Resume { replay: 2 });
        let Plan::Begin { reason } = plan_with(&found, pending) else { panic!() };
        assert!(reason.contains("txid 2") && reason.contains("are lost"), "{reason}");
        // A shard lost it: now it must be read again.
        found.shard(0).txid = 0;
        found.shard(0).attempt = None;
        assert!(matches!(plan_with(&found, committed), Plan::Begin { .. }));
        // An entry of a ledger that is gone says nothing about this one.
        assert_eq!(plan_with(&found, Attempt::new()), Plan::Resume { replay: 1 });
    }

    #[test]
    fn no_view_begins_below_the_sources_start() {
        let mut found = Found::healthy();
        let (old, new) = (*found.views.keys().next().unwrap(), ViewId::new());
        found.views.insert(old, vec![(OffsetVector::from([(0, 6)]), Generation::new())]);
        found.views.insert(new, Vec::new());
        found.start = OffsetVector::from([(0, 4), (1, 3)]);
        found.end = OffsetVector::from([(0, 9), (1, 3), (2, 1)]);
        let ledger = begin(&found.facts(), "test");
        assert_eq!(ledger.views[&old].epochs[0].from, OffsetVector::from([(0, 6), (1, 3)]));
        assert_eq!(ledger.views[&new].epochs[0].from, found.end);
        // A partition that was added after the source was created is read from its beginning.
        assert_eq!(ledger.start, OffsetVector::from([(0, 6), (1, 3)]));
    }

    #[test]
    fn a_generation_that_was_begun_but_not_claimed_is_resumed() {
        let mut found = Found::healthy();
        found.ledger = begin(&found.facts(), "test");
        found.txns.clear();
        assert_eq!(found.plan(), Plan::Resume { replay: 1 });
    }
}
