//! Numbers as JSON spells them, taken exactly: nothing is rounded, cut or wrapped.

use std::fmt;

/// The largest number of decimal digits that a value may have: those of NUMERIC(38).
const MOST_DIGITS: i64 = 38;
/// Exponents beyond it are as good as infinite: no record is long enough to make up for them with digits.
const EXPONENT_CAP: i64 = 1_000_000_000_000;

/// Why a spelling does not give a value of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not spelled as JSON spells numbers.
    Spelling,
    /// It has a part that is finer than the type's last digit.
    Fraction,
    /// It lies outside the type's range.
    Range,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spelling => "not a number",
            Self::Fraction => "the number has more fractional digits than the type",
            Self::Range => "the number is out of range",
        })
    }
}

/// `text` times 10 to the power of `scale`, which must be an integer of at most 38 digits.
///
/// The value counts, not the spelling: `1e3`, `1000` and `1000.0` are one number.
pub(super) fn scaled(text: &str, scale: i64) -> Result<i128, Refusal> {
    if let Some(value) = plain(text) {
        return shifted(false, value.into(), decimal_digits(value), scale);
    }
    let mut rest = text.as_bytes();
    let negative = rest.first() == Some(&b'-');
    if negative {
        rest = &rest[1..];
    }
    let mut significand = Significand::default();
    let (integer, after) = digits(rest);
    if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
        return Err(Refusal::Spelling);
    }
    integer.iter().for_each(|digit| significand.push(*digit));
    rest = after;
    let mut exponent = 0;
    if let Some((b'.', after)) = rest.split_first() {
        let (fraction, after) = digits(after);
        if fraction.is_empty() {
            return Err(Refusal::Spelling);
        }
        fraction.iter().for_each(|digit| significand.push(*digit));
        exponent -= fraction.len() as i64;
        rest = after;
    }
    if let Some((b'e' | b'E', after)) = rest.split_first() {
        let (down, after) = match after.split_first() {
            Some((b'-', after)) => (true, after),
            Some((b'+', after)) => (false, after),
            _ => (false, after),
        };
        let (power, after) = digits(after);
        if power.is_empty() {
            return Err(Refusal::Spelling);
        }
        let power = power
            .iter()
            .fold(0, |power: i64, digit| (power * 10 + i64::from(digit - b'0')).min(EXPONENT_CAP));
        exponent += if down { -power } else { power };
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Refusal::Spelling);
    }
    let shift = exponent + significand.zeros + scale;
    if significand.too_long {
        return Err(if shift < 0 { Refusal::Fraction } else { Refusal::Range });
    }
    shifted(negative, significand.value, significand.digits, shift)
}

/// The finite double that is nearest to the number; one too small to be told from zero is out of range.
pub(super) fn double(text: &str) -> Result<f64, Refusal> {
    let value: f64 = text.parse().map_err(|_| Refusal::Spelling)?;
    if !value.is_finite() || (value == 0.0 && !is_zero(text)) { Err(Refusal::Range) } else { Ok(value) }
}

/// As [`double`], in single precision: rounded once, not by way of a double.
pub(super) fn real(text: &str) -> Result<f32, Refusal> {
    let value: f32 = text.parse().map_err(|_| Refusal::Spelling)?;
    if !value.is_finite() || (value == 0.0 && !is_zero(text)) { Err(Refusal::Range) } else { Ok(value) }
}

/// Whether a number's significand has no other digit than 0.
fn is_zero(text: &str) -> bool {
    !text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The value of a spelling that is digits only, and few: nearly all numbers are.
fn plain(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 18 || (bytes.len() > 1 && bytes[0] == b'0') {
        return None;
    }
    bytes.iter().try_fold(0, |value: u64, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    })
}

fn decimal_digits(value: u64) -> i64 {
    value.checked_ilog10().map_or(0, |log| i64::from(log) + 1)
}

/// `value`, of so many digits, times 10 to the power of `shift`.
fn shifted(negative: bool, value: u128, digits: i64, shift: i64) -> Result<i128, Refusal> {
    if value == 0 {
        return Ok(0);
    }
    let magnitude = if shift >= 0 {
        if digits.saturating_add(shift) > MOST_DIGITS {
            return Err(Refusal::Range);
        }
        value * 10_u128.pow(shift as u32)
    } else {
        // Only plain digits can still end in zeros here; a significand's trailing zeros are in its exponent.
        let divisor = u32::try_from(-shift).ok().and_then(|power| 10_u128.checked_pow(power));
        match divisor {
            Some(divisor) if value.is_multiple_of(divisor) => value / divisor,
            _ => return Err(Refusal::Fraction),
        }
    };
    let magnitude = i128::try_from(magnitude).map_err(|_| Refusal::Range)?;
    Ok(if negative { -magnitude } else { magnitude })
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// The digits of a number without leading and trailing zeros.
#[derive(Default)]
struct Significand {
    value: u128,
    digits: i64,
    /// Zeros that were seen behind the last other digit: they belong to the exponent until another digit comes.
    zeros: i64,
    too_long: bool,
}

impl Significand {
    fn push(&mut self, digit: u8) {
        if digit == b'0' {
            if self.value != 0 || self.too_long {
                self.zeros += 1;
            }
            return;
        }
        self.digits = if self.digits == 0 { 1 } else { self.digits + self.zeros + 1 };
        if self.too_long || self.digits > MOST_DIGITS {
            self.too_long = true;
            self.value = 0;
        } else {
            self.value = self.value * 10_u128.pow(self.zeros as u32 + 1) + u128::from(digit - b'0');
        }
        self.zeros = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_value_counts_and_not_the_spelling() {
        for text in ["1000", "1e3", "1E+3", "1000.0", "1000.000e0", "10000e-1", "0.001e6"] {
            assert_eq!(scaled(text, 0), Ok(1000), "{text}");
        }
        for text in ["0", "-0", "0.0", "0e999999999999999999999", "-0.000e-5"] {
            assert_eq!(scaled(text, 2), Ok(0), "{text}");
        }
        assert_eq!(scaled("-12.340", 2), Ok(-1234));
        assert_eq!(scaled("1200", -2), Ok(12));
    }

    #[test]
    fn nothing_is_rounded_cut_or_wrapped() {
        assert_eq!(scaled("1.5", 0), Err(Refusal::Fraction));
        assert_eq!(scaled("1.005", 2), Err(Refusal::Fraction));
        assert_eq!(scaled("1234", -2), Err(Refusal::Fraction));
        assert_eq!(scaled("1e-99999999999999999999", 2), Err(Refusal::Fraction));
        assert_eq!(scaled("1e38", 0), Err(Refusal::Range));
        assert_eq!(scaled("1e99999999999999999999", 0), Err(Refusal::Range));
        assert_eq!(scaled(&"9".repeat(38), 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(scaled(&"9".repeat(39), 0), Err(Refusal::Range));
        assert_eq!(scaled(&format!("1{}", "0".repeat(38)), 0), Err(Refusal::Range));
        assert_eq!(scaled(&format!("0.{}1", "0".repeat(60)), 38), Err(Refusal::Fraction));
        assert_eq!(scaled(&format!("{}.5e60", "1".repeat(60)), 0), Err(Refusal::Range));
    }

    #[test]
    fn what_json_does_not_call_a_number_is_none() {
        for text in [
            "", "-", "+1", "01", "00", "-01", "1.", ".5", "1e", "1e+", "1 ", " 1", "0x1", "1_0", "NaN",
            "--1", "1.e3",
        ] {
            assert_eq!(scaled(text, 0), Err(Refusal::Spelling), "{text}");
        }
    }

    #[test]
    fn floats_are_nearest_and_finite() {
        assert_eq!(double("0.1"), Ok(0.1));
        assert_eq!(double("1e999"), Err(Refusal::Range));
        assert_eq!(double("1e-999"), Err(Refusal::Range));
        assert_eq!(double("0.0e-999"), Ok(0.0));
        assert!(double("-0").is_ok_and(|zero| zero.is_sign_negative()));
        assert_eq!(real("16777217"), Ok(16_777_216.0));
        assert_eq!(real("1e39"), Err(Refusal::Range));
        assert_eq!(real("1e-50"), Err(Refusal::Range));
    }

    proptest! {
        #[test]
        fn a_decimal_is_read_back_from_every_spelling(value in -(10_i128.pow(30))..10_i128.pow(30), scale in 0_i64..8, exponent in -8_i64..8) {
            let text = format!("{value}e{exponent}");
            let shift = scale + exponent;
            let expected = if shift >= 0 {
                let exact = value.checked_mul(10_i128.pow(shift as u32));
                exact.filter(|exact| exact.abs() < 10_i128.pow(38)).ok_or(Refusal::Range)
            } else if value % 10_i128.pow(-shift as u32) == 0 {
                Ok(value / 10_i128.pow(-shift as u32))
            } else {
                Err(Refusal::Fraction)
            };
            prop_assert_eq!(scaled(&text, scale), expected);
        }
    }
}
