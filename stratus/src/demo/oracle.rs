//! The generator's own count, which every answer is compared with.

use std::collections::BTreeMap;

use super::generator::Made;

/// What has been generated, counted as the view counts it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Views per campaign and window.
    groups: BTreeMap<(usize, i64), u64>,
    /// Lines that are events.
    pub(crate) events: u64,
    /// Events that are views.
    pub(crate) views: u64,
    /// Lines that are no events.
    pub(crate) bad: u64,
}

/// A group of an answer: the campaign's identifier, the window's begin in milliseconds, the count.
pub(crate) type Answered = (String, i64, u64);

/// A group whose answer is not what was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) campaign_id: String,
    pub(crate) window_ms: i64,
    /// Generated; none if there is no such group.
    pub(crate) generated: Option<u64>,
    /// Answered; none if the answer has no such group.
    pub(crate) answered: Option<u64>,
}

impl Oracle {
    /// Counts an event.
    pub(crate) fn count(&mut self, made: Made) {
        match made {
            Made::View { campaign, window_ms } => {
                self.events += 1;
                self.views += 1;
                *self.groups.entry((campaign, window_ms)).or_default() += 1;
            }
            Made::Other => self.events += 1,
            Made::Bad => self.bad += 1,
        }
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Every group that differs. A group that is answered twice differs, too.
    pub(crate) fn differences(&self, campaigns: &[String], answer: &[Answered]) -> Vec<Difference> {
        let mut left: BTreeMap<(&str, i64), u64> = BTreeMap::new();
        for ((campaign, window), views) in &self.groups {
            let id = campaigns.get(*campaign).map_or("", String::as_str);
            left.insert((id, *window), *views);
        }
        let mut differences = Vec::new();
        let mut differs = |campaign: &str, window_ms, generated, answered| {
            let campaign_id = campaign.to_owned();
            differences.push(Difference { campaign_id, window_ms, generated, answered });
        };
        for (campaign, window, views) in answer {
            let generated = left.remove(&(campaign.as_str(), *window));
            if generated != Some(*views) {
                differs(campaign, *window, generated, Some(*views));
            }
        }
        for ((campaign, window), views) in left {
            differs(campaign, window, Some(views), None);
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> (Oracle, Vec<String>) {
        let mut oracle = Oracle::default();
        for made in [
            Made::View { campaign: 0, window_ms: 0 },
            Made::View { campaign: 0, window_ms: 0 },
            Made::View { campaign: 1, window_ms: 10_000 },
            Made::Other,
            Made::Bad,
        ] {
            oracle.count(made);
        }
        (oracle, vec!["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn the_same_counts_do_not_differ() {
        let (oracle, campaigns) = counted();
        assert_eq!((oracle.events, oracle.views, oracle.bad, oracle.groups()), (4, 3, 1, 2));
        let answer = [("b".to_owned(), 10_000, 1), ("a".to_owned(), 0, 2)];
        assert_eq!(oracle.differences(&campaigns, &answer), []);
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let (oracle, campaigns) = counted();
        let found = |answer: &[(&str, i64, u64)]| {
            let answer: Vec<Answered> = answer.iter().map(|(c, w, n)| ((*c).to_owned(), *w, *n)).collect();
            oracle.differences(&campaigns, &answer).len()
        };
        assert_eq!(found(&[("a", 0, 1), ("b", 10_000, 1)]), 1);
        assert_eq!(found(&[("a", 0, 2)]), 1);
        assert_eq!(found(&[("a", 0, 2), ("b", 10_000, 1), ("b", 0, 1)]), 1);
        assert_eq!(found(&[("a", 0, 2), ("a", 0, 2), ("b", 10_000, 1)]), 1);
        assert_eq!(found(&[]), 2);
    }
}
