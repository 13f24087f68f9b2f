//! Values of every type, in text as PostgreSQL prints them and in binary, out and in.

use tokio_postgres::types::{FromSql, ToSql, Type};

use super::engine::{Server, sqlstate};
use super::protocol::texts;

/// The bytes of a binary value, whatever its type.
#[derive(Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn int(value: i32) -> [u8; 4] {
    value.to_be_bytes()
}

/// An expression, its type, its text, its bytes in binary.
fn values() -> Vec<(&'static str, Type, &'static str, Vec<u8>)> {
    // 2026-11-23 01:02:03.5, in microseconds since 2000-01-01.
    let moment = 848_710_923_500_000_i64.to_be_bytes().to_vec();
    let words = |words: &[i16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let interval =
        |micros: i64, days: i32, months: i32| [&micros.to_be_bytes()[..], &int(days), &int(months)].concat();
    vec![
        ("true", Type::BOOL, "t", vec![1]),
        ("CAST(-7 AS SMALLINT)", Type::INT2, "-7", (-7_i16).to_be_bytes().to_vec()),
        ("CAST(7 AS INT)", Type::INT4, "7", int(7).to_vec()),
        ("9223372036854775807", Type::INT8, "9223372036854775807", i64::MAX.to_be_bytes().to_vec()),
        ("CAST(0.1 AS REAL)", Type::FLOAT4, "0.1", 0.1_f32.to_be_bytes().to_vec()),
        ("CAST(1e15 AS DOUBLE)", Type::FLOAT8, "1e+15", 1e15_f64.to_be_bytes().to_vec()),
        ("CAST('NaN' AS DOUBLE)", Type::FLOAT8, "NaN", f64::NAN.to_be_bytes().to_vec()),
        ("CAST('-inf' AS DOUBLE)", Type::FLOAT8, "-Infinity", f64::NEG_INFINITY.to_be_bytes().to_vec()),
        ("CAST('-123.45' AS NUMERIC(10, 2))", Type::NUMERIC, "-123.45", words(&[2, 0, 0x4000, 2, 123, 4500])),
        (
            "CAST(18446744073709551615 AS BIGINT UNSIGNED)",
            Type::NUMERIC,
            "18446744073709551615",
            words(&[5, 4, 0, 0, 1844, 6744, 737, 955, 1615]),
        ),
        ("'it''s é'", Type::TEXT, "it's é", "it's é".as_bytes().to_vec()),
        ("X'00ff'", Type::BYTEA, "\\x00ff", vec![0, 255]),
        ("DATE '2026-11-23'", Type::DATE, "2026-11-23", int(9_823).to_vec()),
        ("TIMESTAMP '2026-11-23 01:02:03.5'", Type::TIMESTAMP, "2026-11-23 01:02:03.5", moment.clone()),
        (
            "arrow_cast('2026-11-23T01:02:03.5', 'Timestamp(Microsecond, Some(\"UTC\"))')",
            Type::TIMESTAMPTZ,
            "2026-11-23 01:02:03.5+00",
            moment,
        ),
        (
            "INTERVAL '1 year 2 months 3 days 4 hours 5.5 seconds'",
            Type::INTERVAL,
            "1 year 2 mons 3 days 04:00:05.5",
            interval(14_405_500_000, 3, 14),
        ),
        (
            "[CAST(1 AS BIGINT), NULL, 3]",
            Type::INT8_ARRAY,
            "{1,NULL,3}",
            [
                &int(1)[..],
                &int(1),
                &int(20),
                &int(3),
                &int(1),
                &int(8),
                &1_i64.to_be_bytes(),
                &int(-1),
                &int(8),
                &3_i64.to_be_bytes(),
            ]
            .concat(),
        ),
        (
            "['a b', 'null', '']",
            Type::TEXT_ARRAY,
            "{\"a b\",\"null\",\"\"}",
            [&int(1)[..], &int(0), &int(25), &int(3), &int(1), &int(3), b"a b", &int(4), b"null", &int(0)]
                .concat(),
        ),
        (
            "named_struct('a', CAST(1 AS BIGINT), 'b', 'x y', 'c', CAST(NULL AS INT))",
            Type::RECORD,
            "(1,\"x y\",)",
            [
                &int(3)[..],
                &int(20),
                &int(8),
                &1_i64.to_be_bytes(),
                &int(25),
                &int(3),
                b"x y",
                &int(23),
                &int(-1),
            ]
            .concat(),
        ),
        ("CAST(NULL AS TEXT)", Type::TEXT, "", vec![]),
    ]
}

#[tokio::test]
async fn every_type_in_text_and_in_binary() {
    let server = Server::start().await;
    let client = server.connect().await;
    for (expression, kind, text, binary) in values() {
        let query = format!("SELECT {expression} AS a");
        let (rows, _) = texts(&client.simple_query(&query).await.unwrap());
        let is_null = binary.is_empty() && text.is_empty();
        assert_eq!(rows[0][0].as_deref(), (!is_null).then_some(text), "{expression}");
        let row = client.query_one(&query, &[]).await.unwrap();
        assert_eq!(row.columns()[0].type_(), &kind, "{expression}");
        assert_eq!(row.get::<_, Option<Bytes>>(0), (!is_null).then_some(Bytes(binary)), "{expression}");
    }
}

/// Sends a parameter and reads it back.
async fn echoed<T>(client: &tokio_postgres::Client, kind: Type, value: T)
where
    T: ToSql + Sync + for<'a> FromSql<'a> + PartialEq + std::fmt::Debug,
{
    let statement = client.prepare_typed("SELECT $1 AS a", std::slice::from_ref(&kind)).await.unwrap();
    assert_eq!(statement.params(), [kind]);
    let row = client.query_one(&statement, &[&value]).await.unwrap();
    assert_eq!(row.get::<_, T>(0), value);
}

#[tokio::test]
async fn parameters_come_back_as_they_went() {
    let server = Server::start().await;
    let client = server.connect().await;
    echoed(&client, Type::BOOL, Some(false)).await;
    echoed(&client, Type::INT2, i16::MIN).await;
    echoed(&client, Type::INT4, i32::MAX).await;
    echoed(&client, Type::INT8, None::<i64>).await;
    echoed(&client, Type::FLOAT4, f32::MIN_POSITIVE).await;
    echoed(&client, Type::FLOAT8, f64::INFINITY).await;
    echoed(&client, Type::TEXT, "é '\"\\".to_owned()).await;
    echoed(&client, Type::BYTEA, vec![0_u8, 255]).await;
    echoed(&client, Type::INT8_ARRAY, vec![Some(1_i64), None]).await;
    echoed(&client, Type::TEXT_ARRAY, vec!["a,b".to_owned(), String::new()]).await;
    let moment = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_795_395_723_500_001);
    echoed(&client, Type::TIMESTAMPTZ, moment).await;
    echoed(&client, Type::TIMESTAMP, moment).await;
}

#[tokio::test]
async fn an_array_parameter_is_a_set_of_keys() {
    let server = Server::start().await;
    let client = server.connect().await;
    let statement = client
        .prepare_typed("SELECT id FROM events WHERE id = ANY($1) ORDER BY id", &[Type::INT8_ARRAY])
        .await
        .unwrap();
    let rows = client.query(&statement, &[&vec![4_i64, 2, 9]]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [2, 4]);
}

#[tokio::test]
async fn a_value_that_is_none_of_its_type_is_refused() {
    let server = Server::start().await;
    let client = server.connect().await;
    // The driver sends text for an unknown type as it is.
    let statement = client.prepare_typed("SELECT CAST($1 AS BIGINT)", &[Type::TEXT]).await.unwrap();
    let failed = client.query(&statement, &[&"twelve"]).await.unwrap_err();
    assert!(["22P02", "22018", "22023", "22003"].contains(&sqlstate(&failed).as_str()), "{failed:?}");
}
