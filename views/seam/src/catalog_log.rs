//! Following and extending the catalog over any store that can put an object only if it is absent.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use uuid::Uuid;

use crate::catalog::{Action, CatalogMisfit, CatalogState, Commit};

/// What a put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The number was free and is now the commit's.
    Done,
    /// Another commit has the number.
    Taken,
}

/// Why a catalog could not be read or extended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The lake did not answer. A put may have happened.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A commit cannot be understood, or breaks a rule that its writer had to check.
    #[error("catalog commit {number} {what}")]
    Damaged {
        /// Which.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The actions do not fit what holds.
    #[error(transparent)]
    Misfit(#[from] CatalogMisfit),
}

impl CatalogError {
    /// What a SQL client is told: five characters, as PostgreSQL's appendix A lists them. A misfit is the client's, the
    /// rest is the lake's.
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::Misfit(CatalogMisfit::Exists(_)) => "42P07",
            Self::Misfit(CatalogMisfit::Missing(_)) => "42P01",
            Self::Misfit(CatalogMisfit::InUse { .. }) => "2BP01",
            Self::Misfit(CatalogMisfit::Superseded { .. } | CatalogMisfit::CutWentBack { .. }) => "40001",
            Self::Misfit(_) => "55000",
            Self::Damaged { .. } => "XX001",
            Self::Unavailable { .. } => "58030",
        }
    }
}

/// Numbered commits, from 1.
#[async_trait]
pub trait CatalogLog: Send + Sync + fmt::Debug {
    /// The commit with a number; none if there is none yet. A commit, once read, never changes.
    async fn read(&self, number: u64) -> Result<Option<Commit>, CatalogError>;

    /// Puts a commit under a number only if there is none.
    async fn put(&self, number: u64, commit: &Commit) -> Result<Put, CatalogError>;
}

/// The catalog as one process sees it: a state that is brought up to date on demand.
#[derive(Debug)]
pub struct Catalog {
    log: Arc<dyn CatalogLog>,
    state: Mutex<Arc<CatalogState>>,
}

impl Catalog {
    /// A catalog over a log; reads nothing yet.
    pub fn new(log: Arc<dyn CatalogLog>) -> Self {
        Self { log, state: Mutex::new(Arc::new(CatalogState::default())) }
    }

    /// The state as of the last look.
    pub fn seen(&self) -> Arc<CatalogState> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn advance(&self, state: CatalogState) -> Arc<CatalogState> {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.head > held.head {
            *held = Arc::new(state);
        }
        Arc::clone(&held)
    }

    /// Reads what was committed since the last look.
    ///
    /// # Errors
    /// [`CatalogError`] if the lake does not answer, or a commit is damaged.
    pub async fn refresh(&self) -> Result<Arc<CatalogState>, CatalogError> {
        let mut state = self.seen();
        while let Some(commit) = self.log.read(state.head + 1).await? {
            let number = state.head + 1;
            let next = state
                .apply(&commit)
                .map_err(|misfit| CatalogError::Damaged { number, what: misfit.to_string() })?;
            state = self.advance(next);
        }
        Ok(state)
    }

    /// Commits the actions that `decide` finds right for the newest state; it is asked again when another writer
    /// was faster. No actions: nothing is written. An answer that was lost is settled by reading.
    ///
    /// # Errors
    /// What `decide` refuses, [`CatalogMisfit`] if its actions break a rule, or a lake that does not answer.
    pub async fn commit<E>(
        &self,
        mut decide: impl FnMut(&CatalogState) -> Result<Vec<Action>, E>,
    ) -> Result<Arc<CatalogState>, E>
    where
        E: From<CatalogError>,
    {
        let id = Uuid::new_v4();
        loop {
            let state = self.refresh().await?;
            let actions = decide(&state)?;
            if actions.is_empty() {
                return Ok(state);
            }
            let commit = Commit { id, at_ms: now_ms(), actions };
            let next = state.apply(&commit).map_err(CatalogError::from)?;
            let number = next.head;
            match self.log.put(number, &commit).await {
                Ok(Put::Done) => return Ok(self.advance(next)),
                Ok(Put::Taken) => {}
                // The put may have happened all the same, so who stands under the number decides. If nobody does,
                // it may yet happen: the error goes to the caller, who cannot know either.
                Err(error) => match self.log.read(number).await {
                    Ok(Some(stands)) if stands.id == id => return Ok(self.advance(next)),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Err(error.into()),
                },
            }
        }
    }
}

/// The clock, in milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::Dimension;

    /// Keeps commits in memory; on the n-th put it loses the answer after the effect.
    #[derive(Debug, Default)]
    struct Commits {
        kept: Mutex<BTreeMap<u64, Commit>>,
        lose_answers: bool,
    }

    #[async_trait]
    impl CatalogLog for Commits {
        async fn read(&self, number: u64) -> Result<Option<Commit>, CatalogError> {
            Ok(self.kept.lock().unwrap().get(&number).cloned())
        }

        async fn put(&self, number: u64, commit: &Commit) -> Result<Put, CatalogError> {
            let mut kept = self.kept.lock().unwrap();
            if kept.contains_key(&number) {
                return Ok(Put::Taken);
            }
            kept.insert(number, commit.clone());
            if self.lose_answers {
                let source = "the answer was lost".into();
                return Err(CatalogError::Unavailable { what: "put".into(), source });
            }
            Ok(Put::Done)
        }
    }

    fn dimension(name: &str) -> Vec<Action> {
        vec![Action::CreateDimension(Dimension {
            name: name.into(),
            columns: Vec::new(),
            hash: "h".into(),
            path: "p".into(),
            rows: 0,
        })]
    }

    #[tokio::test]
    async fn the_slower_of_two_writers_decides_anew() {
        let log: Arc<dyn CatalogLog> = Arc::new(Commits::default());
        let (one, two) = (Catalog::new(Arc::clone(&log)), Catalog::new(log));
        one.commit(|_| Ok::<_, CatalogError>(dimension("a"))).await.unwrap();
        let mut seen = Vec::new();
        let state = two
            .commit(|state| {
                seen.push(state.head);
                Ok::<_, CatalogError>(dimension("b"))
            })
            .await
            .unwrap();
        assert_eq!((state.head, seen), (2, vec![1]));
        let taken = one.commit(|_| Ok::<_, CatalogError>(dimension("b"))).await;
        assert!(matches!(taken, Err(CatalogError::Misfit(CatalogMisfit::Exists(_)))));
    }

    #[tokio::test]
    async fn a_lost_answer_is_settled_by_reading() {
        let catalog = Catalog::new(Arc::new(Commits { lose_answers: true, ..Commits::default() }));
        let state = catalog.commit(|_| Ok::<_, CatalogError>(dimension("a"))).await.unwrap();
        assert_eq!(state.head, 1);
        assert_eq!(catalog.refresh().await.unwrap().head, 1);
    }
}
