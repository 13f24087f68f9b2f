//! States in a redb file.
//!
//! - Table `values:NAME` holds the state `NAME`, whatever the parallelism: key (`&str`) to JSON (`&[u8]`): `value`,
//!   `[txid,value]` or `[txid,value,previous]`.
//! - Table `states`: name to kind and highest transaction that wrote, 0 before the first, as `(&str, u64)`.
//! - Table `digests`: name to the digest of the batch that this transaction is, where it is known, as `u64`.
//! - Table `layout`: `"version"` to 1.
//!
//! A put is one transaction of redb, flushed to disk when it is answered. redb lets one transaction write at a time, so
//! that the tasks of all states of a file take turns.

mod map;
mod trouble;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use redb::{Database, ReadableTable, TableDefinition};
use stratus_trident::StateKind;

use self::trouble::{Trouble, blocking};
use crate::{
    MapError, MapStore, Stored,
    guard::{self, Guard},
    standing::Standings,
};

pub use map::RedbMap;

const LAYOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("layout");
const VERSION: u64 = 1;

/// Kind and highest transaction of each state.
const STATES: TableDefinition<'_, &str, (&str, u64)> = TableDefinition::new("states");

/// The digest of each state's highest transaction.
const DIGESTS: TableDefinition<'_, &str, u64> = TableDefinition::new("digests");

fn values(table: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(table)
}

/// How much of the file is kept in memory, at most, in bytes. It is taken as needed.
const CACHE: usize = 256 << 20;

/// States in one redb file, which belongs to one process. Clones are handles on the same file, which is closed with the
/// last of them and of the states over it.
#[derive(Clone)]
pub struct RedbMaps(Arc<File>);

struct File {
    db: Database,
    path: PathBuf,
    standings: Standings,
}

impl RedbMaps {
    /// States in the file at `path`, which is made if it does not exist, and the folders it lies in.
    ///
    /// # Errors
    ///
    /// Another process has it open, it is no such file or damaged, or the operating system refuses.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, MapError> {
        let path = path.as_ref().to_path_buf();
        let what = format!("{}: opening the file of states", path.display());
        let opened = blocking(&what, move || {
            if !path.try_exists()? {
                begin(&path)?;
            }
            let db = database(&path)?;
            // Also if the file was there: the life that made it may have been cut off before this.
            flush_names(folder_of(&path))?;
            Ok(File { db, path, standings: Standings::default() })
        });
        Ok(Self(Arc::new(opened.await?)))
    }
}

/// Makes a file under another name first: redb cannot open one whose making was cut off. If another process is quicker,
/// its file stays.
fn begin(path: &Path) -> Result<(), Trouble> {
    make_folder(folder_of(path))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let made = database(&new).and_then(|db| {
        drop(db);
        match std::fs::hard_link(&new, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system has links.
            Err(_) => Ok(std::fs::rename(&new, path)?),
            Ok(()) => Ok(()),
        }
    });
    // Gone already if it was renamed.
    let _ = std::fs::remove_file(&new);
    made
}

/// Makes a folder, and those it lies in, and their names durable: that a file is flushed says nothing about the names on
/// the way to it.
fn make_folder(folder: &Path) -> Result<(), Trouble> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    make_folder(above)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => flush_names(above),
    }
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Flushes which names are in a folder.
fn flush_names(folder: &Path) -> Result<(), Trouble> {
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

/// The database in a file, with the tables that it must have.
fn database(path: &Path) -> Result<Database, Trouble> {
    let db = Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)?;
    let txn = db.begin_write()?;
    {
        let mut layout = txn.open_table(LAYOUT)?;
        let found = layout.get("version")?.map(|found| found.value());
        match found {
            Some(VERSION) => {}
            None => drop(layout.insert("version", VERSION)?),
            Some(other) => {
                return Err(Trouble::Damaged(format!("it has layout {other}, this version knows {VERSION}")));
            }
        }
        txn.open_table(STATES)?;
        txn.open_table(DIGESTS)?;
    }
    txn.commit()?;
    Ok(db)
}

impl fmt::Debug for RedbMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedbMaps").field(&self.0.path).finish()
    }
}

#[async_trait]
impl MapStore for RedbMaps {
    type Map<T: Stored> = RedbMap<T>;

    async fn map<T: Stored>(&self, kind: StateKind, name: &str) -> Result<RedbMap<T>, MapError> {
        let what = format!("{}: state {name:?}", self.0.path.display());
        let (file, state, asked) = (Arc::clone(&self.0), name.to_owned(), guard::name(kind));
        let held = blocking(&what, move || {
            let txn = file.db.begin_write()?;
            let held = {
                let mut states = txn.open_table(STATES)?;
                let held = states.get(state.as_str())?.map(|found| found.value().0.to_owned());
                if held.is_none() {
                    states.insert(state.as_str(), (asked, 0))?;
                    txn.open_table(values(&map::table(&state)))?;
                }
                held
            };
            match held {
                Some(held) => {
                    txn.abort()?;
                    Ok(held)
                }
                None => {
                    txn.commit()?;
                    Ok(asked.to_owned())
                }
            }
        });
        let held = held.await?;
        if held != asked {
            return Err(MapError::OtherKind { what, held, asked: asked.to_owned() });
        }
        let guard = Guard::new(kind, self.0.standings.of(name));
        Ok(RedbMap::new(Arc::clone(&self.0), name, guard, what))
    }

    async fn clear(&self, name: &str) -> Result<(), MapError> {
        let what = format!("{}: clearing the state {name:?}", self.0.path.display());
        let (file, state) = (Arc::clone(&self.0), name.to_owned());
        let cleared = blocking(&what, move || {
            let txn = file.db.begin_write()?;
            txn.open_table(STATES)?.remove(state.as_str())?;
            txn.open_table(DIGESTS)?.remove(state.as_str())?;
            txn.delete_table(values(&map::table(&state)))?;
            Ok(txn.commit()?)
        });
        cleared.await?;
        self.0.standings.cleared(name);
        Ok(())
    }
}
