//! Look-ups by key through the engine, over a real lake and a store in memory: whatever a filter makes of a scan, the
//! answer is that of a scan of everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::{TryStreamExt, stream};
use stratus_lake::Lake;
use stratus_seam::catalog::{Action, Connector, RunKind, Source, Version, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError};
use stratus_seam::encoding::{decode_rows, encode_rows};
use stratus_seam::ids::{RunId, SourceId, Token, TxId, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::log::{Log, LogId};
use stratus_seam::offsets::{OffsetRange, OffsetVector};
use stratus_seam::schema::{Column, ColumnType};
use stratus_seam::shard::{Change, Scope, ShardCommit, Verdict, shard_of};
use stratus_seam::store::{Durability, LedgerWrite, SourceState, StateStore, TxnChanges};
use stratus_serving::service::{Answer, Client, SqlService};
use stratus_serving::{Administration, Engine, Logs, Parts};
use stratus_sql::cataloged::{DimensionTables, engine, relations};
use stratus_sql::ddl::Statement;
use stratus_sql::{MergeStates, MicroBatchPlan, SqlError, View};
use stratus_state::memory::MemoryStore;

const SHARDS: u32 = 16;
/// 2026-01-01T12:00:00Z, in microseconds.
const NOON: i64 = 1_767_268_800_000_000;
const EVENTS: u64 = 1_000;

const VIEWS: [(&str, &str); 5] = [
    (
        "pages",
        "SELECT page, date_bin(INTERVAL '1 minute', at) AS minute, count(*) AS c, sum(n) AS s FROM events GROUP BY 1, 2",
    ),
    ("by_page", "SELECT page, count(*) AS c, max(n) AS m FROM events GROUP BY 1"),
    ("facts", "SELECT ok, price, d, count(*) AS c FROM events GROUP BY 1, 2, 3"),
    ("floats", "SELECT x, count(*) AS c FROM events GROUP BY 1"),
    ("total", "SELECT count(*) AS c, sum(n) AS s FROM events"),
];

#[derive(Debug)]
struct Nobody;

fn absent<T>() -> Result<T, SqlError> {
    Err(SqlError::new("0A000", "not in this test"))
}

#[async_trait]
impl DimensionTables for Nobody {
    async fn table(&self, _: &str, _: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        absent()
    }
}

#[async_trait]
impl Logs for Nobody {
    async fn log(&self, _: &Source) -> Result<Arc<dyn Log>, SqlError> {
        absent()
    }
}

#[async_trait]
impl Administration for Nobody {
    async fn carry_out(&self, _: Statement) -> Result<(), SqlError> {
        absent()
    }
}

/// Events that have NULL, negative zero, NaN and quotes among their keys. Part 0 is below the versions' cut.
fn events(part: u64) -> RecordBatch {
    let rows: Vec<i64> = (0..EVENTS as i64).map(|i| i + part as i64 * 37).collect();
    let some = |i: &i64, every: i64| (i % every != 0).then_some(*i);
    let pages = rows.iter().map(|i| {
        some(i, 11).map(|i| match i % 40 {
            0 => String::new(),
            1 => "it's \"ü\"".to_owned(),
            k => format!("p{k}"),
        })
    });
    let floats = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(1.5), None, Some(f64::INFINITY)];
    let prices = rows.iter().map(|i| some(i, 9).map(|i| i128::from(i % 7 * 50)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("page", Arc::new(pages.collect::<StringArray>())),
        (
            "at",
            Arc::new(
                rows.iter()
                    .map(|i| some(i, 17).map(|i| NOON + i % 600 * 1_000_000 + 1))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
        ("n", Arc::new(rows.iter().map(|i| some(i, 13).map(|i| i as i32)).collect::<Int32Array>())),
        ("ok", Arc::new(rows.iter().map(|i| some(i, 5).map(|i| i % 2 == 0)).collect::<BooleanArray>())),
        ("price", Arc::new(prices.collect::<Decimal128Array>().with_precision_and_scale(10, 2).unwrap())),
        (
            "d",
            Arc::new(
                rows.iter().map(|i| some(i, 6).map(|i| 20_000 + (i % 8) as i32)).collect::<Date32Array>(),
            ),
        ),
        ("x", Arc::new(rows.iter().map(|i| floats[(i % 6) as usize]).collect::<Float64Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

struct Live {
    id: ViewId,
    keys: usize,
    plan: MicroBatchPlan,
    merge: MergeStates,
    view: View,
}

/// One source whose views have a version over the first events, and what a speed layer does with the others.
struct World {
    engine: Engine,
    state: SourceState,
    ledger: Ledger,
    views: Vec<Live>,
    held: HashMap<(Scope, String), String>,
    parts: u64,
    txid: TxId,
}

impl World {
    async fn new() -> Self {
        let lake = Lake::open("memory://").unwrap();
        let catalog = Arc::new(Catalog::new(Arc::new(lake.catalog())));
        let columns = vec![
            Column::new("page", ColumnType::Text),
            Column::new("at", ColumnType::TimestampTz),
            Column::new("n", ColumnType::Int),
            Column::new("ok", ColumnType::Boolean),
            Column::new("price", ColumnType::Numeric(10, 2)),
            Column::new("d", ColumnType::Date),
            Column::new("x", ColumnType::Double),
        ];
        let source = Source {
            id: SourceId::new(),
            name: "events".into(),
            columns,
            connector: Connector::Directory,
            options: BTreeMap::new(),
            log: LogId("log".into()),
            start: OffsetVector::zero(),
        };
        let id = source.id;
        let mut actions = vec![Action::CreateSource(source)];
        let ids: Vec<ViewId> = VIEWS.iter().map(|_| ViewId::new()).collect();
        for (view, (name, sql)) in ids.iter().zip(VIEWS) {
            actions.push(Action::CreateView(ViewDefinition {
                id: *view,
                name: name.into(),
                source: id,
                dimensions: BTreeMap::new(),
                sql: sql.into(),
                options: BTreeMap::new(),
                created_ms: 0,
            }));
        }
        let seen = catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await.unwrap();

        let cut = OffsetVector::from([(0, EVENTS)]);
        let from: BTreeMap<_, _> = ids.iter().map(|id| (*id, cut.clone())).collect();
        let ledger =
            Ledger::begin("test", engine(), LogId("log".into()), SHARDS, &from, OffsetVector::zero(), 0);
        let mut views = Vec::new();
        for (id, (name, sql)) in ids.into_iter().zip(VIEWS) {
            let view = View::compile(name, sql, &relations(&seen)).await.unwrap();
            let mut plan = MicroBatchPlan::new(&view, &HashMap::new()).await.unwrap();
            let (states, _) = plan.run(vec![events(0)]).await.unwrap();
            let schema = view.descriptor().state_schema();
            let states = stream::iter(states.into_iter().map(Ok));
            let states = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), states));
            let written = lake.write_version(id, 1, RunId::new(), schema, states).await.unwrap();
            let version = Version {
                view: id,
                number: 1,
                parent: None,
                cut: cut.clone(),
                generation: ledger.generation,
                fingerprint: view.fingerprint().to_owned(),
                descriptor: serde_json::to_value(view.descriptor()).unwrap(),
                files: written.files,
                kind: RunKind::Full,
                groups: written.groups,
                events: EVENTS,
                failed_rows: 0,
                published_ms: 0,
                took_ms: 0,
                run: None,
            };
            let publish = |_: &_| Ok::<_, CatalogError>(vec![Action::PublishVersion(version.clone())]);
            catalog.commit(publish).await.unwrap();
            let merge = MergeStates::new(&view).await.unwrap();
            views.push(Live { id, keys: view.descriptor().keys.len(), plan, merge, view });
        }

        let states = MemoryStore::new();
        let state = states.source(id).await.unwrap();
        for shard in 0..SHARDS {
            assert!(state.shards.claim(shard, None, ledger.generation, ledger.token).await.unwrap());
        }
        let changes = TxnChanges::default();
        let written = state.ledger.write(None, &ledger, changes, Durability::Later).await.unwrap();
        assert_eq!(written, LedgerWrite::Written);
        let engine = Engine::new(Parts {
            catalog,
            lake,
            states: Arc::new(states),
            dimensions: Arc::new(Nobody),
            logs: Arc::new(Nobody),
            topologies: Arc::default(),
            administration: Arc::new(Nobody),
            patience: Duration::from_secs(5),
        })
        .unwrap();
        Self { engine, state, ledger, views, held: HashMap::new(), parts: 1, txid: 0 }
    }

    async fn write(&mut self, next: Ledger) {
        let expected: Option<(Token, u64)> = Some((self.ledger.token, self.ledger.revision));
        let changes = TxnChanges::default();
        let written = self.state.ledger.write(expected, &next, changes, Durability::Later).await.unwrap();
        assert_eq!(written, LedgerWrite::Written);
        self.ledger = next;
    }

    /// The next events, into the ledger and every shard. T stays where it is.
    async fn apply(&mut self) -> Txn {
        let from = self.parts * EVENTS;
        let range = OffsetRange { from, to: from + EVENTS, records: EVENTS };
        let (next, txn) = self.ledger.append(BTreeMap::from([(0, range)])).unwrap();
        self.write(next).await;
        let batch = events(self.parts);
        self.parts += 1;
        self.txid += 1;
        let mut changes: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
        for live in &mut self.views {
            let epoch = txn.feeds.iter().find(|(view, _)| *view == live.id).unwrap().1;
            let scope = Scope { view: live.id, epoch };
            let (mut states, _) = live.plan.run(vec![batch.clone()]).await.unwrap();
            let schema = live.view.descriptor().state_schema();
            let (key_fields, state_fields) = schema.fields().split_at(live.keys);
            let mut before = Vec::new();
            for batch in &states {
                for key in encode_rows(&batch.columns()[..live.keys], batch.num_rows()).unwrap() {
                    before.extend(self.held.get(&(scope, key.clone())).cloned().map(|state| (key, state)));
                }
            }
            if !before.is_empty() {
                let mut columns =
                    decode_rows(before.iter().map(|(key, _)| key.as_str()), key_fields).unwrap();
                columns.extend(
                    decode_rows(before.iter().map(|(_, state)| state.as_str()), state_fields).unwrap(),
                );
                states.push(RecordBatch::try_new(Arc::clone(&schema), columns).unwrap());
            }
            for batch in live.merge.run(states).await.unwrap() {
                let (keys, states) = batch.columns().split_at(live.keys);
                let encoded = |columns| encode_rows(columns, batch.num_rows()).unwrap();
                let (keys, states) = (encoded(keys), encoded(states));
                for (key, after) in keys.into_iter().zip(states) {
                    let before = self.held.insert((scope, key.clone()), after.clone());
                    changes.entry(shard_of(&key, SHARDS)).or_default().push(Change {
                        scope,
                        key,
                        before,
                        after,
                    });
                }
            }
        }
        for shard in 0..SHARDS {
            let commit = ShardCommit {
                shard,
                generation: self.ledger.generation,
                token: self.ledger.token,
                txid: txn.txid,
                attempt: txn.attempt,
                changes: changes.remove(&shard).unwrap_or_default(),
            };
            assert_eq!(self.state.shards.commit(&commit).await.unwrap(), Ok(Verdict::Apply));
        }
        txn
    }

    /// Applies the next events and lets T move on to them.
    async fn commit(&mut self) {
        let txn = self.apply().await;
        let next = self.ledger.commit(&txn, &BTreeMap::new()).unwrap();
        self.write(next).await;
    }

    async fn cut(&mut self) {
        let ids: Vec<ViewId> = self.views.iter().map(|view| view.id).collect();
        let next = self.ledger.cut(&ids, uuid::Uuid::new_v4()).unwrap();
        self.write(next).await;
    }

    /// The rows of an answer, as text, in order.
    async fn ask_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Vec<String> {
        let session = self.engine.session(Client::local("test")).await.unwrap();
        let answer = session.run(sql, parameters).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let Answer::Rows { rows, .. } = answer else { panic!("{sql} has no rows") };
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(1)
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join("|"))
            .collect();
        lines.sort();
        lines
    }

    async fn ask(&self, sql: &str) -> Vec<String> {
        self.ask_with(sql, Vec::new()).await
    }

    /// What a plan says of its scan of speed state.
    async fn scanned(&self, sql: &str) -> String {
        let plan = self.ask(&format!("EXPLAIN FORMAT INDENT {sql}")).await.join("\n");
        let from = plan.find("SpeedScan: ").unwrap_or_else(|| panic!("{sql}: no scan in {plan}"));
        plan[from..].lines().next().unwrap().trim_end_matches('|').to_owned()
    }

    /// What is wrong with the answer to a filter over a view and its sides, beside the same filter over all of their
    /// rows, and with how it is read.
    async fn check(&self, view: &str, filter: &str, read: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in [view.to_owned(), format!("{view}_speed"), format!("{view}_batch")] {
            let found = self.ask(&format!("SELECT * FROM {name} WHERE {filter}")).await;
            // Nothing is pushed below a LIMIT.
            let all = format!("SELECT * FROM (SELECT * FROM {name} LIMIT 1000000) AS v WHERE {filter}");
            let all = self.ask(&all).await;
            if found != all {
                wrong.push(format!("{name} WHERE {filter}: {found:?}, not {all:?}"));
            }
        }
        let scanned = self.scanned(&format!("SELECT * FROM {view} WHERE {filter}")).await;
        if !scanned.contains(read) {
            wrong.push(format!("{view} WHERE {filter}: {scanned}, not {read}"));
        }
        wrong
    }
}

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
