//! The ad events of the Yahoo Streaming Benchmark: 100 campaigns of 10 ads, 100 users, 100 pages, every value a
//! string, in the benchmark's order of keys.
//!
//! Two things differ from the benchmark's own generator, so that the same seed always makes the same events: the
//! identifiers come from the seed, and event i happened at `START_MS + i * STEP_MICROS` rather than when it was
//! due on the clock. The benchmark's skew and its few late events are kept.

use std::io::Write;

/// How many campaigns there are.
const CAMPAIGNS: usize = 100;
/// How many ads a campaign has.
const ADS_PER_CAMPAIGN: usize = 10;
/// How many users and how many pages there are.
const VISITORS: usize = 100;
/// The windows in which the benchmark counts, in milliseconds.
const WINDOW_MS: i64 = 10_000;
/// 2026-01-01T00:00:00.100Z: the tenth of a second keeps the skew of the first events within the first window.
const START_MS: i64 = 1_767_225_600_100;
/// Between two events. A million of them fill 120 windows: 12,000 groups.
const STEP_MICROS: i64 = 1_199;
/// One event of this many is late.
const LATE_ONE_OF: u64 = 100_000;
/// Late by less than this.
const LATE_MS: u64 = 60_000;

const AD_TYPES: [&str; 5] = ["banner", "modal", "sponsored-search", "mail", "mobile"];
const EVENT_TYPES: [&str; 3] = ["view", "click", "purchase"];

/// SplitMix64: the same numbers for a seed, for ever and everywhere, in a few cycles each.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is below `bound` whatever the factor.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len() as u64) as usize)
    }

    fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 48) & 0x3fff,
            low & 0xffff_ffff_ffff
        )
    }
}

/// What an event of the generator counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// A view of an ad of a campaign, in the window that begins at this millisecond.
    View { campaign: usize, window_ms: i64 },
    /// A click or a purchase, which the benchmark's query does not count.
    Other,
    /// Half a line, which is no event.
    Bad,
}

#[derive(Debug)]
struct Ad {
    id: String,
    campaign: usize,
}

/// The generator.
#[derive(Debug)]
pub(crate) struct AdEvents {
    random: Random,
    campaigns: Vec<String>,
    ads: Vec<Ad>,
    users: Vec<String>,
    pages: Vec<String>,
    /// How many lines of a million are bad.
    bad_per_million: u64,
    made: i64,
}

impl AdEvents {
    /// The events of a seed. Every line is bad with a probability of `bad_per_million` in a million.
    pub(crate) fn new(seed: u64, bad_per_million: u64) -> Self {
        let mut random = Random(seed);
        let campaigns: Vec<String> = (0..CAMPAIGNS).map(|_| random.uuid()).collect();
        let ads = (0..CAMPAIGNS * ADS_PER_CAMPAIGN)
            .map(|ad| Ad { id: random.uuid(), campaign: ad / ADS_PER_CAMPAIGN })
            .collect();
        let users = (0..VISITORS).map(|_| random.uuid()).collect();
        let pages = (0..VISITORS).map(|_| random.uuid()).collect();
        Self { random, campaigns, ads, users, pages, bad_per_million, made: 0 }
    }

    /// The campaigns' identifiers.
    pub(crate) fn campaigns(&self) -> &[String] {
        &self.campaigns
    }

    /// The dimension table: which ad belongs to which campaign.
    pub(crate) fn ads_csv(&self) -> String {
        let mut csv = String::from("ad_id,campaign_id\n");
        for ad in &self.ads {
            csv.extend([&ad.id, ",", &self.campaigns[ad.campaign], "\n"]);
        }
        csv
    }

    /// The identifier of an ad.
    pub(crate) fn an_ad(&self) -> &str {
        self.ads.first().map_or("", |ad| &ad.id)
    }

    /// Appends the next line to `out`. Allocates nothing but what `out` grows by.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> Made {
        let begin = out.len();
        let time_ms = self.next_time();
        let random = &mut self.random;
        let user = random.pick(&self.users).map_or("", String::as_str);
        let page = random.pick(&self.pages).map_or("", String::as_str);
        let Some(ad) = random.pick(&self.ads) else { return Made::Other };
        let ad_type = random.pick(&AD_TYPES).copied().unwrap_or_default();
        let event_type = random.pick(&EVENT_TYPES).copied().unwrap_or_default();
        for part in [
            "{\"user_id\":\"",
            user,
            "\",\"page_id\":\"",
            page,
            "\",\"ad_id\":\"",
            &ad.id,
            "\",\"ad_type\":\"",
            ad_type,
            "\",\"event_type\":\"",
            event_type,
            "\",\"event_time\":\"",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        // Writing to a Vec cannot fail.
        _ = write!(out, "{time_ms}");
        out.extend_from_slice(b"\",\"ip_address\":\"1.2.3.4\"}");
        let bad = random.below(1_000_000) < self.bad_per_million;
        if bad {
            out.truncate(begin + (out.len() - begin) / 2);
        }
        out.push(b'\n');
        match event_type {
            _ if bad => Made::Bad,
            "view" => {
                Made::View { campaign: ad.campaign, window_ms: time_ms - time_ms.rem_euclid(WINDOW_MS) }
            }
            _ => Made::Other,
        }
    }

    fn next_time(&mut self) -> i64 {
        let due = START_MS + self.made * STEP_MICROS / 1000;
        self.made += 1;
        let skewed = due + 50 - self.random.below(100) as i64;
        let late = self.random.below(LATE_ONE_OF) == 0;
        if late { skewed - self.random.below(LATE_MS) as i64 } else { skewed }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    const KEYS: [&str; 7] =
        ["user_id", "page_id", "ad_id", "ad_type", "event_type", "event_time", "ip_address"];

    fn text(seed: u64, bad_per_million: u64, lines: usize) -> (String, Vec<Made>) {
        let mut events = AdEvents::new(seed, bad_per_million);
        let mut out = Vec::new();
        let made = (0..lines).map(|_| events.write(&mut out)).collect();
        (String::from_utf8(out).unwrap(), made)
    }

    #[test]
    fn a_seed_makes_the_same_events() {
        assert_eq!(text(7, 10_000, 1000), text(7, 10_000, 1000));
        assert_ne!(text(7, 0, 10).0, text(8, 0, 10).0);
    }

    #[test]
    fn events_are_as_the_benchmark_specifies() {
        const EVENTS: usize = 60_000;
        let (text, made) = text(1, 0, EVENTS);
        let generator = AdEvents::new(1, 0);
        let campaign_of: BTreeMap<&str, usize> =
            generator.ads.iter().map(|ad| (ad.id.as_str(), ad.campaign)).collect();
        assert_eq!(campaign_of.len(), 1000);
        let mut seen: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
        for (line, made) in text.lines().zip(&made) {
            let places: Vec<usize> =
                KEYS.iter().map(|key| line.find(&format!("\"{key}\"")).unwrap()).collect();
            assert!(places.is_sorted(), "{line}");
            let event: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
            assert_eq!(event.len(), KEYS.len());
            assert_eq!(event["ip_address"], "1.2.3.4");
            let time: i64 = event["event_time"].parse().unwrap();
            let counted = Made::View {
                campaign: campaign_of[event["ad_id"].as_str()],
                window_ms: time / 10_000 * 10_000,
            };
            assert_eq!(*made, if event["event_type"] == "view" { counted } else { Made::Other });
            for key in KEYS {
                *seen.entry(key).or_default().entry(event[key].clone()).or_default() += 1;
            }
        }
        for (key, values, tolerance) in [
            ("user_id", 100, 0.25),
            ("page_id", 100, 0.25),
            ("ad_id", 1000, 0.65),
            ("ad_type", 5, 0.03),
            ("event_type", 3, 0.03),
        ] {
            let counts = &seen[key];
            assert_eq!(counts.len(), values, "{key}");
            let wanted = EVENTS as f64 / values as f64;
            for count in counts.values() {
                assert!((*count as f64 / wanted - 1.0).abs() < tolerance, "{key}: {count} of {wanted}");
            }
        }
        let bytes = text.len() as f64 / EVENTS as f64;
        assert!((230.0..270.0).contains(&bytes), "{bytes} bytes an event");
    }

    #[test]
    fn identifiers_are_uuids_of_version_4() {
        let generator = AdEvents::new(3, 0);
        let mut all = HashSet::new();
        for id in generator.ads.iter().map(|ad| &ad.id).chain(generator.campaigns()) {
            let bytes = id.as_bytes();
            assert_eq!((id.len(), bytes[14]), (36, b'4'), "{id}");
            assert!(b"89ab".contains(&bytes[19]), "{id}");
            assert!([8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-'), "{id}");
            assert!(all.insert(id.clone()));
        }
        assert_eq!(generator.ads_csv().lines().count(), 1001);
    }

    #[test]
    fn bad_lines_are_no_json_and_stay_one_line() {
        let (text, made) = text(5, 100_000, 10_000);
        assert_eq!(text.lines().count(), made.len());
        let bad = made.iter().filter(|made| **made == Made::Bad).count();
        assert!((800..1200).contains(&bad), "{bad}");
        for (line, made) in text.lines().zip(&made) {
            let parses = serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert_eq!(parses, *made != Made::Bad, "{line}");
        }
    }

    #[test]
    fn a_few_events_are_late() {
        let mut events = AdEvents::new(1, 0);
        let mut late = 0;
        for made in 0..1_000_000 {
            let due = START_MS + made * STEP_MICROS / 1000;
            let time = events.next_time();
            assert!(time <= due + 50 && time > due - 50 - LATE_MS as i64);
            late += u32::from(time <= due - 50);
        }
        assert!((1..40).contains(&late), "{late}");
    }
}
