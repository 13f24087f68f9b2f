//! Clicks from a seeded generator, appended to partition files by an independent program (this one), with the true
//! answer kept beside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The source that the events belong to.
pub const SOURCE: &str = "CREATE TABLE clicks (user_id TEXT, page TEXT, ms INT, price NUMERIC(10, 2), at TIMESTAMPTZ) WITH (partitions = 2)";
/// A view with exact aggregates only.
pub const VIEW: &str = "CREATE MATERIALIZED VIEW page_views AS
    SELECT page, date_bin(INTERVAL '1 minute', at) AS minute, count(*) AS views, sum(ms) AS total_ms,
           min(ms) AS fastest, max(ms) AS slowest, sum(price) AS revenue, approx_distinct(user_id) AS visitors
    FROM clicks GROUP BY 1, 2";
/// An ungrouped view with a filter and an expression that fails on some rows.
pub const TOTALS: &str = "CREATE MATERIALIZED VIEW totals AS
    SELECT count(*) AS events, count(*) FILTER (WHERE ms > 500) AS slow, sum(1000 / (ms - 7)) AS odd FROM clicks WHERE ms >= 0";

/// What the events of one page and minute add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// Good events.
    pub views: i64,
    /// The sum of `ms`.
    pub total_ms: i64,
    /// The least `ms`.
    pub fastest: i32,
    /// The greatest `ms`.
    pub slowest: i32,
}

/// The generator, the files it appends to, and the truth so far.
#[derive(Debug)]
pub struct Clicks {
    random: StdRng,
    files: Vec<File>,
    bad_percent: u32,
    sent: u64,
    /// Good events that are in the files; read by others while events are appended.
    pub good: &'static AtomicU64,
    /// Bad records that are in the files.
    pub bad: u64,
    /// By page and minute (microseconds since the epoch).
    pub truth: BTreeMap<(String, i64), Truth>,
}

/// 2026-01-01 00:00 UTC, in milliseconds.
const BEGINNING: i64 = 1_767_225_600_000;

impl Clicks {
    /// A generator that appends to the partitions below `log`.
    ///
    /// # Errors
    /// If a file cannot be opened.
    pub fn new(log: &Path, seed: u64, bad_percent: u32) -> Result<Self> {
        let open = |partition: u32| {
            let path: PathBuf = log.join(format!("{partition}.jsonl"));
            File::options().create(true).append(true).open(path)
        };
        Ok(Self { files: vec![open(0)?, open(1)?], ..Self::without_files(seed, bad_percent) })
    }

    /// A generator whose lines are sent by the caller.
    pub fn without_files(seed: u64, bad_percent: u32) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            files: Vec::new(),
            bad_percent,
            sent: 0,
            good: Box::leak(Box::new(AtomicU64::new(0))),
            bad: 0,
            truth: BTreeMap::new(),
        }
    }

    /// The next `count` events, a line each, counted as sent.
    pub fn take(&mut self, count: u64) -> Vec<String> {
        let (mut lines, mut good) = (Vec::new(), 0);
        for _ in 0..count {
            if self.random.random_range(0..100) < self.bad_percent {
                lines.push(self.bad_line());
                self.bad += 1;
            } else {
                lines.push(self.good_line());
                good += 1;
            }
            self.sent += 1;
        }
        // Counted before anybody can see them.
        self.good.fetch_add(good, Ordering::SeqCst);
        lines
    }

    /// Events that are not to be counted, for transactions that are aborted.
    pub fn decoys(&mut self, count: u64) -> Vec<String> {
        let mut other = Self::without_files(self.random.random(), 0);
        other.sent = self.sent;
        (0..count).map(|_| other.good_line()).collect()
    }

    /// Appends `count` events. The write may stop in the middle of a line and go on with the next call: whoever
    /// tails the file must wait for the rest.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn append(&mut self, count: u64) -> Result<()> {
        let mut texts = [Vec::new(), Vec::new()];
        for line in self.take(count) {
            texts[self.random.random_range(0..2usize)].extend_from_slice(line.as_bytes());
        }
        for (file, text) in self.files.iter_mut().zip(texts) {
            let torn = if text.is_empty() { 0 } else { self.random.random_range(0..text.len()) };
            file.write_all(&text[..torn])?;
            file.write_all(&text[torn..])?;
        }
        Ok(())
    }

    fn good_line(&mut self) -> String {
        let page = format!("/p{}", self.random.random_range(0..40));
        let user = self.random.random_range(0..2_000);
        let ms = self.random.random_range(0..1_000);
        let at = BEGINNING
            + i64::try_from(self.sent / 200).unwrap_or(0) * 1_000
            + self.random.random_range(-5_000..5_000);
        let cents = self.random.random_range(0..100_000u32);
        let minute = at.div_euclid(60_000) * 60_000_000;
        let truth = self.truth.entry((page.clone(), minute)).or_insert_with(|| Truth {
            fastest: i32::MAX,
            slowest: i32::MIN,
            ..Truth::default()
        });
        truth.views += 1;
        truth.total_ms += i64::from(ms);
        truth.fastest = truth.fastest.min(ms);
        truth.slowest = truth.slowest.max(ms);
        format!(
            "{{\"user_id\":\"u{user}\",\"page\":\"{page}\",\"ms\":{ms},\"price\":{}.{:02},\"at\":{at}}}\n",
            cents / 100,
            cents % 100
        )
    }

    fn bad_line(&mut self) -> String {
        let bad = [
            "{\"page\":\"/\",\"ms\":1",
            "{\"page\":\"/\",\"ms\":\"x\"}",
            "{} {}",
            "[1]",
            "{\"ms\":3000000000}",
            "nonsense",
            "{\"price\":1.234}",
            "{\"at\":\"yesterday\"}",
        ];
        format!("{}\n", bad[self.random.random_range(0..bad.len())])
    }
}
