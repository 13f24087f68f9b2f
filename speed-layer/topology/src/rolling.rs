//! Counts over a sliding window, and the ranking of what is counted: what rolling top words are made of.

use std::{collections::HashMap, hash::Hash};

/// Counts objects over the latest slots of time, one of which is the present one.
#[derive(Clone, Debug)]
pub struct SlidingWindowCounter<T> {
    slots: usize,
    head: usize,
    counts: HashMap<T, Vec<u64>>,
}

impl<T: Clone + Eq + Hash> SlidingWindowCounter<T> {
    /// A counter over a window of so many slots.
    ///
    /// # Panics
    ///
    /// With fewer than two slots there is no window that slides.
    pub fn new(slots: usize) -> Self {
        assert!(slots >= 2, "a sliding window has at least two slots, not {slots}");
        Self { slots, head: 0, counts: HashMap::new() }
    }

    /// Counts an object in the present slot.
    pub fn increment(&mut self, object: T) {
        self.add(object, 1);
    }

    /// Counts an object several times in the present slot.
    pub fn add(&mut self, object: T, times: u64) {
        let (slots, head) = (self.slots, self.head);
        self.counts.entry(object).or_insert_with(|| vec![0; slots])[head] += times;
    }

    /// The counts over the window; then the window moves on by a slot, and the oldest slot is forgotten. An object whose
    /// count has become zero is told once and then no more.
    pub fn counts_then_advance(&mut self) -> HashMap<T, u64> {
        let totals: HashMap<T, u64> =
            self.counts.iter().map(|(object, slots)| (object.clone(), slots.iter().sum())).collect();
        self.counts.retain(|object, _| totals.get(object).is_some_and(|total| *total > 0));
        self.head = (self.head + 1) % self.slots;
        let head = self.head;
        self.counts.values_mut().for_each(|slots| slots[head] = 0);
        totals
    }
}

/// The objects with the greatest counts, the greatest first. Of equal counts the one that was there earlier stays first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rankings<T> {
    most: usize,
    ranked: Vec<(T, u64)>,
}

impl<T: Clone + Eq> Rankings<T> {
    /// An empty ranking of at most so many objects.
    ///
    /// # Panics
    ///
    /// A ranking of none ranks nothing.
    pub fn new(most: usize) -> Self {
        assert!(most >= 1, "a ranking has at least one place");
        Self { most, ranked: Vec::with_capacity(most + 1) }
    }

    /// Places an object by its count; it is in the ranking once, with its latest count.
    pub fn update(&mut self, object: T, count: u64) {
        match self.ranked.iter_mut().find(|(known, _)| *known == object) {
            Some((_, known)) => *known = count,
            None => self.ranked.push((object, count)),
        }
        // The sort is stable.
        self.ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        self.ranked.truncate(self.most);
    }

    /// Places everything that another ranking holds.
    pub fn merge(&mut self, other: &Self) {
        other.ranked.iter().for_each(|(object, count)| self.update(object.clone(), *count));
    }

    /// Takes out what has the count zero.
    pub fn prune_zeros(&mut self) {
        self.ranked.retain(|(_, count)| *count > 0);
    }

    /// The ranking, the greatest count first.
    pub fn ranked(&self) -> &[(T, u64)] {
        &self.ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Storm's SlidingWindowCounterTest.testCounterWithSimulatedRuns, by value.
    #[test]
    fn counts_are_those_of_the_window() {
        let runs: [(usize, &[u64], &[u64]); 5] = [
            (2, &[3, 2, 0, 0, 1, 0, 0, 0], &[3, 5, 2, 0, 1, 1, 0, 0]),
            (3, &[3, 2, 0, 0, 1, 0, 0, 0], &[3, 5, 5, 2, 1, 1, 1, 0]),
            (4, &[3, 2, 0, 0, 1, 0, 0, 0], &[3, 5, 5, 5, 3, 1, 1, 1]),
            (5, &[3, 2, 0, 0, 1, 0, 0, 0], &[3, 5, 5, 5, 6, 3, 1, 1]),
            (5, &[3, 11, 5, 13, 7, 17, 0, 3, 50, 600, 7000], &[3, 14, 19, 32, 39, 53, 42, 40, 77, 670, 7653]),
        ];
        for (slots, increments, expected) in runs {
            let mut counter = SlidingWindowCounter::new(slots);
            for (step, (times, expected)) in increments.iter().zip(expected).enumerate() {
                (0..*times).for_each(|_| counter.increment("object"));
                let found = counter.counts_then_advance();
                assert_eq!(
                    found.get("object").copied().unwrap_or(0),
                    *expected,
                    "{slots} slots, step {step}"
                );
            }
        }
    }

    #[test]
    fn zero_is_told_once() {
        let mut counter = SlidingWindowCounter::new(2);
        counter.increment("object");
        let mut told = (0..4).map(|_| counter.counts_then_advance().get("object").copied());
        assert_eq!(told.by_ref().collect::<Vec<_>>(), [Some(1), Some(1), Some(0), None]);
    }

    #[test]
    #[should_panic(expected = "at least two slots")]
    fn one_slot_is_no_window() {
        SlidingWindowCounter::<&str>::new(1);
    }

    #[test]
    fn the_greatest_stay_and_none_is_there_twice() {
        let mut rankings = Rankings::new(3);
        for (object, count) in [("a", 1), ("b", 5), ("c", 3), ("d", 4), ("b", 2), ("e", 3)] {
            rankings.update(object, count);
        }
        assert_eq!(rankings.ranked(), [("d", 4), ("c", 3), ("e", 3)]);
    }

    #[test]
    fn rankings_merge_and_lose_their_zeros() {
        let (mut one, mut other) = (Rankings::new(4), Rankings::new(4));
        one.update("a", 3);
        one.update("b", 1);
        other.update("a", 7);
        other.update("c", 0);
        one.merge(&other);
        assert_eq!(one.ranked(), [("a", 7), ("b", 1), ("c", 0)]);
        one.prune_zeros();
        assert_eq!(one.ranked(), [("a", 7), ("b", 1)]);
        // The other one is as it was.
        assert_eq!(other.ranked(), [("a", 7), ("c", 0)]);
    }
}
