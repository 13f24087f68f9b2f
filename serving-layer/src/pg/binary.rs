//! Values in PostgreSQL's binary form, where it is more than the bytes of a number.

use stratus_sql::SqlError;

use super::errors::error;

/// The days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A DATE, from the days since 1970-01-01.
///
/// # Errors
/// 22008 if the binary form has no room for it.
pub(crate) fn date(out: &mut Vec<u8>, days: i32) -> Result<(), SqlError> {
    let days = days.checked_sub(EPOCH_DAYS).ok_or_else(|| error("22008", "date out of range"))?;
    out.extend_from_slice(&days.to_be_bytes());
    Ok(())
}

/// A TIMESTAMP or TIMESTAMPTZ, from the microseconds since 1970-01-01.
///
/// # Errors
/// 22008 if the binary form has no room for it.
pub(crate) fn timestamp(out: &mut Vec<u8>, micros: i64) -> Result<(), SqlError> {
    let micros = micros.checked_sub(EPOCH_MICROS).ok_or_else(|| error("22008", "timestamp out of range"))?;
    out.extend_from_slice(&micros.to_be_bytes());
    Ok(())
}

/// An INTERVAL.
pub(crate) fn interval(out: &mut Vec<u8>, months: i32, days: i32, micros: i64) {
    out.extend_from_slice(&micros.to_be_bytes());
    out.extend_from_slice(&days.to_be_bytes());
    out.extend_from_slice(&months.to_be_bytes());
}

/// A NUMERIC, from its unscaled digits (with a sign) and its scale: digits to the base 10,000, the first of which
/// has the weight 10,000^`weight`.
pub(crate) fn numeric(out: &mut Vec<u8>, unscaled: &str, scale: i8) {
    let (negative, digits) = unscaled.strip_prefix('-').map_or((false, unscaled), |digits| (true, digits));
    let mut digits: Vec<u8> = digits.bytes().map(|b| b.saturating_sub(b'0')).collect();
    let fraction = usize::try_from(scale).unwrap_or(0);
    if scale < 0 {
        digits.extend(std::iter::repeat_n(0, usize::from(scale.unsigned_abs())));
    }
    // Pad on both sides so that the decimal point falls between two groups of four digits.
    let missing = fraction.saturating_sub(digits.len());
    pad_front(&mut digits, missing);
    let whole = digits.len() - fraction;
    let lead = (4 - whole % 4) % 4;
    pad_front(&mut digits, lead);
    let whole_groups = (whole + lead) / 4;
    digits.extend(std::iter::repeat_n(0, (4 - digits.len() % 4) % 4));
    let mut groups: Vec<u16> =
        digits.chunks(4).map(|four| four.iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit))).collect();
    let mut weight = i16::try_from(whole_groups).unwrap_or(i16::MAX) - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= i16::try_from(zeros).unwrap_or(0);
    if groups.is_empty() {
        weight = 0;
    }
    let sign: u16 = if negative && !groups.is_empty() { 0x4000 } else { 0 };
    out.extend_from_slice(&u16::try_from(groups.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&i16::from(scale.max(0)).to_be_bytes());
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

fn pad_front(digits: &mut Vec<u8>, zeros: usize) {
    digits.splice(0..0, std::iter::repeat_n(0, zeros));
}

/// A NUMERIC's binary form, read back: its unscaled value and its scale; `None` if it is malformed or does not fit
/// into 38 digits, or is no finite number.
pub(crate) fn read_numeric(bytes: &[u8]) -> Option<(i128, i8)> {
    let word = |at: usize| Some(i16::from_be_bytes([*bytes.get(2 * at)?, *bytes.get(2 * at + 1)?]));
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)?.cast_unsigned(), word(3)?);
    if sign != 0 && sign != 0x4000 {
        return None;
    }
    let scale = i8::try_from(scale).ok().filter(|scale| (0..=38).contains(scale))?;
    let mut value: i128 = 0;
    for at in 0..count {
        let group = i128::from(word(usize::try_from(at).ok()? + 4)?);
        // The exponent of ten of the group's last digit, counted from the unscaled value's last digit.
        let exponent = (i32::from(weight) - i32::from(at)) * 4 + i32::from(scale);
        let part = if exponent >= 0 {
            group.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?
        } else {
            let divisor = 10_i128.checked_pow(exponent.unsigned_abs())?;
            // Digits below the scale are zeros in what a correct client sends.
            (group % divisor == 0).then_some(group / divisor)?
        };
        value = value.checked_add(part)?;
    }
    let value = if sign == 0x4000 { -value } else { value };
    (value.unsigned_abs() < 10_u128.pow(38)).then_some((value, scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(unscaled: &str, scale: i8) -> Vec<i16> {
        let mut out = Vec::new();
        numeric(&mut out, unscaled, scale);
        out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn numerics_have_the_form_that_postgresql_gives_them() {
        assert_eq!(words("0", 2), [0, 0, 0, 2]);
        assert_eq!(words("12345", 2), [2, 0, 0, 2, 123, 4500]);
        assert_eq!(words("-123456789", 0), [3, 2, 0x4000, 0, 1, 2345, 6789]);
        assert_eq!(words("5", 5), [1, -2, 0, 5, 5000]);
        assert_eq!(words("10000", 0), [1, 1, 0, 0, 1]);
        assert_eq!(words("12", -3), [2, 1, 0, 0, 1, 2000]);
        assert_eq!(words("1", 8), [1, -2, 0, 8, 1]);
    }

    #[test]
    fn the_epoch_is_moved_and_its_edge_refused() {
        let mut out = Vec::new();
        date(&mut out, EPOCH_DAYS + 1).unwrap();
        timestamp(&mut out, EPOCH_MICROS - 1).unwrap();
        assert_eq!(out, [&1_i32.to_be_bytes()[..], &(-1_i64).to_be_bytes()].concat());
        assert_eq!(date(&mut out, i32::MIN).unwrap_err().sqlstate, "22008");
        assert_eq!(timestamp(&mut out, i64::MIN).unwrap_err().sqlstate, "22008");
    }

    proptest! {
        #[test]
        fn a_numeric_reads_back_as_itself(value in any::<i128>(), scale in 0_i8..=38) {
            let value = value % 10_i128.pow(38);
            let mut out = Vec::new();
            numeric(&mut out, &value.to_string(), scale);
            prop_assert_eq!(read_numeric(&out), Some((value, scale)));
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_numeric(&bytes);
        }
    }
}
