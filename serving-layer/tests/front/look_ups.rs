//! Look-ups by key through the engine, over a real lake and a store in memory: whatever a filter makes of a scan, the
//! answer is that of a scan of everything.

#[path = "look_ups/world.rs"]
mod world;

use datafusion::scalar::ScalarValue;

use world::{NOON, World};

const FILTERS: [(&str, &str, &str); 35] = [
    ("pages", "page = 'p3'", "all keys of 16 shards"),
    ("pages", "page = 'p3' AND minute = '2026-01-01T12:03:00Z'", "look-up of 1 key in 1 of 16 shards"),
    (
        "pages",
        "minute = '2026-01-01T12:03:00Z' AND 'p3' = page AND c > 0",
        "look-up of 1 key in 1 of 16 shards",
    ),
    (
        "pages",
        "page = 'it''s \"ü\"' AND minute = TIMESTAMPTZ '2026-01-01 14:01:00+02:00'",
        "look-up of 1 key in 1 of",
    ),
    (
        "pages",
        "page IN ('p2', 'p3', 'p4', '', 'nobody') AND minute >= '2026-01-01T12:00:00Z' AND minute < '2026-01-01T12:05:00Z'",
        "look-up of 25 keys",
    ),
    (
        "pages",
        "page IN ('p2', 'p3') AND minute BETWEEN '2026-01-01T12:00:30Z' AND '2026-01-01T12:02:30Z'",
        "look-up of 4 keys",
    ),
    (
        "pages",
        "page IN ('p2', 'p3') AND minute > '2026-01-01T12:01:00Z' AND minute <= '2026-01-01T12:02:00Z'",
        "look-up of 2 keys",
    ),
    ("pages", "page IS NULL AND minute = '2026-01-01T12:00:00Z'", "look-up of 1 key"),
    ("pages", "page IS NULL AND minute IS NULL", "look-up of 1 key"),
    ("pages", "page = 'p3' AND minute IS NULL", "look-up of 1 key"),
    (
        "pages",
        "(page = 'p3' AND minute = '2026-01-01T12:00:00Z') OR (page = 'p4' AND minute = '2026-01-01T12:01:00Z')",
        "look-up of 2 keys",
    ),
    (
        "pages",
        "(page = 'p3' OR page IS NULL) AND (minute = '2026-01-01T12:00:00Z' OR minute IS NULL)",
        "look-up of 4 keys",
    ),
    ("pages", "(page IS NOT DISTINCT FROM 'p5') AND minute = '2026-01-01T12:05:00Z'", "look-up of 1 key"),
    ("pages", "page = 'p3' AND minute > '2026-01-01T12:03:00Z'", "all keys"),
    ("pages", "page LIKE 'p1%' AND minute = '2026-01-01T12:03:00Z'", "all keys"),
    ("pages", "page <> 'p3' AND minute = '2026-01-01T12:03:00Z'", "all keys"),
    ("pages", "page = 'p3' OR minute = '2026-01-01T12:03:00Z'", "all keys"),
    ("pages", "page || '' = 'p3' AND minute = '2026-01-01T12:03:00Z'", "all keys"),
    ("pages", "minute::date = DATE '2026-01-01' AND page = 'p3'", "all keys"),
    ("by_page", "page = 'p7'", "look-up of 1 key in 1 of 16 shards"),
    ("by_page", "page = 'nobody'", "look-up of 1 key in 1 of 16 shards"),
    ("by_page", "page IS NULL", "look-up of 1 key in 1 of 16 shards"),
    ("by_page", "page = ''", "look-up of 1 key in 1 of 16 shards"),
    ("by_page", "page IN ('p2', 'p3', NULL)", "look-up of 2 keys"),
    ("by_page", "page = 'p2' AND m > 5", "look-up of 1 key"),
    ("by_page", "page NOT IN ('p2', 'p3')", "all keys"),
    ("facts", "ok AND price = CAST('1.50' AS NUMERIC(10, 2)) AND d = DATE '2024-10-05'", "look-up of 1 key"),
    (
        "facts",
        "NOT ok AND price IN (CAST('0.5' AS NUMERIC(10, 2)), CAST('1' AS NUMERIC(10, 2))) AND d BETWEEN DATE '2024-10-04' AND DATE '2024-10-10'",
        "look-up of 14 keys",
    ),
    ("facts", "ok IS NULL AND price IS NULL AND d IS NULL", "look-up of 1 key"),
    ("facts", "ok IS NOT TRUE AND price IS NULL AND d = DATE '2024-10-05'", "look-up of 2 keys"),
    ("facts", "ok AND price = 1.5 AND d = DATE '2024-10-05'", ""),
    ("floats", "x = 0.0", "all keys"),
    ("floats", "x = 'NaN'::double precision", "all keys"),
    ("floats", "x IS NULL", "look-up of 1 key"),
    ("total", "c > 0", "look-up of 1 key in 1 of 16 shards"),
];

#[tokio::test]
async fn a_look_up_answers_as_a_scan_of_everything_does() {
    let mut world = World::new().await;
    world.commit().await;
    world.commit().await;
    world.cut().await;
    world.commit().await;
    let mut wrong = Vec::new();
    for (view, filter, read) in FILTERS {
        wrong.extend(world.check(view, filter, read).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.ask("SELECT c FROM total").await, ["|4000|"]);
    assert_eq!(world.ask("SELECT sum(c) FROM pages").await, ["|4000|"]);
    let scanned = world.scanned("SELECT * FROM by_page WHERE page = 'p7'").await;
    assert_eq!(scanned, "SpeedScan: view=by_page, epochs=2, look-up of 1 key in 1 of 16 shards, rows=2");
}

#[tokio::test]
async fn shards_that_are_ahead_are_brought_back_to_t() {
    let mut world = World::new().await;
    world.commit().await;
    world.cut().await;
    let mut before = Vec::new();
    for (view, filter, _) in FILTERS {
        before.push(world.ask(&format!("SELECT * FROM {view} WHERE {filter}")).await);
    }
    // New keys and new states of old ones, in the shards and not yet committed.
    for _ in 0..3 {
        let _ = world.apply().await;
        for ((view, filter, _), before) in FILTERS.iter().zip(&before) {
            let now = world.ask(&format!("SELECT * FROM {view} WHERE {filter}")).await;
            assert_eq!(&now, before, "{view} WHERE {filter}, the shards ahead by some txids");
        }
    }
    assert_eq!(world.ask("SELECT c FROM total").await, ["|2000|"]);
}

#[tokio::test]
async fn many_keys_parameters_and_several_scans() {
    let mut world = World::new().await;
    world.commit().await;
    for (keys, read) in [(3_000, "look-up of 3000 keys in 16 of 16"), (10_001, "all keys of 16 shards")] {
        let list: Vec<String> = (0..keys).map(|i| format!("'p{i}'")).collect();
        let wrong = world.check("by_page", &format!("page IN ({})", list.join(", ")), read).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    let noon = ScalarValue::TimestampMicrosecond(Some(NOON), Some("UTC".into()));
    let parameters = vec![ScalarValue::from("p3"), noon];
    let sql = "SELECT * FROM pages WHERE page = $1 AND minute = $2";
    let found = world.ask_with(sql, parameters.clone()).await;
    assert_eq!(
        found,
        world.ask("SELECT * FROM pages WHERE page = 'p3' AND minute = '2026-01-01T12:00:00Z'").await
    );
    assert_eq!(found.len(), 1);
    let plan = world.ask_with(&format!("EXPLAIN FORMAT INDENT {sql}"), parameters).await.join("\n");
    assert!(plan.contains("look-up of 1 key in 1 of 16 shards"), "{plan}");

    // Two scans of a view with filters of their own, then one that asks for all of it.
    let joined =
        "SELECT a.c, b.c FROM by_page AS a CROSS JOIN by_page AS b WHERE a.page = 'p3' AND b.page = 'p4'";
    let one = world.ask("SELECT c FROM by_page WHERE page = 'p3'").await;
    let other = world.ask("SELECT c FROM by_page WHERE page = 'p4'").await;
    let want = format!("{}{}", one[0].trim_end_matches('|'), other[0]);
    assert_eq!(world.ask(joined).await, [want]);
    let plan = world.ask(&format!("EXPLAIN FORMAT INDENT {joined}")).await.join("\n");
    assert_eq!(plan.matches("look-up of 1 key").count(), 2, "{plan}");
    let both = "SELECT c FROM by_page WHERE page = 'p3' UNION ALL SELECT sum(c) FROM by_page";
    let mut want = [one[0].clone(), "|2000|".to_owned()];
    want.sort();
    assert_eq!(world.ask(both).await, want);
}
