//! A source whose views have a version over its first events, a speed layer that is driven by hand, and the engine
//! over both.

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
pub(super) const NOON: i64 = 1_767_268_800_000_000;
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
pub(super) struct World {
    engine: Engine,
    state: SourceState,
    ledger: Ledger,
    views: Vec<Live>,
    held: HashMap<(Scope, String), String>,
    parts: u64,
    txid: TxId,
}

impl World {
    pub(super) async fn new() -> Self {
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
    pub(super) async fn apply(&mut self) -> Txn {
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
    pub(super) async fn commit(&mut self) {
        let txn = self.apply().await;
        let next = self.ledger.commit(&txn, &BTreeMap::new()).unwrap();
        self.write(next).await;
    }

    pub(super) async fn cut(&mut self) {
        let ids: Vec<ViewId> = self.views.iter().map(|view| view.id).collect();
        let next = self.ledger.cut(&ids, uuid::Uuid::new_v4()).unwrap();
        self.write(next).await;
    }

    /// The rows of an answer, as text, in order.
    pub(super) async fn ask_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Vec<String> {
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

    pub(super) async fn ask(&self, sql: &str) -> Vec<String> {
        self.ask_with(sql, Vec::new()).await
    }

    /// What a plan says of its scan of speed state.
    pub(super) async fn scanned(&self, sql: &str) -> String {
        let plan = self.ask(&format!("EXPLAIN FORMAT INDENT {sql}")).await.join("\n");
        let from = plan.find("SpeedScan: ").unwrap_or_else(|| panic!("{sql}: no scan in {plan}"));
        plan[from..].lines().next().unwrap().trim_end_matches('|').to_owned()
    }

    /// What is wrong with the answer to a filter over a view and its sides, beside the same filter over all of their
    /// rows, and with how it is read.
    pub(super) async fn check(&self, view: &str, filter: &str, read: &str) -> Vec<String> {
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
