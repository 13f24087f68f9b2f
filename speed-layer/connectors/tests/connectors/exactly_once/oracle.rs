//! What the counts must be, told from the records that were sent, those that the log has lost, and the ledger.
//!
//! It is asked while nobody works: the process is killed, and the server has done all that it was sent. Then a batch is
//! one of three. Those that the ledger says are committed have counted every record that the log still had when they did.
//! Of the first one behind them, some keys may have been written. Those behind that one have written nothing, since
//! batches commit one after the other.
//!
//! Where the log loses records of the batch that is half written, each key for itself is right: the next attempt at it
//! begins from what was before the batch and counts the tuples that are left. A key that has none left does not come up in
//! that attempt, so that what is written stays: it was counted before it was lost.

use std::collections::BTreeMap;

use stratus_seam::{
    ledger::{Ledger, Txn},
    offsets::{OffsetRange, OffsetVector, Partition},
};

/// Counts by word.
pub(super) type Counts = BTreeMap<String, i64>;

/// What a state holds of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) txid: u64,
    pub(super) count: i64,
    /// What was before `txid`. Transactional states do not say.
    pub(super) before: Option<i64>,
}

/// The first batch that is not committed.
#[derive(Default)]
struct Half {
    ranges: BTreeMap<Partition, OffsetRange>,
    /// What each key that it has written got from it.
    written: Counts,
}

/// What was sent and lost, and what is settled of it.
pub(super) struct Oracle {
    /// The words of each record, by partition.
    sent: Vec<Vec<Vec<String>>>,
    /// Where each partition begins now; what was below is lost.
    low: Vec<u64>,
    /// What the committed batches have counted.
    settled: Counts,
    committed: u64,
    committed_to: OffsetVector,
    half: Half,
}

fn of(counts: &Counts, word: &str) -> i64 {
    counts.get(word).copied().unwrap_or(0)
}

impl Oracle {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            sent: vec![Vec::new(); partitions],
            low: vec![0; partitions],
            settled: Counts::new(),
            committed: 0,
            committed_to: OffsetVector::zero(),
            half: Half::default(),
        }
    }

    pub(super) fn send(&mut self, partition: usize, words: Vec<String>) {
        self.sent[partition].push(words);
    }

    /// Where each partition ends.
    pub(super) fn end(&self) -> OffsetVector {
        let mut end = OffsetVector::zero();
        self.sent.iter().zip(0..).for_each(|(records, partition)| end.set(partition, records.len() as u64));
        end
    }

    /// Where each partition begins.
    pub(super) fn low(&self) -> OffsetVector {
        let mut low = OffsetVector::zero();
        self.low.iter().zip(0..).for_each(|(from, partition)| low.set(partition, *from));
        low
    }

    /// What the committed batches have counted.
    pub(super) fn settled(&self) -> &Counts {
        &self.settled
    }

    /// All words that were ever sent.
    pub(super) fn words(&self) -> Counts {
        let mut counts = Counts::new();
        self.sent.iter().flatten().flatten().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
        counts
    }

    /// The words between these offsets that the log has not lost.
    fn left(&self, ranges: impl Iterator<Item = (Partition, u64, u64)>) -> Counts {
        let mut counts = Counts::new();
        for (partition, from, to) in ranges {
            let partition = partition as usize;
            let from = from.max(self.low[partition]).min(to) as usize;
            for word in self.sent[partition][from..to as usize].iter().flatten() {
                *counts.entry(word.clone()).or_default() += 1;
            }
        }
        counts
    }

    fn left_of(&self, ranges: &BTreeMap<Partition, OffsetRange>) -> Counts {
        self.left(ranges.iter().map(|(partition, range)| (*partition, range.from, range.to)))
    }

    /// Looks at the ledger, its entries and the state. An error says what is wrong with the state.
    pub(super) fn look(
        &mut self,
        ledger: &Ledger,
        entries: &[Txn],
        values: &BTreeMap<String, Value>,
        is_opaque: bool,
    ) -> Result<(), String> {
        if ledger.committed > self.committed {
            self.settle(ledger);
        }
        let next = self.committed + 1;
        let entry = entries.iter().find(|entry| entry.txid == next && next <= ledger.appended);
        let ranges = entry.map(|entry| entry.ranges.clone()).unwrap_or_default();
        let (left, mut written) = (self.left_of(&ranges), Counts::new());
        for (word, value) in values {
            let settled = of(&self.settled, word);
            let got = value.count - settled;
            let wrong = |what: &str| {
                Err(format!("{word}: {value:?}, {settled} settled up to {}: {what}", self.committed))
            };
            if value.txid < next && got != 0 {
                return wrong("not what was committed");
            } else if value.txid > next || value.txid == next && entry.is_none() {
                return wrong("out of turn");
            } else if value.txid == next {
                if is_opaque && value.before.unwrap_or(0) != settled {
                    return wrong("what was before is not what was committed");
                }
                let earlier = self.half.written.get(word).copied();
                if left.get(word).copied() != Some(got) && earlier != Some(got) {
                    return wrong(&format!("{:?} or {earlier:?} is in the batch", left.get(word)));
                }
                written.insert(word.clone(), got);
            }
        }
        if let Some(word) =
            self.settled.keys().chain(self.half.written.keys()).find(|word| !values.contains_key(*word))
        {
            return Err(format!("{word} is gone from the state"));
        }
        self.half = Half { ranges, written };
        Ok(())
    }

    /// Batches have been committed since the last look, the half written one first.
    fn settle(&mut self, ledger: &Ledger) {
        let to = |partition| ledger.committed_to.get(partition);
        let partitions = 0..self.sent.len() as Partition;
        let counted = self
            .left(partitions.map(|partition| (partition, self.committed_to.get(partition), to(partition))));
        let half = std::mem::take(&mut self.half);
        let left = self.left_of(&half.ranges);
        let stayed = half.written.into_iter().filter(|(word, _)| !left.contains_key(word));
        for (word, count) in counted.into_iter().chain(stayed) {
            *self.settled.entry(word).or_default() += count;
        }
        (self.committed, self.committed_to) = (ledger.committed, ledger.committed_to.clone());
    }

    /// The log loses what is below these offsets. Answers with how many words of the half written batch that takes away:
    /// those that its next attempt counts no more, and those that stay because their key does not come up again.
    pub(super) fn lose(&mut self, below: &[u64]) -> (i64, i64) {
        let before = self.left_of(&self.half.ranges);
        for (low, below) in self.low.iter_mut().zip(below) {
            *low = (*low).max(*below);
        }
        let left = self.left_of(&self.half.ranges);
        let (mut taken, mut stay) = (0, 0);
        for (word, count) in &before {
            match self.half.written.get(word) {
                Some(_) if left.contains_key(word) => taken += count - of(&left, word),
                Some(written) => stay += written,
                None => {}
            }
        }
        (taken, stay)
    }
}

#[test]
fn a_word_is_counted_once_or_lost() {
    let mut oracle = Oracle::new(1);
    for words in ["a b", "a c", "a", "d"] {
        oracle.send(0, words.split(' ').map(str::to_owned).collect());
    }
    let log = stratus_seam::log::LogId("words".to_owned());
    let begun = Ledger::begin("", "", log, 0, &BTreeMap::new(), OffsetVector::zero(), 0);
    let range = |from, to| BTreeMap::from([(0, OffsetRange { from, to, records: to - from })]);
    let (appended, first) = begun.append(range(0, 3)).unwrap();
    let values = |values: &[(&str, u64, i64)]| {
        let value = |txid, count| Value { txid, count, before: None };
        values.iter().map(|(word, txid, count)| ((*word).to_owned(), value(*txid, *count))).collect()
    };
    let entries = [first.clone()];
    for wrong in
        [values(&[("a", 1, 2)]), values(&[("a", 0, 3)]), values(&[("d", 1, 1)]), values(&[("a", 2, 3)])]
    {
        oracle.look(&appended, &entries, &wrong, true).unwrap_err();
    }
    // `c` was not written yet.
    oracle.look(&appended, &entries, &values(&[("a", 1, 3), ("b", 1, 1)]), true).unwrap();
    assert_eq!(oracle.lose(&[2]), (2, 1), "of a one is left; b stays");
    // Nothing was done since; or the next attempt wrote.
    oracle.look(&appended, &entries, &values(&[("a", 1, 3), ("b", 1, 1)]), true).unwrap();
    oracle.look(&appended, &entries, &values(&[("a", 1, 1), ("b", 1, 1)]), true).unwrap();
    let committed = appended.commit(&first, &BTreeMap::new()).unwrap();
    oracle.look(&committed, &[], &values(&[("a", 1, 3), ("b", 1, 1)]), true).unwrap_err();
    oracle.look(&committed, &[], &values(&[("a", 1, 1), ("b", 1, 1)]), true).unwrap();
    assert_eq!(*oracle.settled(), Counts::from([("a".to_owned(), 1), ("b".to_owned(), 1)]));
    assert_eq!(oracle.words().values().sum::<i64>(), 6);
}
