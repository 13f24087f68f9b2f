//! From torn appends to rows: every good record decoded as `serde_json` sees it, every bad one told of once, under
//! any cutting of the file, of the reads, and of the columns.

use proptest::prelude::*;
use serde_json::Value;
use stratus_logs::{CodecOptions, DirectoryLog, JsonCodec};
use stratus_seam::log::{Log, LogId};
use stratus_seam::offsets::Offset;
use stratus_seam::schema::{Column, ColumnType};

use crate::oracle;
use crate::{block_on, write};

/// A value as JSON, of any type: whether it fits its column is the oracle's to say.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i32>().prop_map(|n| n.to_string()),
        (-9_000_000_000_i64..9_000_000_000).prop_map(|n| n.to_string()),
        (-1e6..1e6_f64).prop_map(|n| n.to_string()),
        proptest::sample::select(vec![
            "1.0", "2e2", "-0", "1.5e1", "01", "1.", "1e400", "tru", "NaN", "1 2", "[1,]", "'x'"
        ])
        .prop_map(str::to_owned),
        ".{0,12}".prop_map(|s| Value::String(s).to_string()),
        proptest::sample::select(vec![
            r#""\u00e9\n""#,
            r#""\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\x""#,
            "\"\t\""
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            (inner.clone(), inner).prop_map(|(a, b)| format!(r#"{{"a":{a},"b":{b}}}"#)),
        ]
    })
}

/// A value that fits its column nearly always, so that good records are not rare.
fn field() -> impl Strategy<Value = String> {
    let text = || "[a-zé\\\\\"]{0,8}".prop_map(|s| Value::String(s).to_string());
    let fitting = prop_oneof![
        text().prop_map(|v| format!(r#""text":{v}"#)),
        any::<i32>().prop_map(|v| format!(r#""int":{v}"#)),
        any::<i64>().prop_map(|v| format!(r#""big" : {v}"#)),
        any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!(r#""double":{v}"#)),
        proptest::collection::vec(text(), 0..3).prop_map(|v| format!(r#""list":[{}]"#, v.join(" , "))),
        (any::<i16>(), text()).prop_map(|(a, b)| format!(r#""struct":{{"a":{a},"x":[{{}}],"b":{b}}}"#)),
        any_value()
            .prop_filter("JSON", |v| serde_json::from_str::<Value>(v).is_ok())
            .prop_map(|v| format!(r#""more":{v}"#)),
    ];
    let name = proptest::sample::select(vec![
        "small",
        "real",
        "numeric",
        "bytea",
        "date",
        "stamp",
        "stamptz",
        "structs",
        "text",
        "int",
        "needed",
        "big",
        "double",
        "list",
        "struct",
        "t\\u0065xt",
    ]);
    prop_oneof![12 => fitting, 3 => border(), 1 => (name, any_value()).prop_map(|(name, v)| format!(r#""{name}":{v}"#))]
}

/// Values for the columns that only the projections are tried with: on both sides of each type's border.
fn border() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        r#""small":32767"#,
        r#""small":32768"#,
        r#""real":1.5"#,
        r#""real":1e39"#,
        r#""numeric":"12.34""#,
        r#""numeric":1234.5"#,
        r#""numeric":0.001"#,
        r#""bytea":"AP/+""#,
        r#""bytea":"AP""#,
        r#""date":"2024-02-29""#,
        r#""date":"2023-02-29""#,
        r#""stamp":"2024-02-29T00:00:00""#,
        r#""stamp":"2024-02-29T00:00:00Z""#,
        r#""stamptz":1480000000000"#,
        r#""stamptz":1e30"#,
        r#""structs":[{"a":1,"b":"x"},null,{"b":"y"}]"#,
        r#""structs":[{"a":1,"b":"x"},{"a":1}]"#,
    ])
    .prop_map(str::to_owned)
}

/// All types, those too that the oracle leaves to the tests of single types.
fn all_columns() -> Vec<Column> {
    let mut columns = oracle::columns();
    let structs = ColumnType::List(Box::new(columns[6].kind.clone()));
    columns.extend([
        Column::new("small", ColumnType::SmallInt),
        Column::new("real", ColumnType::Real),
        Column::new("numeric", ColumnType::Numeric(5, 2)),
        Column::new("bytea", ColumnType::Bytea),
        Column::new("date", ColumnType::Date),
        Column::new("stamp", ColumnType::Timestamp),
        Column::new("stamptz", ColumnType::TimestampTz),
        Column::new("structs", structs),
    ]);
    columns
}

/// A line without its end.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let record = (proptest::collection::vec(field(), 0..6), any::<bool>())
        .prop_map(|(fields, needed)| {
            format!(
                r#"{{"needed":{needed}{}{}}}"#,
                if fields.is_empty() { "" } else { "," },
                fields.join(",")
            )
        })
        .boxed();
    let garbage = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..20),
        (record.clone(), any::<prop::sample::Index>())
            .prop_map(|(r, at)| r.as_bytes()[..at.index(r.len())].to_vec()),
        (record.clone(), record.clone()).prop_map(|(a, b)| format!("{a}{b}").into_bytes()),
        (record.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(r, at, byte)| {
            let mut bytes = r.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        any_value().prop_map(String::into_bytes),
        Just(vec![b'['; 100_000]),
        Just(b"{\"needed\":true,\"x\":".repeat(20_000)),
    ];
    prop_oneof![3 => record.prop_map(String::into_bytes), 1 => garbage]
        .prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'\n').collect())
}

type Rows = Vec<(Offset, Vec<Value>)>;
type Bad = Vec<(Offset, Vec<u8>)>;

const LIMIT: usize = 50_000;

fn options() -> CodecOptions {
    CodecOptions { max_record_bytes: LIMIT, ..CodecOptions::default() }
}

/// Rows and bad records by the oracle.
fn expected(payloads: &[Vec<u8>]) -> (Rows, Bad, Vec<u8>) {
    let (mut rows, mut bad, mut file) = (Rows::new(), Bad::new(), Vec::new());
    for payload in payloads {
        let offset = file.len() as Offset;
        file.extend_from_slice(payload);
        file.push(b'\n');
        let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
        if payload.iter().all(|byte| b" \t\r".contains(byte)) {
            continue;
        }
        match oracle::row(payload, &oracle::columns()) {
            Some(row) if payload.len() <= LIMIT => rows.push((offset, row)),
            _ => bad.push((offset, payload[..payload.len().min(LIMIT)].to_vec())),
        }
    }
    (rows, bad, file)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_record_is_decoded_or_told_of_once(
        payloads in proptest::collection::vec(payload(), 0..25),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        sizes in proptest::collection::vec(1..2_000_usize, 1..6),
    ) {
        let (rows, bad, file) = expected(&payloads);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(file.len() + 1)).collect();
        cuts.extend([0, file.len()]);
        cuts.sort_unstable();
        let dir = tempfile::tempdir().unwrap();
        let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(LIMIT);
        let columns = oracle::columns();
        let mut codec = JsonCodec::new(&columns, options()).unwrap();
        let id = LogId("log".to_owned());
        let (mut seen_rows, mut seen_bad) = (Rows::new(), Bad::new());
        block_on(async {
            let (mut position, mut sizes) = (0, sizes.iter().cycle());
            for pair in cuts.windows(2) {
                write(dir.path(), 0, &file[pair[0]..pair[1]]);
                loop {
                    let chunk = log.read(0, position, None, *sizes.next().unwrap()).await.unwrap();
                    if chunk.records.is_empty() {
                        break;
                    }
                    position = chunk.to;
                    let decoded = codec.decode(&id, &chunk).unwrap();
                    assert_eq!(decoded.events.num_rows() + decoded.bad.len(), chunk.records.len());
                    let offsets = decoded.events.column_by_name("_offset").unwrap();
                    let offsets: &arrow::array::Int64Array = offsets.as_any().downcast_ref().unwrap();
                    for (row, offset) in offsets.values().iter().enumerate() {
                        seen_rows.push((*offset as Offset, oracle::decoded(&decoded.events, row, &columns)));
                    }
                    seen_bad.extend(decoded.bad.into_iter().map(|bad| (bad.offset, bad.raw.to_vec())));
                }
            }
        });
        prop_assert_eq!(seen_rows, rows);
        prop_assert_eq!(seen_bad, bad);
    }

    #[test]
    fn no_projection_changes_a_verdict_or_a_value(
        payloads in proptest::collection::vec(payload(), 1..25),
        kept in proptest::collection::vec(any::<bool>(), 19),
    ) {
        let chunk = crate::codec::chunk(&payloads);
        let columns = all_columns();
        let id = LogId("log".to_owned());
        let mut full = JsonCodec::new(&columns, options()).unwrap();
        let names: Vec<String> = full.schema().fields().iter().map(|field| field.name().clone()).collect();
        let names: Vec<String> = names.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(name, _)| name).collect();
        let mut some = JsonCodec::new(&columns, options()).unwrap().with_projection(&names).unwrap();
        for _ in 0..2 {
            let (all, part) = (full.decode(&id, &chunk).unwrap(), some.decode(&id, &chunk).unwrap());
            prop_assert_eq!(&all.bad, &part.bad);
            prop_assert_eq!(all.events.num_rows(), part.events.num_rows());
            prop_assert_eq!(part.events.schema(), some.schema().clone());
            for name in &names {
                prop_assert_eq!(all.events.column_by_name(name), part.events.column_by_name(name));
            }
            for (index, payload) in payloads.iter().enumerate() {
                let refused = all.bad.iter().find(|bad| bad.offset == index as Offset);
                prop_assert_eq!(full.check(payload).err(), refused.map(|bad| bad.reason.clone()));
                prop_assert_eq!(some.check(payload).err(), refused.map(|bad| bad.reason.clone()));
            }
        }
    }
}
