//! The simple and the extended protocol, errors, transactions, parameters.

use futures::TryStreamExt;
use tokio_postgres::types::Type;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::engine::{Server, sqlstate};

/// The rows of a simple query as texts, and the counts of its completions.
pub fn texts(messages: &[SimpleQueryMessage]) -> (Vec<Vec<Option<String>>>, Vec<u64>) {
    let mut rows = Vec::new();
    let mut counts = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => counts.push(*count),
            _ => {}
        }
    }
    (rows, counts)
}

async fn one(client: &tokio_postgres::Client, query: &str) -> Option<String> {
    let (rows, _) = texts(&client.simple_query(query).await.unwrap());
    rows[0][0].clone()
}

#[tokio::test]
async fn a_text_of_several_statements_is_answered_in_order() {
    let server = Server::start().await;
    let client = server.connect().await;
    let text = "SELECT id, event_type FROM events ORDER BY id; SELECT ';' AS a;; REFRESH MATERIALIZED VIEW v; SELECT 1 WHERE false";
    let (rows, counts) = texts(&client.simple_query(text).await.unwrap());
    let some = |text: &str| Some(text.to_owned());
    let expected = vec![
        vec![some("1"), some("view")],
        vec![some("2"), some("click")],
        vec![some("3"), None],
        vec![some("4"), some("view")],
        vec![some(";")],
    ];
    assert_eq!(rows, expected);
    assert_eq!(counts, [4, 1, 0, 0]);
    assert!(client.simple_query(" ; -- nothing\n").await.unwrap().len() <= 1);
}

#[tokio::test]
async fn an_error_ends_its_text_and_says_where_it_is() {
    let server = Server::start().await;
    let client = server.connect().await;
    let text = "SELECT 'é'; SELECT missing FROM events; SELECT 3";
    let failed = client.simple_query(text).await.unwrap_err();
    let error = failed.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42703", "{error:?}");
    let position = match error.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(position)) => *position as usize,
        other => panic!("{other:?}"),
    };
    assert_eq!(text.chars().skip(position - 1).take(7).collect::<String>(), "missing");
    for (text, expected) in [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT 'open", "42601"),
        ("SELECT 1/0", "22012"),
        ("COPY events TO '/tmp/x.csv'", "0A000"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "42501"),
        ("DECLARE c CURSOR FOR SELECT 1", "0A000"),
        ("SHOW nonsense", "42704"),
    ] {
        let failed = client.simple_query(text).await.unwrap_err();
        assert_eq!(sqlstate(&failed), expected, "{text}: {failed:?}");
    }
    assert_eq!(one(&client, "SELECT 1").await.as_deref(), Some("1"), "the connection goes on");
}

#[tokio::test]
async fn a_panic_of_the_engine_fails_one_statement() {
    let server = Server::start().await;
    let client = server.connect().await;
    assert_eq!(sqlstate(&client.simple_query("SELECT panic").await.unwrap_err()), "XX000");
    assert_eq!(one(&client, "SELECT 1").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn statements_are_prepared_described_and_run_again() {
    let server = Server::start().await;
    let client = server.connect().await;
    let statement =
        client.prepare("SELECT id, event_type FROM events WHERE id >= $1 ORDER BY id").await.unwrap();
    assert_eq!(statement.params(), [Type::INT8]);
    let columns: Vec<_> =
        statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().clone())).collect();
    assert_eq!(columns, [("id".to_owned(), Type::INT8), ("event_type".to_owned(), Type::TEXT)]);
    for (from, expected) in [(3_i64, vec![(3, None), (4, Some("view"))]), (5, vec![])] {
        let rows = client.query(&statement, &[&from]).await.unwrap();
        let rows: Vec<(i64, Option<&str>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows, expected);
    }
    // A declared type is taken, a missing one is text, and the columns follow.
    let typed = client.prepare_typed("SELECT $1, $2", &[Type::INT4]).await.unwrap();
    assert_eq!(typed.params(), [Type::INT4, Type::TEXT]);
    assert_eq!(typed.columns()[0].type_(), &Type::INT4);
    let row = client.query_one(&typed, &[&7_i32, &None::<&str>]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, Option<&str>>(1)), (7, None));
    // A command has no columns.
    let refresh = client.prepare("REFRESH MATERIALIZED VIEW v").await.unwrap();
    assert!(refresh.columns().is_empty() && refresh.params().is_empty());
    assert_eq!(client.execute(&refresh, &[]).await.unwrap(), 0);
    let show = client.prepare("SHOW TimeZone").await.unwrap();
    assert_eq!(show.columns()[0].name(), "TimeZone");
    assert_eq!(client.query_one(&show, &[]).await.unwrap().get::<_, &str>(0), "UTC");
}

#[tokio::test]
async fn an_error_of_the_extended_protocol_leaves_the_connection_usable() {
    let server = Server::start().await;
    let client = server.connect().await;
    assert_eq!(sqlstate(&client.prepare("SELECT missing FROM events").await.unwrap_err()), "42703");
    assert_eq!(sqlstate(&client.prepare("SELECT 1; SELECT 2").await.unwrap_err()), "42601");
    assert_eq!(sqlstate(&client.prepare("DECLARE c CURSOR FOR SELECT 1").await.unwrap_err()), "0A000");
    let division = client.prepare("SELECT 10 / (id - $1) FROM events WHERE id = 2").await.unwrap();
    assert_eq!(sqlstate(&client.query(&division, &[&2_i64]).await.unwrap_err()), "22012");
    let row = client.query_one(&division, &[&1_i64]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 10);
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_portions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let statement = transaction.prepare("SELECT n FROM endless").await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let mut seen = 0;
    for portion in [3, 5_000, 7_000] {
        let rows = transaction.query_portal(&portal, portion).await.unwrap();
        assert_eq!(rows.len(), usize::try_from(portion).unwrap());
        for row in rows {
            assert_eq!(row.get::<_, i64>(0), seen % 8_192);
            seen += 1;
        }
    }
    // Another portal of the same connection at the same time.
    let other = transaction.bind("SELECT id FROM events ORDER BY id", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&other, 3).await.unwrap().len(), 3);
    assert_eq!(transaction.query_portal(&other, 3).await.unwrap().len(), 1);
    assert_eq!(transaction.query_portal(&other, 3).await.unwrap().len(), 0);
    transaction.commit().await.unwrap();
    server.watched.closed().await;
}

#[tokio::test]
async fn a_failed_transaction_refuses_statements_until_its_end() {
    let server = Server::start().await;
    let client = server.connect().await;
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("SAVEPOINT a").await.unwrap();
    assert_eq!(sqlstate(&client.batch_execute("SELECT * FROM nowhere").await.unwrap_err()), "42P01");
    assert_eq!(sqlstate(&client.batch_execute("SELECT 1").await.unwrap_err()), "25P02");
    assert_eq!(sqlstate(&client.query("SELECT 1", &[]).await.unwrap_err()), "25P02");
    assert_eq!(sqlstate(&client.batch_execute("SHOW TimeZone").await.unwrap_err()), "25P02");
    client.batch_execute("ROLLBACK TO SAVEPOINT a").await.unwrap();
    assert_eq!(client.query("SELECT 1", &[]).await.unwrap().len(), 1);
    assert_eq!(sqlstate(&client.query("SELECT * FROM nowhere", &[]).await.unwrap_err()), "42P01");
    assert_eq!(sqlstate(&client.batch_execute("SELECT 1").await.unwrap_err()), "25P02");
    client.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(sqlstate(&client.batch_execute("SAVEPOINT a").await.unwrap_err()), "25P01");
    assert_eq!(
        sqlstate(&client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap_err()),
        "0A000"
    );
}

#[tokio::test]
async fn parameters_are_those_of_one_connection() {
    let server = Server::start().await;
    let (a, b) = (server.connect().await, server.connect().await);
    a.batch_execute("SET application_name = 'a'; SET stratus.x TO 5").await.unwrap();
    assert_eq!(one(&a, "SHOW application_name").await.as_deref(), Some("a"));
    assert_eq!(one(&b, "SHOW application_name").await.as_deref(), Some(""));
    assert_eq!(one(&a, "SELECT current_setting('stratus.x')").await.as_deref(), Some("5"));
    assert_eq!(one(&b, "SELECT current_setting('stratus.x', true)").await, None);
    a.batch_execute("BEGIN; SET application_name = 'b'; ROLLBACK").await.unwrap();
    assert_eq!(one(&a, "SHOW application_name").await.as_deref(), Some("a"));
    a.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(one(&a, "SHOW application_name").await.as_deref(), Some(""));
    assert_eq!(one(&a, "SHOW transaction_isolation").await.as_deref(), Some("read committed"));
    let (rows, _) = texts(&a.simple_query("SHOW ALL").await.unwrap());
    assert!(rows.len() > 40 && rows.iter().any(|row| row[0].as_deref() == Some("TimeZone")));
}

#[tokio::test]
async fn who_may_not_come_in_is_told_why() {
    let server = Server::start_with(|options| options.max_connections = 2).await;
    let refused = server.config().dbname("postgres").connect(NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&refused), "3D000");
    let refused = server.config().user("nobody").connect(NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&refused), "28000");
    let (_a, b) = (server.connect().await, server.connect().await);
    let refused = server.config().connect(NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&refused), "53300");
    drop(b);
    for attempt in 0.. {
        match server.config().connect(NoTls).await {
            Ok(_) => break,
            Err(refused) => assert!(attempt < 200, "{refused}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let server = Server::start().await;
    let client = server.connect().await;
    let none: [i64; 0] = [];
    let rows = client.query_raw("SELECT value FROM generate_series(1, 300000)", none).await.unwrap();
    let mut rows = std::pin::pin!(rows);
    let mut next = 1_i64;
    while let Some(row) = rows.try_next().await.unwrap() {
        assert_eq!(row.get::<_, i64>(0), next);
        next += 1;
    }
    assert_eq!(next, 300_001);
}
