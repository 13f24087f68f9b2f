//! Values as PostgreSQL prints them, for clients compare texts and parse them.

use std::io::Write;

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// A floating-point number: the shortest digits that give it back, in PostgreSQL's choice of notation.
/// `digits` is the precision of the type (15 for DOUBLE, 6 for REAL), from which on it writes an exponent.
fn float(out: &mut Vec<u8>, shortest: &str, digits: i32) {
    // Rust's `{:e}` gives d[.ddd]e[-]x.
    let (sign, rest) = shortest.strip_prefix('-').map_or(("", shortest), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once('e').unwrap_or((rest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let length = i32::try_from(mantissa.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(sign.as_bytes());
    let zeros = |out: &mut Vec<u8>, count: i32| out.extend((0..count).map(|_| b'0'));
    if (0..digits).contains(&exponent) {
        let point = exponent + 1;
        if length <= point {
            out.extend_from_slice(mantissa.as_bytes());
            zeros(out, point - length);
        } else {
            let (whole, fraction) = mantissa.split_at(usize::try_from(point).unwrap_or(0));
            out.extend_from_slice(whole.as_bytes());
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
    } else if (-4..0).contains(&exponent) {
        out.extend_from_slice(b"0.");
        zeros(out, -exponent - 1);
        out.extend_from_slice(mantissa.as_bytes());
    } else {
        let (first, fraction) = mantissa.split_at(1.min(mantissa.len()));
        out.extend_from_slice(first.as_bytes());
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.abs());
    }
}

/// A DOUBLE.
pub(crate) fn float64(out: &mut Vec<u8>, value: f64) {
    match not_finite(value) {
        Some(name) => out.extend_from_slice(name),
        None => float(out, &format!("{value:e}"), 15),
    }
}

/// A REAL.
pub(crate) fn float32(out: &mut Vec<u8>, value: f32) {
    match not_finite(f64::from(value)) {
        Some(name) => out.extend_from_slice(name),
        None => float(out, &format!("{value:e}"), 6),
    }
}

fn not_finite(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"NaN")
    } else if value == f64::INFINITY {
        Some(b"Infinity")
    } else if value == f64::NEG_INFINITY {
        Some(b"-Infinity")
    } else {
        None
    }
}

/// A NUMERIC, from its unscaled digits (with a sign) and its scale.
pub(crate) fn numeric(out: &mut Vec<u8>, unscaled: &str, scale: i8) {
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    out.extend_from_slice(sign.as_bytes());
    let Ok(scale) = usize::try_from(scale) else {
        out.extend_from_slice(digits.as_bytes());
        if digits != "0" {
            out.extend((0..scale.unsigned_abs()).map(|_| b'0'));
        }
        return;
    };
    if scale == 0 {
        out.extend_from_slice(digits.as_bytes());
        return;
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let _ = write!(out, "{whole}.{fraction}");
}

/// A BYTEA, in hexadecimal.
pub(crate) fn bytea(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in value {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar; year 0 is 1 BC.
fn civil(days: i64) -> (i64, u8, u8) {
    // Counted in eras of 400 years that begin on a 1 March, so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

fn calendar_day(out: &mut Vec<u8>, days: i64) -> bool {
    let (year, month, day) = civil(days);
    let before_christ = year <= 0;
    let year = if before_christ { 1 - year } else { year };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    before_christ
}

/// A DATE, from the days since 1970-01-01.
pub(crate) fn date(out: &mut Vec<u8>, days: i32) {
    if calendar_day(out, i64::from(days)) {
        out.extend_from_slice(b" BC");
    }
}

/// A TIME, from the microseconds since midnight.
pub(crate) fn time(out: &mut Vec<u8>, micros: i64) {
    let seconds = micros.div_euclid(1_000_000);
    let fraction = micros.rem_euclid(1_000_000);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    fractional(out, fraction);
}

/// The digits after the second, without trailing zeros.
fn fractional(out: &mut Vec<u8>, micros: i64) {
    if micros != 0 {
        let digits = format!(".{micros:06}");
        out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
    }
}

/// A TIMESTAMP or TIMESTAMPTZ, from the microseconds since 1970-01-01 (UTC).
pub(crate) fn timestamp(out: &mut Vec<u8>, micros: i64, zone: bool) {
    let before_christ = calendar_day(out, micros.div_euclid(DAY));
    out.push(b' ');
    time(out, micros.rem_euclid(DAY));
    if zone {
        out.extend_from_slice(b"+00");
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// An INTERVAL, in the style `postgres`.
pub(crate) fn interval(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    let mut first = true;
    let mut before = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let space = if first { "" } else { " " };
            let plus = if before && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{plus}{value} {unit}{plural}");
            before = value < 0;
            first = false;
        }
    }
    if micros == 0 && !first {
        return;
    }
    let sign = if micros < 0 {
        "-"
    } else if before {
        "+"
    } else {
        ""
    };
    let space = if first { "" } else { " " };
    let magnitude = micros.unsigned_abs();
    let seconds = magnitude / 1_000_000;
    let _ = write!(out, "{space}{sign}{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    fractional(out, i64::try_from(magnitude % 1_000_000).unwrap_or(0));
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// An element of an array, quoted if it must be.
pub(crate) fn array_element(out: &mut Vec<u8>, element: &[u8]) {
    let quoted = element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element.iter().any(|b| matches!(b, b'{' | b'}' | b'"' | b',' | b'\\') || is_space(*b));
    if !quoted {
        out.extend_from_slice(element);
        return;
    }
    out.push(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// A field of a record, quoted if it must be.
pub(crate) fn record_field(out: &mut Vec<u8>, field: &[u8]) {
    let quoted = field.is_empty()
        || field.iter().any(|b| matches!(b, b'"' | b'(' | b')' | b',' | b'\\') || is_space(*b));
    if !quoted {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for byte in field {
        if matches!(byte, b'"' | b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Datelike;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1_234_567_890_123_456.0, "1.234567890123456e+15"),
            (12.34, "12.34"),
            (1e300, "1e+300"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(written(|out| float64(out, value)), expected);
        }
    }

    #[test]
    fn reals() {
        for (value, expected) in [
            (0.1_f32, "0.1"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (3.5e-5, "3.5e-05"),
        ] {
            assert_eq!(written(|out| float32(out, value)), expected);
        }
    }

    #[test]
    fn numerics() {
        for (unscaled, scale, expected) in [
            ("0", 2, "0.00"),
            ("-5", 2, "-0.05"),
            ("12345", 2, "123.45"),
            ("12345", 0, "12345"),
            ("12", -3, "12000"),
            ("0", -3, "0"),
        ] {
            assert_eq!(written(|out| numeric(out, unscaled, scale)), expected);
        }
    }

    #[test]
    fn days_and_times() {
        assert_eq!(written(|out| date(out, 0)), "1970-01-01");
        assert_eq!(written(|out| date(out, -719_163)), "0001-12-31 BC");
        assert_eq!(written(|out| date(out, 11_016)), "2000-02-29");
        assert_eq!(written(|out| timestamp(out, -1, false)), "1969-12-31 23:59:59.999999");
        assert_eq!(written(|out| timestamp(out, 1_500_000, true)), "1970-01-01 00:00:01.5+00");
        assert_eq!(written(|out| timestamp(out, 253_402_300_800_000_000, true)), "10000-01-01 00:00:00+00");
        assert_eq!(written(|out| time(out, 3_661_000_001)), "01:01:01.000001");
    }

    #[test]
    fn intervals() {
        for (months, days, micros, expected) in [
            (0, 0, 0, "00:00:00"),
            (14, 3, 14_706_789_000, "1 year 2 mons 3 days 04:05:06.789"),
            (-14, 3, -14_706_000_000, "-1 years -2 mons +3 days -04:05:06"),
            (0, -1, 3_600_000_000, "-1 days +01:00:00"),
            (1, 0, 0, "1 mon"),
            (0, 0, 360_000_000_000, "100:00:00"),
            (0, 0, -1, "-00:00:00.000001"),
        ] {
            assert_eq!(written(|out| interval(out, months, days, micros)), expected);
        }
    }

    #[test]
    fn quoting_in_arrays_and_records() {
        for (element, expected) in [
            ("a", "a"),
            ("", "\"\""),
            ("nUll", "\"nUll\""),
            ("a b", "\"a b\""),
            ("\\x\"", "\"\\\\x\\\"\""),
            ("1,2", "\"1,2\""),
        ] {
            assert_eq!(written(|out| array_element(out, element.as_bytes())), expected);
        }
        for (field, expected) in
            [("a", "a"), ("", "\"\""), ("NULL", "NULL"), ("a\"b", "\"a\"\"b\""), ("(\\", "\"(\\\\\"")]
        {
            assert_eq!(written(|out| record_field(out, field.as_bytes())), expected);
        }
        assert_eq!(written(|out| bytea(out, &[0, 0xfe])), "\\x00fe");
    }

    proptest! {
        #[test]
        fn the_calendar_is_the_gregorian_one(days in -90_000_000_i32..90_000_000) {
            let expected = chrono::NaiveDate::from_epoch_days(days);
            let (year, month, day) = civil(i64::from(days));
            if let Some(expected) = expected {
                prop_assert_eq!(
                    (year, u32::from(month), u32::from(day)),
                    (i64::from(expected.year()), expected.month(), expected.day())
                );
            }
        }

        #[test]
        fn a_printed_float_reads_back_as_itself(bits in any::<u64>(), half in any::<u32>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(written(|out| float64(out, value)).parse::<f64>().unwrap().to_bits(), bits);
            let value = f32::from_bits(half);
            prop_assume!(value.is_finite());
            prop_assert_eq!(written(|out| float32(out, value)).parse::<f32>().unwrap().to_bits(), half);
        }
    }
}
