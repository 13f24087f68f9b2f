//! The catalog: a linear log of numbered commits in the lake. Its state is the fold of its commits, and the rules
//! of who may follow whom are checked in that fold, by the writer before it puts a commit and by every reader.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::gaps::{Gap, Gaps};
use crate::ids::{Generation, RunId, SourceId, ViewId};
use crate::log::LogId;
use crate::offsets::OffsetVector;
use crate::schema::Column;

/// One numbered commit: all of its actions hold, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Tells the writer whose commit stands under a number after an answer was lost.
    pub id: Uuid,
    /// When it was made, in milliseconds since the epoch; for people, decides nothing.
    pub at_ms: u64,
    /// What it does.
    pub actions: Vec<Action>,
}

/// One change of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new source.
    CreateSource(Source),
    /// A source goes; no view may still read it.
    DropSource {
        /// Which.
        id: SourceId,
    },
    /// A new dimension table.
    CreateDimension(Dimension),
    /// A dimension table goes; no view may still read it.
    DropDimension {
        /// Which.
        name: String,
    },
    /// A new view.
    CreateView(ViewDefinition),
    /// A view goes, with its versions.
    DropView {
        /// Which.
        id: ViewId,
    },
    /// A batch version of a view.
    PublishVersion(Version),
    /// Records of a source that its log forgot before they were in the master dataset.
    RecordGap(Gap),
    /// Versions that no reader can need any more; their files may go some time after.
    RetireVersions {
        /// Of which view.
        view: ViewId,
        /// Their numbers. The newest version of a view never goes.
        numbers: Vec<u32>,
    },
}

/// Where a source's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connector {
    /// A directory of JSON-lines files.
    Directory,
    /// A Kafka topic.
    Kafka,
}

/// A stream of events with a declared schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// This life of the name.
    pub id: SourceId,
    /// The name in SQL.
    pub name: String,
    /// The declared columns.
    pub columns: Vec<Column>,
    /// The kind of log.
    pub connector: Connector,
    /// The options of the CREATE TABLE, checked by the connector.
    pub options: BTreeMap<String, String>,
    /// The incarnation of the log that the source was created over.
    pub log: LogId,
    /// Where its history begins, resolved once at CREATE TABLE.
    pub start: OffsetVector,
}

/// A small table that views may join, copied into the lake by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// The name in SQL.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// SHA-256 of the copied content, in hex.
    pub hash: String,
    /// The copy's path in the lake (Parquet).
    pub path: String,
    /// Its rows.
    pub rows: u64,
}

/// A view as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// This life of the name.
    pub id: ViewId,
    /// The name in SQL.
    pub name: String,
    /// The source that it aggregates.
    pub source: SourceId,
    /// The dimension tables that it joins, with the content that it was created over.
    pub dimensions: BTreeMap<String, String>,
    /// The query, as the user wrote it.
    pub sql: String,
    /// The options of the CREATE MATERIALIZED VIEW.
    pub options: BTreeMap<String, String>,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
}

/// How a version was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// From all events below the cut.
    Full,
}

/// A batch version of a view: immutable files of states, and the cut they stand for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The view.
    pub view: ViewId,
    /// Numbered from 1 within the view.
    pub number: u32,
    /// The version that it follows; none for the first.
    pub parent: Option<u32>,
    /// The vector below which it holds every event, and no other.
    pub cut: OffsetVector,
    /// The generation whose ledger gave the cut.
    pub generation: Generation,
    /// Of the definition and everything the states' meaning depends on.
    pub fingerprint: String,
    /// The types of the flat state columns, as the SQL crate writes them.
    pub descriptor: serde_json::Value,
    /// The Parquet files, by path in the lake.
    pub files: Vec<VersionFile>,
    /// How it was computed.
    pub kind: RunKind,
    /// Groups in it.
    pub groups: u64,
    /// Events below the cut that it was computed from.
    pub events: u64,
    /// Rows that an expression of the view failed on.
    pub failed_rows: u64,
    /// When it was published, in milliseconds since the epoch.
    pub published_ms: u64,
    /// How long the run took, in milliseconds.
    pub took_ms: u64,
    /// The run that computed it; none for a version from before runs had records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFile {
    /// Its path in the lake.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// Everything that holds after a number of commits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CatalogState {
    /// The number of the last commit; 0 for none.
    pub head: u64,
    /// The sources by name.
    pub sources: BTreeMap<String, Source>,
    /// The dimension tables by name.
    pub dimensions: BTreeMap<String, Dimension>,
    /// The views by name.
    pub views: BTreeMap<String, ViewDefinition>,
    /// The versions of each view, oldest first.
    pub versions: BTreeMap<ViewId, Vec<Version>>,
    /// What was lost of each source that lost anything.
    pub gaps: BTreeMap<SourceId, Gaps>,
}

/// Why an action does not fit the catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogMisfit {
    /// The name is taken.
    #[error("relation \"{0}\" already exists")]
    Exists(String),
    /// There is no such thing.
    #[error("relation \"{0}\" does not exist")]
    Missing(String),
    /// Something still depends on it.
    #[error("cannot drop \"{name}\" because view \"{view}\" depends on it")]
    InUse {
        /// What was to go.
        name: String,
        /// What depends on it.
        view: String,
    },
    /// Another version was published meanwhile.
    #[error("version {offered} of the view was computed on parent {parent:?}, but {newest:?} is the newest")]
    Superseded {
        /// The version.
        offered: u32,
        /// Its parent.
        parent: Option<u32>,
        /// The newest one that is published.
        newest: Option<u32>,
    },
    /// The version's cut does not lie at or above its parent's.
    #[error("the cut {cut} of the version does not lie at or above {parent}, the cut of the one before it")]
    CutWentBack {
        /// The version's cut.
        cut: OffsetVector,
        /// Its parent's.
        parent: OffsetVector,
    },
    /// A gap that the source cannot have.
    #[error(
        "source \"{source_name}\" cannot have lost offsets {}..{} of partition {} of log {}: they are none, of another log, or below its start",
        gap.from, gap.to, gap.partition, gap.log
    )]
    NoGap {
        /// The source.
        source_name: String,
        /// The gap.
        gap: Gap,
    },
    /// The version is not there, or it is the newest one.
    #[error("version {number} of the view cannot be retired: it is not there, or it is the newest one")]
    NotRetirable {
        /// The version.
        number: u32,
    },
}

impl CatalogState {
    /// The state after one more commit, or the first rule that it breaks.
    ///
    /// # Errors
    /// [`CatalogMisfit`] if an action does not fit what holds.
    pub fn apply(&self, commit: &Commit) -> Result<Self, CatalogMisfit> {
        let mut next = self.clone();
        for action in &commit.actions {
            next.act(action)?;
        }
        next.head += 1;
        Ok(next)
    }

    fn act(&mut self, action: &Action) -> Result<(), CatalogMisfit> {
        match action {
            Action::CreateSource(source) => {
                self.is_free(&source.name)?;
                self.sources.insert(source.name.clone(), source.clone());
            }
            Action::DropSource { id } => {
                let source = self.source(*id).ok_or_else(|| CatalogMisfit::Missing(id.to_string()))?;
                let name = source.name.clone();
                if let Some(view) = self.views.values().find(|view| view.source == *id) {
                    return Err(CatalogMisfit::InUse { name, view: view.name.clone() });
                }
                self.sources.remove(&name);
                self.gaps.remove(id);
            }
            Action::CreateDimension(dimension) => {
                self.is_free(&dimension.name)?;
                self.dimensions.insert(dimension.name.clone(), dimension.clone());
            }
            Action::DropDimension { name } => {
                if let Some(view) = self.views.values().find(|view| view.dimensions.contains_key(name)) {
                    return Err(CatalogMisfit::InUse { name: name.clone(), view: view.name.clone() });
                }
                self.dimensions.remove(name).ok_or_else(|| CatalogMisfit::Missing(name.clone()))?;
            }
            Action::CreateView(view) => {
                self.is_free(&view.name)?;
                if self.source(view.source).is_none() {
                    return Err(CatalogMisfit::Missing(view.source.to_string()));
                }
                if let Some((name, _)) = view
                    .dimensions
                    .iter()
                    .find(|(name, hash)| self.dimensions.get(*name).is_none_or(|d| d.hash != **hash))
                {
                    return Err(CatalogMisfit::Missing(name.clone()));
                }
                self.views.insert(view.name.clone(), view.clone());
                self.versions.insert(view.id, Vec::new());
            }
            Action::DropView { id } => {
                let name = self.view(*id).map(|view| view.name.clone());
                self.views.remove(&name.ok_or_else(|| CatalogMisfit::Missing(id.to_string()))?);
                self.versions.remove(id);
            }
            Action::PublishVersion(version) => self.publish(version)?,
            Action::RecordGap(gap) => self.record(gap)?,
            Action::RetireVersions { view, numbers } => self.retire(*view, numbers)?,
        }
        Ok(())
    }

    /// A version follows the newest one, and its cut lies at or above that one's.
    fn publish(&mut self, version: &Version) -> Result<(), CatalogMisfit> {
        let versions = self
            .versions
            .get_mut(&version.view)
            .ok_or_else(|| CatalogMisfit::Missing(version.view.to_string()))?;
        let newest = versions.last();
        let newest_number = newest.map(|newest| newest.number);
        if version.parent != newest_number || version.number != newest_number.unwrap_or(0) + 1 {
            return Err(CatalogMisfit::Superseded {
                offered: version.number,
                parent: version.parent,
                newest: newest_number,
            });
        }
        if let Some(newest) = newest.filter(|newest| !version.cut.covers(&newest.cut)) {
            return Err(CatalogMisfit::CutWentBack { cut: version.cut.clone(), parent: newest.cut.clone() });
        }
        versions.push(version.clone());
        Ok(())
    }

    /// A gap lies between two offsets of the very log that the source was created over. One that is known already
    /// is no change: whoever records it may have died before it could go on, and does so again.
    fn record(&mut self, gap: &Gap) -> Result<(), CatalogMisfit> {
        let source = self.source(gap.source).ok_or_else(|| CatalogMisfit::Missing(gap.source.to_string()))?;
        if gap.from >= gap.to || gap.log != source.log || gap.from < source.start.get(gap.partition) {
            return Err(CatalogMisfit::NoGap { source_name: source.name.clone(), gap: gap.clone() });
        }
        self.gaps.entry(gap.source).or_default().insert(gap.clone());
        Ok(())
    }

    /// The newest version stays for as long as its view: the next one follows it, and a lost speed state begins anew
    /// at its cut.
    fn retire(&mut self, view: ViewId, numbers: &[u32]) -> Result<(), CatalogMisfit> {
        let versions =
            self.versions.get_mut(&view).ok_or_else(|| CatalogMisfit::Missing(view.to_string()))?;
        for number in numbers {
            let older = versions.split_last().map_or(&[][..], |(_, older)| older);
            let at = older.iter().position(|version| version.number == *number);
            versions.remove(at.ok_or(CatalogMisfit::NotRetirable { number: *number })?);
        }
        Ok(())
    }

    fn is_free(&self, name: &str) -> Result<(), CatalogMisfit> {
        let taken = self.sources.contains_key(name)
            || self.dimensions.contains_key(name)
            || self.views.contains_key(name);
        if taken { Err(CatalogMisfit::Exists(name.to_owned())) } else { Ok(()) }
    }

    /// The source with an id.
    pub fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.values().find(|source| source.id == id)
    }

    /// The view with an id.
    pub fn view(&self, id: ViewId) -> Option<&ViewDefinition> {
        self.views.values().find(|view| view.id == id)
    }

    /// The views of a source.
    pub fn views_of(&self, source: SourceId) -> impl Iterator<Item = &ViewDefinition> {
        self.views.values().filter(move |view| view.source == source)
    }

    /// What was lost of a source; nothing, mostly.
    pub fn gaps_of(&self, source: SourceId) -> &[Gap] {
        self.gaps.get(&source).map_or(&[], Gaps::as_slice)
    }

    /// How many offsets below a vector were lost of a source.
    pub fn lost_below(&self, source: SourceId, vector: &OffsetVector) -> u64 {
        self.gaps.get(&source).map_or(0, |gaps| gaps.below(vector))
    }

    /// The versions of a view, oldest first.
    pub fn versions_of(&self, view: ViewId) -> &[Version] {
        self.versions.get(&view).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
