//! Up to where a partition is done: from single acks, in any order, to the one offset that a group can remember.

use std::collections::BTreeMap;

/// Offsets of one block.
const SPAN: u64 = 4_096;
const WORDS: usize = (SPAN / 64) as usize;

/// Follows the records of one partition from their emission to the commit of their offsets.
///
/// A group remembers one offset of a partition, below which everything is done. So what is committed is the longest
/// prefix without a record that is still open. Offsets that no record has (control records, aborted transactions, what
/// compaction took) are never emitted and hence never open: a prefix goes through them as if they were not there.
///
/// Two bits for each offset between the committed one and the position, in blocks: a million records take 250 KB.
#[derive(Clone, Debug)]
pub struct OffsetManager {
    /// What the group remembers: everything below is done.
    committed: u64,
    /// Where reading goes on: everything below was emitted or will never be.
    position: u64,
    blocks: BTreeMap<u64, Block>,
    uncommitted: usize,
    open: usize,
}

#[derive(Clone, Debug)]
struct Block {
    /// Emitted, and not below the committed offset.
    emitted: [u64; WORDS],
    /// Emitted and neither acked nor given up.
    open: [u64; WORDS],
    open_rows: u32,
}

impl OffsetManager {
    /// Nothing is emitted yet; reading begins at `start`, and the group remembers that.
    pub fn new(start: u64) -> Self {
        Self { committed: start, position: start, blocks: BTreeMap::new(), uncommitted: 0, open: 0 }
    }

    /// Where reading goes on.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the group was last told.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Records that were emitted and whose offsets are not committed, whether done or not.
    pub fn uncommitted(&self) -> usize {
        self.uncommitted
    }

    /// Records that were emitted and are not done.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The record with this offset was emitted. One below the position was known before: that changes nothing, and the
    /// answer is `false`.
    pub fn emitted(&mut self, offset: u64) -> bool {
        if offset < self.position {
            return false;
        }
        let block = self.blocks.entry(offset / SPAN).or_insert_with(Block::new);
        let (word, bit) = place(offset);
        block.emitted[word] |= bit;
        block.open[word] |= bit;
        block.open_rows += 1;
        self.uncommitted += 1;
        self.open += 1;
        self.position = offset + 1;
        true
    }

    /// Nothing below this offset is still to be emitted.
    pub fn passed(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// The record with this offset is done. `false` if it was not open: never emitted, or done before.
    pub fn done(&mut self, offset: u64) -> bool {
        let Some(block) = self.blocks.get_mut(&(offset / SPAN)) else { return false };
        let (word, bit) = place(offset);
        if block.open[word] & bit == 0 {
            return false;
        }
        block.open[word] &= !bit;
        block.open_rows -= 1;
        self.open -= 1;
        true
    }

    /// Whether this record was emitted and is not done.
    pub fn is_open(&self, offset: u64) -> bool {
        let (word, bit) = place(offset);
        self.blocks.get(&(offset / SPAN)).is_some_and(|block| block.open[word] & bit != 0)
    }

    /// The offset after the longest prefix that is done.
    pub fn done_up_to(&self) -> u64 {
        let block = self.blocks.iter().find(|(_, block)| block.open_rows > 0);
        let first = block.and_then(|(number, block)| {
            let word = block.open.iter().position(|word| *word != 0)?;
            Some(number * SPAN + word as u64 * 64 + u64::from(block.open[word].trailing_zeros()))
        });
        first.unwrap_or(self.position)
    }

    /// The offset to commit, if the group does not know it yet.
    pub fn to_commit(&self) -> Option<u64> {
        Some(self.done_up_to()).filter(|offset| *offset > self.committed)
    }

    /// The group knows this offset now. It is one that [`to_commit`](Self::to_commit) has answered, perhaps a while ago.
    pub fn was_committed(&mut self, offset: u64) {
        let offset = offset.min(self.done_up_to());
        if offset <= self.committed {
            return;
        }
        let rest = self.blocks.split_off(&(offset / SPAN));
        let whole = std::mem::replace(&mut self.blocks, rest);
        self.uncommitted -= whole.values().map(Block::emitted_rows).sum::<usize>();
        if let Some(mut first) = self.blocks.first_entry()
            && *first.key() == offset / SPAN
        {
            let block = first.get_mut();
            let before = block.emitted_rows();
            block.forget_below(offset);
            let after = block.emitted_rows();
            self.uncommitted -= before - after;
            if after == 0 {
                first.remove();
            }
        }
        self.committed = offset;
    }
}

/// Where the bit of an offset is in its block.
fn place(offset: u64) -> (usize, u64) {
    ((offset % SPAN / 64) as usize, 1 << (offset % 64))
}

impl Block {
    fn new() -> Self {
        Self { emitted: [0; WORDS], open: [0; WORDS], open_rows: 0 }
    }

    fn emitted_rows(&self) -> usize {
        self.emitted.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn forget_below(&mut self, offset: u64) {
        let (last, bit) = place(offset);
        self.emitted[..last].fill(0);
        self.emitted[last] &= !(bit - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn emitted(start: u64, offsets: &[u64]) -> OffsetManager {
        let mut manager = OffsetManager::new(start);
        offsets.iter().for_each(|offset| assert!(manager.emitted(*offset)));
        manager
    }

    // As in Storm's OffsetManagerTest; what is committed is where reading goes on, so behind a void, not in front of it.

    #[test]
    fn skips_missing_offsets_with_a_gap_in_the_middle_of_acked() {
        let mut manager = emitted(10, &[10, 12, 15]);
        assert!(manager.done(10));
        assert_eq!(manager.to_commit(), Some(12));
        assert!(manager.done(15));
        assert_eq!(manager.to_commit(), Some(12), "12 is open");
        assert!(manager.done(12));
        assert_eq!(manager.to_commit(), Some(16));
    }

    #[test]
    fn an_open_record_in_the_middle_holds_the_commit_back() {
        let mut manager = emitted(10, &[10, 11, 12, 13]);
        [10, 12, 13].iter().for_each(|offset| assert!(manager.done(*offset)));
        assert_eq!(manager.to_commit(), Some(11));
        assert!(!manager.done(12), "once is enough");
        assert_eq!(manager.to_commit(), Some(11));
    }

    #[test]
    fn a_gap_before_the_first_record_does_not_hold_the_commit_back() {
        let mut manager = emitted(0, &[7]);
        assert_eq!(manager.to_commit(), Some(7), "nothing below is still to be done");
        assert!(manager.done(7));
        assert_eq!(manager.to_commit(), Some(8));
    }

    #[test]
    fn voids_at_the_end_are_committed_when_reading_has_passed_them() {
        let mut manager = emitted(0, &[0]);
        manager.passed(4);
        assert_eq!(manager.to_commit(), None);
        assert!(manager.done(0));
        assert_eq!(manager.to_commit(), Some(4));
    }

    #[test]
    fn nothing_is_committed_without_an_ack() {
        let mut manager = emitted(5, &[5, 6]);
        assert_eq!(manager.to_commit(), None);
        assert!(!manager.done(4) && !manager.done(7));
        assert_eq!((manager.to_commit(), manager.uncommitted(), manager.open()), (None, 2, 2));
    }

    #[test]
    fn a_commit_under_way_does_not_cover_what_was_acked_meanwhile() {
        let mut manager = emitted(0, &[0, 1, 2]);
        assert!(manager.done(0));
        let told = manager.to_commit().unwrap();
        assert!(manager.done(1));
        manager.was_committed(told);
        assert_eq!((manager.committed(), manager.uncommitted()), (1, 2));
        assert_eq!(manager.to_commit(), Some(2));
        manager.was_committed(2);
        manager.was_committed(1);
        assert_eq!((manager.committed(), manager.uncommitted()), (2, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Emit { gap: u64 },
        Pass { gap: u64 },
        Done { choice: prop::sample::Index },
        Commit,
        Told,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            // Some gaps are longer than a block.
            4 => prop_oneof![6 => Just(0_u64), 2 => 1..70_u64, 1 => 4_000..9_000_u64].prop_map(|gap| Step::Emit { gap }),
            1 => (0..100_u64).prop_map(|gap| Step::Pass { gap }),
            4 => any::<prop::sample::Index>().prop_map(|choice| Step::Done { choice }),
            1 => Just(Step::Commit),
            1 => Just(Step::Told),
        ]
    }

    proptest! {
        /// Against sets of offsets.
        #[test]
        fn is_what_a_set_of_offsets_says(start in 0..10_000_u64, steps in prop::collection::vec(step(), 1..300)) {
            let mut manager = OffsetManager::new(start);
            let (mut open, mut uncommitted) = (BTreeSet::new(), BTreeSet::new());
            let (mut position, mut committed, mut told) = (start, start, None);
            for step in steps {
                match step {
                    Step::Emit { gap } => {
                        let offset = position + gap;
                        prop_assert!(manager.emitted(offset));
                        prop_assert!(!manager.emitted(offset));
                        open.insert(offset);
                        uncommitted.insert(offset);
                        position = offset + 1;
                    }
                    Step::Pass { gap } => {
                        position += gap;
                        manager.passed(position);
                    }
                    Step::Done { choice } => {
                        if !uncommitted.is_empty() {
                            let offset = *uncommitted.iter().nth(choice.index(uncommitted.len())).unwrap();
                            prop_assert_eq!(manager.done(offset), open.remove(&offset));
                        }
                    }
                    Step::Commit => told = manager.to_commit().or(told),
                    Step::Told => {
                        if let Some(offset) = told.take() {
                            manager.was_committed(offset);
                            committed = committed.max(offset);
                            uncommitted = uncommitted.split_off(&committed);
                        }
                    }
                }
                let up_to = open.first().copied().unwrap_or(position);
                prop_assert_eq!(manager.done_up_to(), up_to);
                prop_assert_eq!(manager.to_commit(), (up_to > committed).then_some(up_to));
                prop_assert_eq!(manager.committed(), committed);
                prop_assert_eq!(manager.position(), position);
                prop_assert_eq!(manager.uncommitted(), uncommitted.len());
                prop_assert_eq!(manager.open(), open.len());
                prop_assert!(open.iter().all(|offset| manager.is_open(*offset)));
            }
        }
    }
}
