//! Numbers and times, by what they stand for.

use arrow::{
    array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray},
    datatypes::{
        DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
        DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
        Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
    },
};

use super::mix;

pub(super) fn is_number(kind: &DataType) -> bool {
    kind.is_numeric() || kind.is_temporal()
}

pub(super) fn each(array: &dyn Array, row: &mut impl FnMut(usize, u64)) {
    use DataType as T;
    match array.data_type() {
        T::Int8 => whole::<Int8Type>(array, row, i128::from),
        T::Int16 => whole::<Int16Type>(array, row, i128::from),
        T::Int32 => whole::<Int32Type>(array, row, i128::from),
        T::Int64 => whole::<Int64Type>(array, row, i128::from),
        T::UInt8 => whole::<UInt8Type>(array, row, i128::from),
        T::UInt16 => whole::<UInt16Type>(array, row, i128::from),
        T::UInt32 => whole::<UInt32Type>(array, row, i128::from),
        T::UInt64 => whole::<UInt64Type>(array, row, i128::from),
        T::Float16 => all::<Float16Type>(array, row, |value| float(f64::from(value))),
        T::Float32 => all::<Float32Type>(array, row, |value| float(f64::from(value))),
        T::Float64 => all::<Float64Type>(array, row, float),
        T::Decimal32(_, scale) => {
            all::<Decimal32Type>(array, row, |value| decimal(i256::from(value), *scale))
        }
        T::Decimal64(_, scale) => {
            all::<Decimal64Type>(array, row, |value| decimal(i256::from(value), *scale))
        }
        T::Decimal128(_, scale) => {
            all::<Decimal128Type>(array, row, |value| decimal(i256::from_i128(value), *scale));
        }
        T::Decimal256(_, scale) => all::<Decimal256Type>(array, row, |value| decimal(value, *scale)),
        // A day is the moment of its midnight, as Date64 counts it.
        T::Date32 => whole::<Date32Type>(array, row, |days| i128::from(days) * 86_400 * NANOS),
        T::Date64 => whole::<Date64Type>(array, row, |millis| i128::from(millis) * (NANOS / 1_000)),
        T::Timestamp(unit, _) => match unit {
            TimeUnit::Second => whole::<TimestampSecondType>(array, row, |time| i128::from(time) * NANOS),
            TimeUnit::Millisecond => {
                whole::<TimestampMillisecondType>(array, row, |time| i128::from(time) * 1_000_000)
            }
            TimeUnit::Microsecond => {
                whole::<TimestampMicrosecondType>(array, row, |time| i128::from(time) * 1_000)
            }
            TimeUnit::Nanosecond => whole::<TimestampNanosecondType>(array, row, i128::from),
        },
        T::Duration(unit) => match unit {
            TimeUnit::Second => whole::<DurationSecondType>(array, row, |time| i128::from(time) * NANOS),
            TimeUnit::Millisecond => {
                whole::<DurationMillisecondType>(array, row, |time| i128::from(time) * 1_000_000)
            }
            TimeUnit::Microsecond => {
                whole::<DurationMicrosecondType>(array, row, |time| i128::from(time) * 1_000)
            }
            TimeUnit::Nanosecond => whole::<DurationNanosecondType>(array, row, i128::from),
        },
        T::Time32(TimeUnit::Second) => whole::<Time32SecondType>(array, row, |time| i128::from(time) * NANOS),
        T::Time32(_) => whole::<Time32MillisecondType>(array, row, |time| i128::from(time) * 1_000_000),
        T::Time64(TimeUnit::Microsecond) => {
            whole::<Time64MicrosecondType>(array, row, |time| i128::from(time) * 1_000)
        }
        T::Time64(_) => whole::<Time64NanosecondType>(array, row, i128::from),
        T::Interval(IntervalUnit::YearMonth) => {
            all::<IntervalYearMonthType>(array, row, |months| interval(months, 0, 0));
        }
        T::Interval(IntervalUnit::DayTime) => all::<IntervalDayTimeType>(array, row, |value| {
            interval(0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }),
        _ => all::<IntervalMonthDayNanoType>(array, row, |value| {
            interval(value.months, value.days, value.nanoseconds)
        }),
    }
}

const NANOS: i128 = 1_000_000_000;

fn all<T: ArrowPrimitiveType>(
    array: &dyn Array,
    row: &mut impl FnMut(usize, u64),
    hash: impl Fn(T::Native) -> u64,
) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    array.values().iter().enumerate().for_each(|(at, value)| row(at, hash(*value)));
}

fn whole<T: ArrowPrimitiveType>(
    array: &dyn Array,
    row: &mut impl FnMut(usize, u64),
    number: impl Fn(T::Native) -> i128,
) {
    all::<T>(array, row, |value| integer(number(value)));
}

/// A whole number, however wide it was written.
pub(super) fn integer(number: i128) -> u64 {
    let low = mix(number as u64 ^ 0xA076_1D64_78BD_642F);
    // Sign and overflow; the same for all numbers that fit into 64 bits.
    let high = (number >> 63) as u64;
    if high == 0 || high == u64::MAX { low } else { mix(low ^ high) }
}

fn float(number: f64) -> u64 {
    // Adding zero makes -0.0 zero.
    let bits = if number.is_nan() { f64::NAN.to_bits() } else { (number + 0.0).to_bits() };
    mix(bits ^ 0xE703_7ED1_A0B4_28DB)
}

/// 1.50 is 1.5: without trailing zeros.
fn decimal(mut digits: i256, mut scale: i8) -> u64 {
    let ten = i256::from_i128(10);
    if digits == i256::ZERO {
        scale = 0;
    }
    while digits != i256::ZERO && digits.wrapping_rem(ten) == i256::ZERO {
        digits = digits.wrapping_div(ten);
        scale = scale.wrapping_sub(1);
    }
    let (low, high) = digits.to_parts();
    let scale = mix(scale as u64);
    mix(mix(mix(low as u64 ^ scale) ^ (low >> 64) as u64) ^ mix(high as u64 ^ (high >> 64) as u64))
}

fn interval(months: i32, days: i32, nanos: i64) -> u64 {
    mix(mix(mix(months as u64) ^ days as u64) ^ nanos as u64)
}
