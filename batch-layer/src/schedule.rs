//! When a view is recomputed of itself: a cron pattern in a time zone, and what becomes of times that were missed.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The options of a view that make its schedule.
pub const SCHEDULE_OPTIONS: [&str; 3] = ["refresh", "timezone", "missed"];

/// A scheduled time that is later than this was missed: the batch layer was not there.
const MISSED_AFTER_MS: u64 = 60_000;
/// The first look back for the last scheduled time; each further one goes four times as far.
const LOOK_BACK_MS: u64 = 60_000;

/// What becomes of scheduled times that passed while no batch layer ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// One run at once, for all of them.
    RunOnce,
    /// Nothing; the next time is waited for.
    Skip,
}

/// The schedule of a view.
#[derive(Debug, Clone)]
pub struct Schedule {
    pattern: Cron,
    zone: Tz,
    missed: Missed,
}

/// Why options are no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ScheduleError {
    /// The option that is wrong.
    pub option: &'static str,
    /// What is wrong with it.
    pub what: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// What a schedule says at a moment. Times are in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The scheduled time that wants a run now.
    pub due_ms: Option<u64>,
    /// The last scheduled time that needs no further look: it gets its run now, or is passed over.
    pub settled_ms: Option<u64>,
    /// The next scheduled time; none if the pattern has no more.
    pub next_ms: Option<u64>,
}

impl Schedule {
    /// The schedule that the options of a view declare; none without `refresh`.
    ///
    /// # Errors
    /// [`ScheduleError`] for a pattern that is none or never comes, an unknown time zone, an unknown policy, or a
    /// `timezone` or `missed` without `refresh`.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Option<Self>, ScheduleError> {
        let Some(text) = options.get("refresh") else {
            return match ["timezone", "missed"].into_iter().find(|option| options.contains_key(*option)) {
                None => Ok(None),
                Some(option) => Err(ScheduleError {
                    option,
                    what: format!("{option} belongs to a schedule, and there is none"),
                    hint: "add refresh = '0 * * * *', or leave it out",
                }),
            };
        };
        let zone = match options.get("timezone") {
            None => Tz::UTC,
            Some(name) => Tz::from_str(name).map_err(|_| ScheduleError {
                option: "timezone",
                what: format!("there is no time zone \"{name}\""),
                hint: "names are those of the IANA database, such as 'Europe/Berlin' or 'UTC'",
            })?,
        };
        let missed = match options.get("missed").map(String::as_str) {
            None | Some("run_once") => Missed::RunOnce,
            Some("skip") => Missed::Skip,
            Some(other) => {
                return Err(ScheduleError {
                    option: "missed",
                    what: format!("missed = '{other}' is not known"),
                    hint: "it is 'run_once' (one run at once for all times that were missed) or 'skip'",
                });
            }
        };
        let wrong = |what: String| ScheduleError {
            option: "refresh",
            what: format!("refresh = '{text}' is no cron pattern: {what}"),
            hint: "minute, hour, day of month, month, day of week, such as '0 3 * * *' for 3 o'clock every day; seconds may stand before them",
        };
        let fields = text.split_whitespace().count();
        if !(5..=6).contains(&fields) {
            return Err(wrong(format!("it has {fields} fields, and not five or six")));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| wrong(error.to_string()))?;
        let schedule = Self { pattern, zone, missed };
        // Any moment will do: what does not come from here on within the years that a pattern has does not come.
        match schedule.next_after(0) {
            Some(_) => Ok(Some(schedule)),
            None => Err(wrong("it names a day that never comes".to_owned())),
        }
    }

    /// The first scheduled time after a moment.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let after = DateTime::<Utc>::from_timestamp_millis(i64::try_from(after_ms).ok()?)?;
        let next = self.pattern.find_next_occurrence(&after.with_timezone(&self.zone), false).ok()?;
        u64::try_from(next.timestamp_millis()).ok().filter(|next| *next > after_ms)
    }

    /// The last scheduled time that lies after one moment and not after another.
    fn last_between(&self, after_ms: u64, until_ms: u64) -> Option<u64> {
        if self.next_after(after_ms)? > until_ms {
            return None;
        }
        // Found by looking forward alone, from further and further back: what comes next is then decided by one
        // rule, also where a clock is put forward or back.
        let mut back = LOOK_BACK_MS;
        loop {
            let from = until_ms.saturating_sub(back).max(after_ms);
            let mut last = None;
            let mut next = self.next_after(from);
            while let Some(at) = next.filter(|at| *at <= until_ms) {
                last = Some(at);
                next = self.next_after(at);
            }
            if last.is_some() || from <= after_ms {
                return last;
            }
            back = back.saturating_mul(4);
        }
    }

    /// What is to be done now. `settled_ms` is the last scheduled time that needs no run any more, or when the view
    /// was created; `busy` says whether a run of the view is queued or under way, which then answers for the time
    /// that is due as well.
    pub fn outlook(&self, settled_ms: u64, now_ms: u64, busy: bool) -> Outlook {
        let last = self.last_between(settled_ms, now_ms);
        let due_ms = last.filter(|at| {
            let missed = now_ms.saturating_sub(*at) > MISSED_AFTER_MS;
            let skipped = missed && self.missed == Missed::Skip;
            !(busy || skipped)
        });
        Outlook { due_ms, settled_ms: last, next_ms: self.next_after(now_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn schedule(pattern: &str, zone: &str, missed: &str) -> Schedule {
        let options = options(&[("refresh", pattern), ("timezone", zone), ("missed", missed)]);
        Schedule::of(&options).unwrap().unwrap()
    }

    fn at(time: &str) -> u64 {
        u64::try_from(DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis()).unwrap()
    }

    /// The scheduled times after a moment, in UTC.
    fn times(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let next = |ms: &u64| schedule.next_after(*ms);
        let all = std::iter::successors(schedule.next_after(at(after)), next).take(count);
        all.map(|ms| DateTime::from_timestamp_millis(ms as i64).unwrap().format("%dT%H:%M:%S").to_string())
            .collect()
    }

    #[test]
    fn five_fields_or_six_in_a_time_zone() {
        let hourly = schedule("0 * * * *", "UTC", "run_once");
        assert_eq!(times(&hourly, "2026-01-31T12:00:00Z", 2), ["31T13:00:00", "31T14:00:00"]);
        let seconds = schedule("*/20 * * * * *", "UTC", "run_once");
        assert_eq!(times(&seconds, "2026-01-31T12:00:01Z", 2), ["31T12:00:20", "31T12:00:40"]);
        let berlin = schedule("30 3 * * MON-FRI", "Europe/Berlin", "run_once");
        assert_eq!(times(&berlin, "2026-01-30T12:00:00Z", 2), ["02T02:30:00", "03T02:30:00"]);
        assert!(Schedule::of(&BTreeMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_option_that_is_wrong() {
        for (pairs, option, part) in [
            (&[("refresh", "0 * * *")][..], "refresh", "4 fields"),
            (&[("refresh", "0 0 1 1 * * 2030")], "refresh", "7 fields"),
            (&[("refresh", "")], "refresh", "0 fields"),
            (&[("refresh", "61 * * * *")], "refresh", "no cron pattern"),
            (&[("refresh", "x y z a b")], "refresh", "no cron pattern"),
            (&[("refresh", "0 0 31 2 *")], "refresh", "never comes"),
            (&[("refresh", "0 * * * *"), ("timezone", "Mars/Olympus")], "timezone", "no time zone"),
            (&[("refresh", "0 * * * *"), ("missed", "all")], "missed", "not known"),
            (&[("missed", "skip")], "missed", "there is none"),
            (&[("timezone", "UTC")], "timezone", "there is none"),
        ] {
            let error = Schedule::of(&options(pairs)).unwrap_err();
            assert_eq!(error.option, option, "{pairs:?}");
            assert!(error.what.contains(part), "{pairs:?}: {error}");
        }
    }

    /// In Berlin, on 29 March 2026, the clock goes from 2:00 to 3:00, at 1:00 UTC.
    #[test]
    fn a_time_in_the_hour_that_is_left_out_runs_right_after_it() {
        let daily = schedule("30 2 * * *", "Europe/Berlin", "run_once");
        assert_eq!(times(&daily, "2026-03-28T00:00:00Z", 3), ["28T01:30:00", "29T01:00:00", "30T00:30:00"]);
        let often = schedule("*/30 * * * *", "Europe/Berlin", "run_once");
        assert_eq!(times(&often, "2026-03-29T00:00:00Z", 3), ["29T00:30:00", "29T01:00:00", "29T01:30:00"]);
    }

    /// In Berlin, on 25 October 2026, the clock goes from 3:00 back to 2:00, at 1:00 UTC.
    #[test]
    fn a_time_in_the_hour_that_comes_twice_runs_once_and_every_half_hour_stays_so() {
        let daily = schedule("30 2 * * *", "Europe/Berlin", "run_once");
        assert_eq!(times(&daily, "2026-10-24T12:00:00Z", 2), ["25T00:30:00", "26T01:30:00"]);
        let often = schedule("*/30 * * * *", "Europe/Berlin", "run_once");
        assert_eq!(
            times(&often, "2026-10-24T23:30:00Z", 5),
            ["25T00:00:00", "25T00:30:00", "25T01:00:00", "25T01:30:00", "25T02:00:00"]
        );
    }

    #[test]
    fn a_due_time_is_due_until_it_is_settled() {
        let hourly = schedule("0 * * * *", "UTC", "run_once");
        let created = at("2026-01-31T11:20:00Z");
        let (noon, one) = (at("2026-01-31T12:00:00Z"), at("2026-01-31T13:00:00Z"));
        let quiet = Outlook { due_ms: None, settled_ms: None, next_ms: Some(noon) };
        assert_eq!(hourly.outlook(created, noon - 1, false), quiet);
        let due = Outlook { due_ms: Some(noon), settled_ms: Some(noon), next_ms: Some(one) };
        assert_eq!(hourly.outlook(created, noon, false), due);
        assert_eq!(hourly.outlook(created, noon + 5_000, false), due);
        assert_eq!(hourly.outlook(noon, noon + 5_000, false), Outlook { next_ms: Some(one), ..quiet });
    }

    #[test]
    fn a_time_that_comes_while_a_run_is_under_way_is_settled_by_it() {
        let hourly = schedule("0 * * * *", "UTC", "run_once");
        let noon = at("2026-01-31T12:00:00Z");
        let outlook = hourly.outlook(noon - 1, noon, true);
        assert_eq!((outlook.due_ms, outlook.settled_ms), (None, Some(noon)));
    }

    #[test]
    fn missed_times_have_one_run_or_none() {
        let (created, now) = (at("2026-01-30T11:20:00Z"), at("2026-01-31T12:10:00Z"));
        let (noon, next) = (at("2026-01-31T12:00:00Z"), at("2026-01-31T13:00:00Z"));
        let once = schedule("0 * * * *", "UTC", "run_once").outlook(created, now, false);
        assert_eq!(once, Outlook { due_ms: Some(noon), settled_ms: Some(noon), next_ms: Some(next) });
        let skipped = schedule("0 * * * *", "UTC", "skip").outlook(created, now, false);
        assert_eq!(skipped, Outlook { due_ms: None, ..once });
        let in_time = schedule("0 * * * *", "UTC", "skip").outlook(created, noon + 30_000, false);
        assert_eq!(in_time.due_ms, Some(noon), "a little late is not missed");
        let rare = schedule("0 0 1 1 *", "UTC", "run_once");
        let outlook = rare.outlook(at("2020-06-01T00:00:00Z"), now, false);
        assert_eq!(outlook.due_ms, Some(at("2026-01-01T00:00:00Z")));
    }

    /// Looking every few minutes finds every scheduled time exactly once, over a change of the clock too.
    #[test]
    fn every_time_is_found_once_however_one_looks() {
        for (pattern, day) in [
            ("*/7 * * * *", "2026-03-28T20:00:00Z"),
            ("30 2 * * *", "2026-03-27T20:00:00Z"),
            ("*/7 * * * *", "2026-10-24T20:00:00Z"),
            ("30 2 * * *", "2026-10-23T20:00:00Z"),
        ] {
            let schedule = schedule(pattern, "Europe/Berlin", "run_once");
            let (start, end) = (at(day), at(day) + 3 * 86_400_000);
            let next = |ms: &u64| schedule.next_after(*ms);
            let want: Vec<u64> =
                std::iter::successors(schedule.next_after(start), next).take_while(|ms| *ms <= end).collect();
            let (mut settled, mut found) = (start, Vec::new());
            let mut now = start;
            while now <= end {
                let outlook = schedule.outlook(settled, now, false);
                found.extend(outlook.due_ms);
                settled = outlook.settled_ms.unwrap_or(settled);
                now += 60_000;
            }
            assert_eq!(found, want, "{pattern} from {day}");
        }
    }
}
