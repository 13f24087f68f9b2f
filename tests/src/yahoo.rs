//! The events and the query of the Yahoo Streaming Benchmark, for the benches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use datafusion::datasource::TableProvider;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stratus_lake::Lake;
use stratus_seam::catalog::{Action, Connector, Dimension, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::LogId;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType};
use stratus_sql::SqlError;
use stratus_sql::cataloged::DimensionTables;

/// The benchmark's query: views of ads, by campaign and windows of ten seconds.
pub const QUERY: &str =
    "SELECT campaign_id, date_bin(INTERVAL '10 seconds', event_time) AS window_start, count(*) AS views
    FROM ad_events JOIN ads USING (ad_id) WHERE event_type = 'view' GROUP BY 1, 2";

/// The columns of an event.
pub fn columns() -> Vec<Column> {
    let text = ["user_id", "page_id", "ad_id", "ad_type", "event_type"];
    let mut columns: Vec<Column> = text.map(|name| Column::new(name, ColumnType::Text)).into();
    columns.push(Column::new("event_time", ColumnType::TimestampTz));
    columns.push(Column::new("ip_address", ColumnType::Text));
    columns
}

/// A lake with the benchmark's table of ads, and a generator of events about them.
#[derive(Debug, Clone)]
pub struct Ads {
    /// The lake.
    pub lake: Lake,
    dimension: Dimension,
    ids: Vec<String>,
    random: StdRng,
}

impl Ads {
    /// 1,000 ads of 100 campaigns, in a new lake below `folder`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub async fn make(folder: &Path, seed: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let (ads, campaigns) = (ids(&mut random, 1_000), ids(&mut random, 100));
        let mut csv = "ad_id,campaign_id\n".to_owned();
        for (i, ad) in ads.iter().enumerate() {
            writeln!(csv, "{ad},{}", campaigns[i / 10])?;
        }
        std::fs::write(folder.join("ads.csv"), csv)?;
        let lake = Lake::open(&folder.join("lake").to_string_lossy())?;
        let declared = [Column::new("ad_id", ColumnType::Text), Column::new("campaign_id", ColumnType::Text)];
        let dimension =
            lake.copy_dimension("ads", &folder.join("ads.csv"), &BTreeMap::new(), &declared).await?;
        Ok(Self { lake, dimension, ids: ads, random })
    }

    /// The source and the view.
    pub fn declare(&self, connector: Connector, log: LogId, start: OffsetVector) -> (Source, ViewDefinition) {
        let source = Source {
            id: SourceId::new(),
            name: "ad_events".into(),
            columns: columns(),
            connector,
            options: BTreeMap::new(),
            log,
            start,
        };
        let view = ViewDefinition {
            id: ViewId::new(),
            name: "campaign_views".into(),
            source: source.id,
            dimensions: BTreeMap::from([("ads".into(), self.dimension.hash.clone())]),
            sql: QUERY.into(),
            options: BTreeMap::new(),
            created_ms: 0,
        };
        (source, view)
    }

    /// Puts source, ads and view into the catalog.
    ///
    /// # Errors
    /// If the catalog refuses them.
    pub async fn create(&self, catalog: &Catalog, source: &Source, view: &ViewDefinition) -> Result<()> {
        let actions = vec![
            Action::CreateSource(source.clone()),
            Action::CreateDimension(self.dimension.clone()),
            Action::CreateView(view.clone()),
        ];
        catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await?;
        Ok(())
    }

    /// Events with the benchmark's keys and lengths, a line each.
    pub fn events(&mut self, count: u64) -> Vec<u8> {
        let random = &mut self.random;
        let (users, pages) = (ids(random, 100), ids(random, 100));
        let (ad_types, event_types) =
            (["banner", "modal", "sponsored-search", "mail", "mobile"], ["view", "click", "purchase"]);
        let mut text = String::with_capacity(count as usize * 250);
        for i in 0..count {
            let pick = |random: &mut StdRng, from: usize| random.random_range(0..from);
            // Writing to a string cannot fail.
            _ = writeln!(
                text,
                r#"{{"user_id": "{}", "page_id": "{}", "ad_id": "{}", "ad_type": "{}", "event_type": "{}", "event_time": "{}", "ip_address": "1.2.3.4"}}"#,
                users[pick(random, 100)],
                pages[pick(random, 100)],
                self.ids[pick(random, self.ids.len())],
                ad_types[pick(random, 5)],
                event_types[pick(random, 3)],
                1_767_225_600_000 + i,
            );
        }
        text.into_bytes()
    }
}

#[async_trait]
impl DimensionTables for Ads {
    async fn table(&self, _: &str, _: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        let provider = self.lake.dimension_provider(&self.dimension).await;
        provider.map_err(|error| SqlError::new("58030", error.to_string()))
    }
}

fn ids(random: &mut StdRng, count: usize) -> Vec<String> {
    let id = |random: &mut StdRng| {
        let (a, b): (u64, u64) = (random.random(), random.random());
        let (a, b) = (format!("{a:016x}"), format!("{b:016x}"));
        format!("{}-{}-{}-{}-{}", &a[..8], &a[8..12], &a[12..], &b[..4], &b[4..])
    };
    (0..count).map(|_| id(random)).collect()
}
