//! The partitions of one task.

use std::collections::BTreeMap;

use super::{
    ledger::PartitionLedger,
    message_id::{MAX_SLOTS, MessageIdError},
};

/// The partitions that a task reads: as in Storm's round robin, the n-th of every `tasks`.
pub(super) fn assigned(partitions: u32, task: usize, tasks: usize) -> impl Iterator<Item = u32> {
    (0..partitions).filter(move |partition| *partition as usize % tasks.max(1) == task)
}

/// The partitions of one task, each in its slot. A slot is used once: when a partition begins anew it gets another.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// `None`: no longer in use.
    slots: Vec<Option<Slot>>,
    of: BTreeMap<u32, usize>,
    turn: usize,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) partition: u32,
    pub(super) ledger: PartitionLedger,
}

impl Slots {
    /// Begins with a partition, or begins anew.
    pub(super) fn begin(&mut self, partition: u32, start: u64) -> Result<(), MessageIdError> {
        let slot = self.slots.len();
        if slot >= MAX_SLOTS {
            return Err(MessageIdError::Slot);
        }
        if let Some(former) = self.of.insert(partition, slot) {
            self.slots[former] = None;
        }
        self.slots.push(Some(Slot { partition, ledger: PartitionLedger::new(start) }));
        Ok(())
    }

    /// Lets go of all partitions.
    pub(super) fn retire(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
        self.of.clear();
    }

    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The slots in use, with their numbers.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (usize, &mut Slot)> {
        self.slots.iter_mut().enumerate().filter_map(|(number, slot)| Some((number, slot.as_mut()?)))
    }

    /// The partition of each slot in use.
    pub(super) fn partitions(&self) -> BTreeMap<usize, u32> {
        self.of.iter().map(|(partition, slot)| (*slot, *partition)).collect()
    }

    /// The numbers of the slots in use, beginning with another one each time.
    pub(super) fn in_turn(&mut self) -> Vec<(usize, u32)> {
        let mut order: Vec<(usize, u32)> =
            self.of.iter().map(|(partition, slot)| (*slot, *partition)).collect();
        if !order.is_empty() {
            self.turn = (self.turn + 1) % order.len();
            order.rotate_left(self.turn);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_exactly_one_task() {
        for (partitions, tasks) in [(0, 1), (1, 1), (7, 3), (3, 7), (64, 8)] {
            let mut all: Vec<u32> = (0..tasks).flat_map(|task| assigned(partitions, task, tasks)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..partitions).collect::<Vec<_>>());
        }
        assert_eq!(assigned(7, 1, 3).collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn a_partition_that_begins_anew_has_nothing_to_do_with_its_past() {
        let mut slots = Slots::default();
        slots.begin(5, 0).unwrap();
        slots.begin(6, 0).unwrap();
        slots.begin(5, 9).unwrap();
        assert!(slots.get(0).is_none());
        assert_eq!(slots.get(2).unwrap().ledger.offsets().position(), 9);
        let mut order = slots.in_turn();
        assert_ne!(order, slots.in_turn());
        order.sort_unstable();
        assert_eq!(order, [(1, 6), (2, 5)]);
        (3..MAX_SLOTS).for_each(|_| slots.begin(5, 0).unwrap());
        assert_eq!(slots.begin(5, 0), Err(MessageIdError::Slot));
    }

    #[test]
    fn the_numbers_of_what_was_let_go_of_never_come_back() {
        let mut slots = Slots::default();
        slots.begin(5, 0).unwrap();
        slots.retire();
        slots.retire();
        assert!(slots.get(0).is_none() && slots.in_turn().is_empty());
        slots.begin(5, 0).unwrap();
        assert!(slots.get(0).is_none());
        assert_eq!(slots.in_turn(), [(1, 5)]);
    }
}
