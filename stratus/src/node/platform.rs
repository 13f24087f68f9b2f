//! What HTTP asks of the running process.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use stratus_logs::AppendError;
use stratus_seam::catalog_log::Catalog;
use stratus_seam::store::StateStore;
use stratus_speed::LocalCluster;

use super::roles::Roles;
use super::sources::OpenLogs;
use super::tasks::Health;
use crate::http::{AppendProblem, Appended, Platform};

/// The running process, as HTTP sees it.
#[derive(Debug)]
pub(super) struct RunningPlatform {
    pub(super) roles: Roles,
    pub(super) catalog: Arc<Catalog>,
    pub(super) logs: Arc<OpenLogs>,
    pub(super) states: Arc<dyn StateStore>,
    /// The topologies of this process.
    pub(super) cluster: Arc<LocalCluster>,
    pub(super) health: Health,
    pub(super) metrics: PrometheusHandle,
}

impl RunningPlatform {
    /// Sources whose speed state is being rebuilt.
    async fn rebuilding(&self) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
        let mut reasons = Vec::new();
        if !self.roles.serve && !self.roles.speed {
            return Ok(reasons);
        }
        for source in self.catalog.refresh().await?.sources.values() {
            let state = self.states.source(source.id).await?;
            let Some(ledger) = state.ledger.read().await? else { continue };
            if !ledger.views.is_empty() && !ledger.committed_to.covers(&ledger.target) {
                reasons.push(format!(
                    "the speed state of source \"{}\" is being rebuilt ({}): it stands at {}, short of {}",
                    source.name, ledger.reason, ledger.committed_to, ledger.target
                ));
            }
        }
        Ok(reasons)
    }
}

#[async_trait]
impl Platform for RunningPlatform {
    async fn append(&self, source: &str, body: Bytes) -> Result<Appended, AppendProblem> {
        let unavailable = |error: &dyn std::fmt::Display| AppendProblem::Unavailable(error.to_string());
        let mut catalog = self.catalog.seen();
        if !catalog.sources.contains_key(source) {
            catalog = self.catalog.refresh().await.map_err(|error| unavailable(&error))?;
        }
        let source = catalog.sources.get(source).ok_or(AppendProblem::NoSuchSource)?;
        let inlet = self.logs.inlet(source).await.map_err(|error| unavailable(&error))?;
        let problem = |error: AppendError| match error {
            AppendError::Locked { .. } => AppendProblem::NotAppendable(error.to_string()),
            other => AppendProblem::Unavailable(other.to_string()),
        };
        let (checking, checked) = (Arc::clone(&inlet), body.clone());
        let dead_letters = tokio::task::spawn_blocking(move || checking.dead_letters(&checked));
        let appended = inlet.append(body).await.map_err(problem)?;
        let dead_letters = dead_letters.await.map_err(|error| unavailable(&error))?;
        let offsets = appended.offsets.iter().collect();
        Ok(Appended { accepted: appended.accepted, dead_letters, offsets })
    }

    async fn not_ready(&self) -> Vec<String> {
        let mut reasons = self.health.reasons();
        match self.rebuilding().await {
            Ok(rebuilding) => reasons.extend(rebuilding),
            Err(error) => reasons.push(error.to_string()),
        }
        reasons
    }

    fn metrics(&self) -> String {
        // Families of two kinds: of the process as a whole, and of its topologies.
        let mut text = self.metrics.render();
        text.push_str(&self.cluster.prometheus());
        text
    }
}
