//! The codec's rules, type by type.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use stratus_logs::{CodecError, CodecOptions, JsonCodec, TimestampUnit};
use stratus_seam::log::{Chunk, LogId, RecordSpan};
use stratus_seam::schema::{Column, ColumnType, event_schema};

/// Payloads as a log delivers them, with their index as offset.
pub(crate) fn chunk<P: AsRef<[u8]>>(payloads: &[P]) -> Chunk {
    let (mut bytes, mut records) = (BytesMut::new(), Vec::new());
    for (offset, payload) in payloads.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.put_slice(payload.as_ref());
        records.push(RecordSpan {
            offset: offset as u64,
            start,
            end: bytes.len() as u32,
            timestamp: Some(7),
        });
    }
    Chunk { partition: 3, from: 0, to: payloads.len() as u64, bytes: bytes.freeze(), records }
}

fn log() -> LogId {
    LogId("the log".to_owned())
}

fn codec(kind: ColumnType) -> JsonCodec {
    JsonCodec::new(&[Column::new("v", kind)], CodecOptions::default()).unwrap()
}

/// Decodes one value.
fn decode(kind: &ColumnType, json: &str) -> Result<arrow::array::ArrayRef, String> {
    let decoded = codec(kind.clone()).decode(&log(), &chunk(&[format!("{{\"v\":{json}}}")])).unwrap();
    match decoded.bad.first() {
        Some(bad) => Err(bad.reason.clone()),
        None => Ok(decoded.events.column(0).clone()),
    }
}

fn refuses(kind: &ColumnType, values: &[&str]) {
    for value in values {
        assert!(decode(kind, value).is_err(), "{kind} takes {value}");
    }
}

#[test]
fn integers_are_integers_however_they_are_spelled() {
    for (json, value) in [("5", 5), ("-5", -5), ("5.0", 5), ("5e0", 5), ("0.5e1", 5), ("32767", 32767)] {
        assert_eq!(decode(&ColumnType::SmallInt, json).unwrap().as_primitive::<Int16Type>().value(0), value);
    }
    refuses(&ColumnType::SmallInt, &["32768", "-32769", "1.5", "\"5\"", "true", "[]", "{}", "1e99"]);
    refuses(&ColumnType::Int, &["2147483648", "-2147483649", "0.1", "\"\"", "\"5\""]);
    refuses(&ColumnType::BigInt, &["9223372036854775808", "-9223372036854775809", "1e19", "1e-1"]);
    let largest = decode(&ColumnType::BigInt, "9223372036854775807").unwrap();
    assert_eq!(largest.as_primitive::<Int64Type>().value(0), i64::MAX, "no double on the way");
    assert_eq!(decode(&ColumnType::Int, "null").unwrap().null_count(), 1);
}

#[test]
fn floats_are_finite() {
    assert_eq!(decode(&ColumnType::Real, "0.1").unwrap().as_primitive::<Float32Type>().value(0), 0.1);
    refuses(&ColumnType::Real, &["1e39", "1e-60", "\"1\"", "NaN", "Infinity"]);
    refuses(&ColumnType::Double, &["1e999", "-1e999", "1e-400", "\"NaN\"", "-Infinity", "false"]);
}

#[test]
fn decimals_are_never_rounded() {
    let kind = ColumnType::Numeric(5, 2);
    for (json, value) in
        [("1.5", 150), ("\"1.50\"", 150), ("-999.99", -99_999), ("1.500", 150), ("2e2", 20_000), ("0", 0)]
    {
        let array = decode(&kind, json).unwrap();
        assert_eq!(array.as_primitive::<Decimal128Type>().value(0), value, "{json}");
    }
    refuses(&kind, &["1000", "999.995", "0.001", "\"1,5\"", "\" 1\"", "\"\"", "\"+1\"", "\"NaN\"", "true"]);
    let exact = decode(&ColumnType::Numeric(38, 10), "1234567890123456789012345678.0123456789").unwrap();
    assert_eq!(
        exact.as_primitive::<Decimal128Type>().value(0),
        12_345_678_901_234_567_890_123_456_780_123_456_789
    );
}

#[test]
fn booleans_texts_and_bytes() {
    refuses(&ColumnType::Boolean, &["\"true\"", "1", "0", "TRUE"]);
    refuses(
        &ColumnType::Text,
        &["5", "true", "[\"a\"]", "{}", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\u{1}\"", "\"\\x\""],
    );
    assert_eq!(
        decode(&ColumnType::Text, r#""a\u00e9\ud83d\ude00\\""#).unwrap().as_string::<i32>().value(0),
        "aé😀\\"
    );
    assert_eq!(decode(&ColumnType::Bytea, "\"AP/+\"").unwrap().as_binary::<i32>().value(0), [0, 255, 254]);
    assert_eq!(decode(&ColumnType::Bytea, r#""AP\/+""#).unwrap().as_binary::<i32>().value(0), [0, 255, 254]);
    assert_eq!(decode(&ColumnType::Bytea, "\"\"").unwrap().as_binary::<i32>().value(0), [0; 0]);
    refuses(&ColumnType::Bytea, &["\"AP_-\"", "\"A\"", "\"AA\"", "5", "\"AP/+ \""]);
}

#[test]
fn moments() {
    let micros = |kind: &ColumnType, json: &str| {
        decode(kind, json).map(|array| array.as_primitive::<TimestampMicrosecondType>().value(0))
    };
    for json in [
        "1480000000123",
        "\"1480000000123\"",
        "\"2016-11-24T15:06:40.123Z\"",
        "\"2016-11-24T16:06:40.123+01:00\"",
        "1.480000000123e12",
    ] {
        assert_eq!(micros(&ColumnType::TimestampTz, json), Ok(1_480_000_000_123_000), "{json}");
    }
    assert_eq!(micros(&ColumnType::Timestamp, "\"2016-11-24 15:06:40\""), Ok(1_480_000_000_000_000));
    refuses(
        &ColumnType::TimestampTz,
        &["\"2016-11-24T15:06:40\"", "true", "\"\"", "\"now\"", "1e30", "0.0001"],
    );
    refuses(&ColumnType::Timestamp, &["\"2016-11-24T15:06:40Z\"", "[]"]);
    assert_eq!(
        decode(&ColumnType::Date, "\"2016-11-24\"").unwrap().as_primitive::<Date32Type>().value(0),
        17_129
    );
    refuses(&ColumnType::Date, &["17129", "\"2016-11-31\"", "\"2016-11-24T00:00:00Z\""]);
    let options = CodecOptions { timestamp_unit: "s".parse().unwrap(), ..CodecOptions::default() };
    let mut seconds = JsonCodec::new(&[Column::new("v", ColumnType::TimestampTz)], options).unwrap();
    assert!(seconds.check(b"{\"v\":1480000000.5}").is_ok());
    assert!(seconds.check(b"{\"v\":1480000000123}").unwrap_err().contains("timestamp_unit"));
    assert!("ns".parse::<TimestampUnit>().is_err());
}

#[test]
fn lists_and_structs_nest() {
    let mut inner = Column::new("n", ColumnType::Int);
    inner.not_null = true;
    let kind = ColumnType::List(Box::new(ColumnType::Struct(vec![
        inner,
        Column::new("t", ColumnType::List(Box::new(ColumnType::Text))),
    ])));
    let array =
        decode(&kind, r#"[{"n":1,"t":["a",null]},null,{"t":[],"n":2,"n":3,"more":{}},{"n":4}]"#).unwrap();
    let items = array.as_list::<i32>().value(0);
    let items = items.as_struct();
    assert_eq!((items.len(), items.is_null(1)), (4, true));
    assert_eq!(items.column(0).as_primitive::<Int32Type>().values(), &[1, 0, 3, 4]);
    assert_eq!(items.column(1).as_list::<i32>().value(0).len(), 2);
    assert!(items.column(1).is_null(3));
    refuses(&kind, &["[{}]", "[{\"n\":null}]", "[1]", "{}", "[{\"n\":1,\"t\":[1]}]", "[[]]", "[{\"n\":1},]"]);
    let mut codec = codec(kind);
    let lines = [
        r#"{"v":[{"n":1,"t":["x","y"]}]}"#,
        r#"{"v":[{"n":1,"t":["lost"]},{"n":"bad"}]}"#,
        r#"{"v":[{"n":2,"t":["z"]}]}"#,
    ];
    let decoded = codec.decode(&log(), &chunk(&lines)).unwrap();
    assert_eq!((decoded.events.num_rows(), decoded.bad.len()), (2, 1));
    let texts = decoded
        .events
        .column(0)
        .as_list::<i32>()
        .values()
        .as_struct()
        .column(1)
        .as_list::<i32>()
        .values()
        .clone();
    assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "y", "z"]);
}

#[test]
fn a_record_is_one_object() {
    let mut codec = codec(ColumnType::Text);
    for good in [
        "{}",
        " {\"v\":null}\r ",
        "{\"v\":\"a\",\"other\":[1,{\"v\":2}]}",
        "{\"other\":1e999,\"\":\"\\ud800\"}",
    ] {
        assert_eq!(codec.check(good.as_bytes()), Ok(()), "{good}");
    }
    let deep = format!("{{\"other\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(codec.check(deep.as_bytes()), Ok(()), "no stack is used for what is not declared");
    for bad in [
        "",
        " ",
        "{",
        "}",
        "{}{}",
        "{} {}",
        "{},",
        "[]",
        "[{}]",
        "null",
        "5",
        "\"{}\"",
        "{\"v\"}",
        "{\"v\":}",
        "{v:1}",
        "{'v':1}",
        "{\"v\":\"a\"",
        "{\"v\":\"a\",}",
        "{\"v\":\"a\"}x",
        "\u{feff}{}",
        "{\"other\":01}",
        "{\"other\":nul}",
        "{\"\\ud800\":1}",
        "{\"v\":5,\"v\":\"a\"}",
        "{/**/}",
        "\0",
    ] {
        assert!(codec.check(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in [&b"{\"v\":\"\xff\"}"[..], b"{\"other\":\"\xc3\"}", b"{\"\xed\xa0\x80\":1}", b"\xff\xfe{\0}\0"]
    {
        assert!(codec.check(bad).is_err());
    }
    assert!(codec.check(&b"[".repeat(100_000)).is_err());
    assert!(codec.check(&b"{\"v\":".repeat(100_000)).is_err());
}

#[test]
fn the_last_of_equal_names_counts() {
    let decoded = codec(ColumnType::Text)
        .decode(&log(), &chunk(&["{\"v\":\"first\",\"v\":null,\"v\":\"last\"}"]))
        .unwrap();
    assert_eq!(decoded.events.column(0).as_string::<i32>().value(0), "last");
    assert_eq!(decoded.events.num_rows(), 1);
}

#[test]
fn characters_split_between_payloads_are_broken_ones() {
    let decoded =
        codec(ColumnType::Text).decode(&log(), &chunk(&[&b"{\"v\":\"\xc3"[..], b"\xa9\"}", b"{}"])).unwrap();
    assert_eq!((decoded.events.num_rows(), decoded.bad.len()), (1, 2));
}

#[test]
fn a_bad_record_is_told_of_with_its_place_and_bytes() {
    let options = CodecOptions { max_record_bytes: 20, ..CodecOptions::default() };
    let mut codec = JsonCodec::new(&[Column::new("usr", ColumnType::Int)], options).unwrap();
    let long = format!("{{\"usr\":{}1}}", " ".repeat(40));
    let decoded =
        codec.decode(&log(), &chunk(&["{\"usr\":1}", "{\"usr\":\"x\"}", &long, "{\"usr\":2}"])).unwrap();
    let [wrong, oversize] = &decoded.bad[..] else { panic!("two are bad") };
    assert_eq!((wrong.partition, wrong.offset, wrong.timestamp), (3, 1, Some(7)));
    assert!(wrong.reason.contains("INT for column usr"), "{}", wrong.reason);
    assert_eq!(&wrong.raw[..], b"{\"usr\":\"x\"}");
    assert!(oversize.reason.contains("longer than 20 bytes"));
    assert_eq!(oversize.raw.len(), 20);
    let events = decoded.events;
    assert_eq!(events.schema(), event_schema(&[Column::new("usr", ColumnType::Int)]));
    assert_eq!(events.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert_eq!(events.column(1).as_string::<i32>().value(1), "the log");
    assert_eq!(events.column(2).as_primitive::<Int32Type>().values(), &[3, 3]);
    assert_eq!(events.column(3).as_primitive::<Int64Type>().values(), &[0, 3]);
    assert_eq!(events.column(4).as_primitive::<TimestampMicrosecondType>().values(), &[7, 7]);
}

#[test]
fn a_reason_is_bounded() {
    let mut codec = codec(ColumnType::Boolean);
    let reason = codec.check(format!("{{\"v\":\"{}\"}}", "é".repeat(100_000)).as_bytes()).unwrap_err();
    assert!(reason.len() < 600);
}

#[test]
fn schemas_that_cannot_be_decoded_are_refused() {
    let refused = |columns: &[Column]| {
        assert!(matches!(JsonCodec::new(columns, CodecOptions::default()), Err(CodecError::Schema(_))));
    };
    refused(&[Column::new("a", ColumnType::Int), Column::new("a", ColumnType::Text)]);
    refused(&[Column::new("_offset", ColumnType::BigInt)]);
    refused(&[Column::new("a", ColumnType::Numeric(39, 2))]);
    refused(&[Column::new("a", ColumnType::Numeric(0, 0))]);
    refused(&[Column::new("a", ColumnType::List(Box::new(ColumnType::Numeric(2, 3))))]);
    refused(&[Column::new("a", ColumnType::Struct(Vec::new()))]);
    let deep = (0..40).fold(ColumnType::Int, |kind, _| ColumnType::List(Box::new(kind)));
    refused(&[Column::new("a", deep)]);
    let codec = JsonCodec::new(&[Column::new("a", ColumnType::Int)], CodecOptions::default()).unwrap();
    assert!(codec.with_projection(&["b"]).is_err());
}
