//! Dates and timestamps: RFC 3339, or numbers of a unit since the epoch.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

use super::number::{self, Refusal};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z, the first moment that RFC 3339 can write.
const EARLIEST: i64 = -62_167_219_200 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z, the last one.
const LATEST: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;
/// 1970-01-01 in chrono's count of days.
const EPOCH_DAY: i32 = 719_163;

/// What a number in a TIMESTAMP or TIMESTAMPTZ column counts since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TimestampUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Second,
    /// Milliseconds.
    #[default]
    #[serde(rename = "ms")]
    Milli,
    /// Microseconds.
    #[serde(rename = "us")]
    Micro,
}

impl TimestampUnit {
    /// How many decimal digits separate the unit from the microsecond.
    fn scale(self) -> i64 {
        match self {
            Self::Second => 6,
            Self::Milli => 3,
            Self::Micro => 0,
        }
    }
}

impl fmt::Display for TimestampUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "s",
            Self::Milli => "ms",
            Self::Micro => "us",
        })
    }
}

impl FromStr for TimestampUnit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "s" => Ok(Self::Second),
            "ms" => Ok(Self::Milli),
            "us" => Ok(Self::Micro),
            _ => Err(format!("timestamp_unit is '{text}'; it must be 's', 'ms' or 'us'")),
        }
    }
}

/// Why a text or number is not a moment of the wanted type.
pub(super) type Reason = &'static str;

const RANGE: Reason = "the moment lies outside the years 0000 to 9999 (is timestamp_unit right?)";
const TOO_FINE: Reason = "finer than microseconds";

/// Microseconds since the epoch from a number of `unit`s.
pub(super) fn from_number(text: &str, unit: TimestampUnit) -> Result<i64, Reason> {
    moment(number::scaled(text, unit.scale()))
}

/// Microseconds since the epoch from a string: a number in a string, or RFC 3339, with a zone exactly where the
/// type has one.
pub(super) fn from_text(text: &str, unit: TimestampUnit, zoned: bool) -> Result<i64, Reason> {
    match number::scaled(text, unit.scale()) {
        Err(Refusal::Spelling) => from_rfc3339(text, zoned),
        number => moment(number),
    }
}

fn moment(micros: Result<i128, Refusal>) -> Result<i64, Reason> {
    match micros {
        Ok(micros) => i64::try_from(micros).map_err(|_| RANGE).and_then(in_range),
        Err(Refusal::Range) => Err(RANGE),
        Err(Refusal::Fraction) => Err(TOO_FINE),
        Err(Refusal::Spelling) => Err("not a number"),
    }
}

/// Days since the epoch from 'YYYY-MM-DD'.
pub(super) fn date(text: &str) -> Result<i32, Reason> {
    const FORM: Reason = "not a date as YYYY-MM-DD";
    match text.as_bytes() {
        bytes @ [_, _, _, _, _, _, _, _, _, _] => days(bytes).ok_or(FORM),
        _ => Err(FORM),
    }
}

fn in_range(micros: i64) -> Result<i64, Reason> {
    if (EARLIEST..=LATEST).contains(&micros) { Ok(micros) } else { Err(RANGE) }
}

fn from_rfc3339(text: &str, zoned: bool) -> Result<i64, Reason> {
    const FORM: Reason = "neither RFC 3339 nor a number since the epoch";
    let bytes = text.as_bytes();
    let (Some(date), Some(b'T' | b't' | b' '), Some(clock)) =
        (bytes.get(..10), bytes.get(10), bytes.get(11..19))
    else {
        return Err(FORM);
    };
    let days = days(date).ok_or(FORM)?;
    if clock[2] != b':' || clock[5] != b':' {
        return Err(FORM);
    }
    let hour = two_digits(&clock[0..2], 23).ok_or(FORM)?;
    let minute = two_digits(&clock[3..5], 59).ok_or(FORM)?;
    if clock[6..8] == *b"60" {
        return Err("a leap second cannot be told from the second after it");
    }
    let second = two_digits(&clock[6..8], 59).ok_or(FORM)?;
    let (micros, zone) = fraction(&bytes[19..])?;
    let offset_minutes = match zone {
        b"" if zoned => return Err("a TIMESTAMPTZ needs its zone, as in 2026-01-31T12:00:00Z"),
        b"" => 0,
        _ if !zoned => return Err("a TIMESTAMP has no zone; declare the column TIMESTAMPTZ"),
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = two_digits(&[*h1, *h2], 23).ok_or(FORM)?;
            let minutes = two_digits(&[*m1, *m2], 59).ok_or(FORM)?;
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return Err(FORM),
    };
    let seconds = i64::from(days) * SECONDS_PER_DAY + hour * 3600 + (minute - offset_minutes) * 60 + second;
    in_range(seconds * MICROS_PER_SECOND + micros)
}

/// The microseconds of `.123`, and what follows; none without a point.
fn fraction(bytes: &[u8]) -> Result<(i64, &[u8]), Reason> {
    let Some((b'.', rest)) = bytes.split_first() else {
        return Ok((0, bytes));
    };
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    if digits.is_empty() {
        return Err("neither RFC 3339 nor a number since the epoch");
    }
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(TOO_FINE);
    }
    let micros = digits.iter().chain([b'0'; 6].iter()).take(6);
    Ok((micros.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0')), rest))
}

/// Days since the epoch of ten bytes `YYYY-MM-DD`.
fn days(bytes: &[u8]) -> Option<i32> {
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two_digits(&bytes[0..2], 99)? * 100 + two_digits(&bytes[2..4], 99)?;
    let month = two_digits(&bytes[5..7], 12)?;
    let day = two_digits(&bytes[8..10], 31)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month as u32, day as u32)?;
    Some(date.num_days_from_ce() - EPOCH_DAY)
}

fn two_digits(bytes: &[u8], most: i64) -> Option<i64> {
    let [tens, ones] = bytes else { return None };
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    let value = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    (value <= most).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use chrono::{DateTime, SecondsFormat};
    use proptest::prelude::*;

    fn tz(text: &str) -> Result<i64, Reason> {
        from_text(text, TimestampUnit::Milli, true)
    }

    #[test]
    fn the_bounds_are_those_of_rfc_3339() {
        assert_eq!(tz("0000-01-01T00:00:00Z"), Ok(EARLIEST));
        assert_eq!(tz("9999-12-31T23:59:59.999999Z"), Ok(LATEST));
        assert_eq!(tz("0000-01-01T00:00:00+00:01"), Err(RANGE));
        assert_eq!(tz("9999-12-31T23:59:59-00:01"), Err(RANGE));
        assert_eq!(from_number("1480000000000", TimestampUnit::Second), Err(RANGE));
        assert_eq!(from_number("1e30", TimestampUnit::Micro), Err(RANGE));
    }

    #[test]
    fn numbers_are_of_the_unit_and_exact() {
        assert_eq!(from_number("1480000000000", TimestampUnit::Milli), Ok(1_480_000_000_000_000));
        assert_eq!(tz("1480000000000"), Ok(1_480_000_000_000_000));
        assert_eq!(from_number("1480000000.123456", TimestampUnit::Second), Ok(1_480_000_000_123_456));
        assert_eq!(from_number("-1.5", TimestampUnit::Milli), Ok(-1_500));
        assert_eq!(from_number("1480000000.1234567", TimestampUnit::Second), Err(TOO_FINE));
        assert_eq!(from_number("0.5", TimestampUnit::Micro), Err(TOO_FINE));
    }

    #[test]
    fn a_zone_stands_exactly_where_the_type_has_one() {
        assert!(tz("2026-01-31T12:00:00").is_err());
        assert!(from_text("2026-01-31T12:00:00Z", TimestampUnit::Milli, false).is_err());
        assert_eq!(from_text("1970-01-02 00:00:00.5", TimestampUnit::Milli, false), Ok(86_400_500_000));
        assert_eq!(tz("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(tz("1969-12-31t23:00:00-01:00"), Ok(0));
    }

    #[test]
    fn finer_than_microseconds_only_if_zero() {
        assert_eq!(tz("1970-01-01T00:00:00.000001000Z"), Ok(1));
        assert_eq!(tz("1970-01-01T00:00:00.000001001Z"), Err(TOO_FINE));
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "2026",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00Z",
            "2026-01-01",
            "26-01-01T00:00:00Z",
            "2026-01-01T00:00:00ZZ",
            "+2026-01-01T00:00:00Z",
            "2026-01-01T00:00:0éZ",
            "yesterday",
            "0123",
            "1e",
            " 1480000000000",
        ] {
            if text == "2026" {
                assert_eq!(tz(text), Ok(2_026_000), "digits are a number");
            } else {
                assert!(tz(text).is_err(), "{text}");
            }
        }
        for text in ["2026-1-1", "2026-02-29", "20260101", "2026-01-01 ", "", "2026-01-0x"] {
            assert!(date(text).is_err(), "{text}");
        }
        assert_eq!(date("1970-01-01"), Ok(0));
        assert_eq!(date("1969-12-31"), Ok(-1));
        assert_eq!(date("2024-02-29"), Ok(19_782));
    }

    proptest! {
        #[test]
        fn rfc_3339_agrees_with_chrono(micros in EARLIEST + 86_400_000_000..=LATEST - 86_400_000_000, minutes in -1439_i32..1440) {
            let zone = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
            let text = DateTime::from_timestamp_micros(micros).unwrap().with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Micros, true);
            prop_assert_eq!(tz(&text), Ok(micros), "{}", text);
        }

        #[test]
        fn no_text_panics(text in "[0-9TZ:+ .é-]{0,30}") {
            let _ = (tz(&text), date(&text), from_text(&text, TimestampUnit::Second, false));
        }
    }
}
