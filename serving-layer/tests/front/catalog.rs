//! What clients ask the system catalog: psql's own commands, and the functions that drivers call when they connect.

use std::process::Output;

use super::engine::Server;
use super::protocol::texts;

/// Runs psql on a script; `None` if this machine has none and need not.
async fn psql(server: &Server, script: &str) -> Option<Output> {
    let output = tokio::process::Command::new("psql")
        .args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &server.address.port().to_string(),
            "-U",
            "ada",
            "-d",
            "stratus",
        ])
        .args(["-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-c"])
        .arg(script)
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(std::process::Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) => Some(output),
        Err(missing) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: there is no psql on this machine ({missing})");
            None
        }
        Err(missing) => panic!("psql is needed here: {missing}"),
    }
}

#[tokio::test]
async fn psql_describes_what_there_is() {
    let server = Server::start().await;
    for (command, expected) in [
        ("\\conninfo", "connected to database \"stratus\""),
        ("\\dt", "events"),
        ("\\dm", "event_counts"),
        ("\\d", "materialized view"),
        ("\\d events", "event_type"),
        ("\\d event_counts", "Materialized view \"public.event_counts\""),
        ("\\l", "stratus"),
        ("\\dn", "public"),
        ("\\d *", "Table \"public.endless\""),
        ("\\d+ events", "event_type"),
        ("\\d+ event_counts", "Materialized view \"public.event_counts\""),
        ("\\dt+", "events"),
        ("\\dm+", "event_counts"),
        ("\\l+", "stratus"),
        ("\\dn+", "public"),
        ("\\du", "stratus"),
        ("\\dp", "event_counts"),
        ("\\dv", ""),
        ("\\di", ""),
        ("\\ds", ""),
        ("\\df", ""),
        ("\\dT", ""),
        ("\\dx", ""),
        ("\\dD", ""),
        ("SELECT count(*) FROM events", "4"),
    ] {
        let Some(output) = psql(&server, command).await else { return };
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {err}");
        assert!(out.contains(expected), "{command}: {out}{err}");
    }
}

#[tokio::test]
async fn psql_shows_errors_with_their_place() {
    let server = Server::start().await;
    let Some(output) = psql(&server, "SELECT missing FROM events").await else { return };
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("LINE 1: SELECT missing FROM events") && err.contains("       ^"), "{err}");
}

#[tokio::test]
async fn the_functions_of_drivers() {
    let server = Server::start().await;
    let client = server.connect().await;
    for (query, expected) in [
        ("SELECT substr(version(), 1, 15)", "PostgreSQL 16.6"),
        ("SELECT substr(pg_catalog.version(), 1, 15)", "PostgreSQL 16.6"),
        ("SELECT current_schema()", "public"),
        ("SELECT current_database()", "stratus"),
        ("SELECT current_user", "ada"),
        ("SELECT session_user", "ada"),
        ("SELECT pg_is_in_recovery()", "f"),
        ("SELECT current_setting('TimeZone')", "UTC"),
        ("SELECT set_config('jit', 'on', false)", "on"),
        ("SELECT to_regtype('bigint')", "20"),
        (
            "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/' ORDER BY 1 DESC",
            "public",
        ),
        (
            "SELECT (SELECT t.typname FROM pg_type t WHERE t.oid = a.atttypid) FROM pg_attribute a WHERE a.attname = 'id'",
            "int8",
        ),
        ("SELECT count(*) FROM pg_matviews", "1"),
        ("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "2"),
        ("SELECT typname FROM pg_type WHERE oid = 20", "int8"),
        ("SELECT relkind FROM pg_class WHERE relname = 'event_counts'", "m"),
        (
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'events'",
            "public",
        ),
        ("SELECT count(*) FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0", "2"),
        ("SELECT table_name FROM information_schema.tables WHERE table_name = 'events'", "events"),
    ] {
        let (rows, _) = texts(&client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}")));
        assert_eq!(rows.first().and_then(|row| row[0].as_deref()), Some(expected), "{query}");
    }
    // Ids stay the same from one statement to the next.
    let oid = "SELECT oid FROM pg_class WHERE relname = 'events'";
    let first = texts(&client.simple_query(oid).await.unwrap());
    client.simple_query("SELECT count(*) FROM pg_attribute").await.unwrap();
    assert_eq!(texts(&client.simple_query(oid).await.unwrap()), first);
    let a = texts(&client.simple_query("SELECT pg_backend_pid()").await.unwrap());
    let b = texts(&server.connect().await.simple_query("SELECT pg_backend_pid()").await.unwrap());
    assert_ne!(a, b);
}
