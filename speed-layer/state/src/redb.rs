//! State in one redb file: the embedded default, nothing to install.
//!
//! One file holds all sources and belongs to one process; layers in separate processes need Redis. Writes go through
//! one thread, which puts those that wait into one transaction. Reads take redb's snapshots on blocking threads:
//! they never wait for a writer, and each sees one moment.
//!
//! # Layout, version 1
//!
//! Ids are the 16 bytes of the UUID, numbers big-endian: shard and epoch 4 bytes, txid 8.
//!
//! | table | key | value |
//! |---|---|---|
//! | `layout` | `"version"` | 1 |
//! | `ledger` | source | the record, JSON |
//! | `txns` | source, txid | the entry, JSON |
//! | `requests`, `pins` | source, id | the request or pin, JSON |
//! | `meta` | source, shard | generation, token, txid, attempt, rows that each scope must have, JSON |
//! | `state` | source, shard, view, epoch, key | state |
//! | `undo` | source, shard, txid, view, epoch, chunk (4 bytes) | what the txid overwrote, packed: see `layout.rs` |
//!
//! **Row counts.** An insert answers what it replaced, so a commit is checked against it as it is written, and the
//! record counts the rows that really were new. A redb file cannot lose single rows otherwise than by damage, which the
//! check at opening finds. So a tail answers with the record's counts, and a look-up of one key does not cost a scan;
//! [`meta`](stratus_seam::store::ShardStore::meta), which recovery asks, counts the keys themselves.
//!
//! # What survives a crash
//!
//! A ledger write with [`Durability::Now`] is flushed to disk (an `Immediate` commit of redb); all else is committed in
//! memory (`None`). That is enough:
//!
//! 1. The transactions of a file are one line, written by one thread. A flushed commit makes every earlier one durable
//!    with it, and a crash goes back to a flushed commit: what is lost is always a suffix.
//! 2. T moves by a ledger write with `Now`, after every shard has answered. So whoever sees T after a crash also finds
//!    all shard commits, entries and claims that T rests on.
//! 3. A read sees a flushed ledger write only after its flush, so no T is shown that a crash can take back. What it can
//!    take back are shard commits above T, which reads as of T undo.
//! 4. What was lost is done again: from the same entries, or, if these were lost as well, from new ones whose attempts
//!    differ, so that nothing of the old ones is mistaken for them.
//!
//! `crash.rs` tests this on a simulated disk that loses and tears what was not flushed. An ordinary end flushes all.
//! Opening checks every page's checksum, after a crash or not: it costs a read of the file, and a damaged file is
//! found before an answer is taken from it.

#[cfg(test)]
mod crash;
mod layout;
mod ledger;
mod shards;
mod trouble;
mod writer;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable};
use stratus_seam::ids::SourceId;
use stratus_seam::store::{Durability, SourceState, StateStore, StoreError};

pub use self::trouble::OpenError;
use self::trouble::{Trouble, damaged, unavailable};
use self::writer::{Effect, Writer, panicked};

/// How much of the file is kept in memory, at most, in bytes. It is taken as needed.
const CACHE: usize = 256 << 20;

/// A store in a redb file. Clones are handles on the same file, which is closed with the last of them and of the
/// handles they gave out.
#[derive(Clone)]
pub struct RedbStore(Arc<File>);

/// The open file. The writer comes first, so that it has ended when the database is closed.
struct File {
    writer: Writer,
    db: Arc<Database>,
    path: PathBuf,
}

impl RedbStore {
    /// Opens a state file, or makes it and the folders it lies in. This blocks: on a large file for as long as it
    /// takes to read it.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_path_buf();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        }
        if !path.exists() {
            begin(&path)?;
        }
        Self::open_with(path.clone(), |builder| builder.open(&path))
    }

    fn open_with(
        path: PathBuf,
        create: impl FnOnce(&Builder) -> Result<Database, DatabaseError>,
    ) -> Result<Self, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let unreadable = |cause| OpenError::Unreadable { path: path.clone(), cause };
        let db = catch_unwind(AssertUnwindSafe(|| create(&builder)))
            .map_err(|panic| unreadable(panicked(panic.as_ref())))?
            .map_err(|error| OpenError::from_redb(path.clone(), error))?;
        lay_out(&db).map_err(|trouble| unreadable(trouble.cause()))?;
        let db = Arc::new(db);
        let writer =
            Writer::start(db.clone()).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Self(Arc::new(File { writer, db, path })))
    }
}

/// Makes a new file under another name first: a crash meanwhile must not leave half a file in its place. If another
/// process is quicker, its file stays.
fn begin(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let ready = || -> Result<(), OpenError> {
        drop(RedbStore::open_with(new.clone(), |builder| builder.create(&new))?);
        match std::fs::hard_link(&new, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system has links.
            Err(_) => std::fs::rename(&new, path).map_err(io),
            Ok(()) => Ok(()),
        }
    };
    let made = ready();
    // Gone already if it was renamed.
    let _ = std::fs::remove_file(&new);
    made
}

/// Makes the tables of a new file, and checks the layout of an old one.
fn lay_out(db: &Database) -> Result<(), Trouble> {
    let txn = db.begin_write()?;
    {
        let mut version = txn.open_table(layout::LAYOUT)?;
        let found = version.get("version")?.map(|found| found.value());
        match found {
            Some(layout::VERSION) => return Ok(()),
            Some(other) => {
                let known = layout::VERSION;
                return Err(Trouble::Damaged(format!("it has layout {other}, this version knows {known}")));
            }
            None => version.insert("version", layout::VERSION)?,
        };
        for table in layout::OF_SOURCES {
            txn.open_table(table)?;
        }
    }
    Ok(txn.commit()?)
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedbStore").field(&self.0.path).finish()
    }
}

#[async_trait]
impl StateStore for RedbStore {
    async fn source(&self, source: SourceId) -> Result<SourceState, StoreError> {
        let handle = Arc::new(RedbSource { file: self.0.clone(), source });
        Ok(SourceState { ledger: handle.clone(), shards: handle })
    }

    async fn forget(&self, source: SourceId) -> Result<(), StoreError> {
        let what = format!("{}: forget source {source}", self.0.path.display());
        let range = layout::beginning_with(&layout::of_source(source));
        let effect: Effect<()> = Box::new(move |txn| {
            for table in layout::OF_SOURCES {
                txn.open_table(table)?.retain_in::<&[u8], _>(layout::slices(&range), |_, _| false)?;
            }
            Ok(((), true))
        });
        // Nobody asks for it again after a crash.
        self.0.writer.write(what, Durability::Now, effect).await
    }
}

/// One source in the file.
struct RedbSource {
    file: Arc<File>,
    source: SourceId,
}

impl fmt::Debug for RedbSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbSource").field("file", &self.file.path).field("source", &self.source).finish()
    }
}

impl RedbSource {
    fn what(&self, verb: &str) -> String {
        format!("{}: source {}: {verb}", self.file.path.display(), self.source)
    }

    async fn write<T: Send + 'static>(
        &self,
        verb: &str,
        durability: Durability,
        effect: impl FnMut(&redb::WriteTransaction) -> Result<(T, bool), Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.file.writer.write(self.what(verb), durability, Box::new(effect)).await
    }

    /// Looks at one moment of the file, on a blocking thread.
    async fn look<T: Send + 'static>(
        &self,
        verb: &str,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (what, file) = (self.what(verb), self.file.clone());
        let told = what.clone();
        let seen = tokio::task::spawn_blocking(move || {
            let txn = file.db.begin_read().map_err(Trouble::from);
            txn.and_then(|txn| look(&txn)).map_err(|trouble| trouble.told(&told))
        });
        match seen.await {
            Ok(seen) => seen,
            Err(gone) if gone.is_panic() => Err(damaged(&what, &panicked(gone.into_panic().as_ref()))),
            Err(_) => Err(unavailable(&what, "the process is shutting down".into())),
        }
    }
}
