//! The file of one partition: what is known of it, and whether it is still the same file.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stratus_seam::log::{Chunk, LogError};
use stratus_seam::offsets::{Offset, Partition};

use super::manifest;
use super::scan::{self, Found, Request, Unfinished};

/// One partition's file. It need not exist yet.
#[derive(Debug)]
pub(super) struct PartitionFile {
    partition: Partition,
    path: PathBuf,
    known: Mutex<Known>,
}

/// What was learnt so far. A hint is only a hint; `end` and `replaced` are facts.
#[derive(Debug, Default)]
struct Known {
    file: Option<Arc<File>>,
    /// The highest offset after a whole record that was seen: the file may never be shorter again.
    end: Offset,
    end_hint: Option<Unfinished>,
    read_hint: Option<Unfinished>,
    /// Set for ever once the file has been seen to be another one.
    replaced: Option<String>,
}

/// The file as it is at this moment.
struct Sight {
    file: Arc<File>,
    /// Its size.
    len: Offset,
    /// How much of it may be shown: below `len` while an appender's last write is not durable.
    visible: Offset,
    known_end: Offset,
    end_hint: Option<Unfinished>,
    read_hint: Option<Unfinished>,
}

impl PartitionFile {
    pub(super) fn new(dir: &Path, partition: Partition) -> Self {
        Self { partition, path: manifest::partition_path(dir, partition), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // All of it is changed in single assignments, so a panic elsewhere cannot have left it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offset after the last whole record.
    pub(super) fn end(&self, durable: Option<Offset>) -> Result<Offset, LogError> {
        let Some(sight) = self.look(durable)? else { return Ok(0) };
        if sight.visible <= sight.known_end {
            return Ok(sight.known_end);
        }
        let (end, hint) = scan::last_end(&sight.file, sight.known_end, sight.visible, sight.end_hint)
            .map_err(|source| self.unavailable("cannot read", source))?;
        let mut known = self.known();
        if end >= known.end {
            known.end_hint = hint;
            known.end = end;
        }
        Ok(known.end)
    }

    /// Reads whole records from an offset on.
    pub(super) fn read(
        &self,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
        max_record_bytes: usize,
        durable: Option<Offset>,
    ) -> Result<Chunk, LogError> {
        let nothing = Chunk { partition: self.partition, from, to: from, ..Chunk::default() };
        let Some(sight) = self.look(durable)? else {
            return if from == 0 {
                Ok(nothing)
            } else {
                Err(self.replaced_by("there is no such file", from))
            };
        };
        if from > sight.len {
            return Err(self.replaced_by(&format!("the file has only {} bytes", sight.len), from));
        }
        let request = Request {
            from,
            until,
            max_bytes,
            max_record_bytes,
            len: sight.visible.max(from),
            hint: sight.read_hint,
        };
        let found =
            scan::records(&sight.file, request).map_err(|source| self.unavailable("cannot read", source))?;
        match found {
            Found::Records { bytes, records, to } => {
                let mut known = self.known();
                known.end = known.end.max(to);
                Ok(Chunk { partition: self.partition, from, to, bytes, records })
            }
            Found::Nothing { hint } => {
                if hint.is_some() {
                    self.known().read_hint = hint;
                }
                Ok(nothing)
            }
            Found::NotALine => Err(self.replaced_by("no record begins at that offset", from)),
        }
    }

    /// Opens the file if it is there, and makes sure that it is the one that was read before.
    fn look(&self, durable: Option<Offset>) -> Result<Option<Sight>, LogError> {
        let mut known = self.known();
        if let Some(what) = &known.replaced {
            return Err(self.replaced(what.clone()));
        }
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if known.end > 0 {
                    return Err(self.now_replaced(&mut known, "the file is gone"));
                }
                *known = Known::default();
                return Ok(None);
            }
            Err(source) => return Err(self.unavailable("cannot look at", source)),
        };
        let (file, metadata) = match &known.file {
            Some(file)
                if same(file, &metadata).map_err(|source| self.unavailable("cannot look at", source))? =>
            {
                (Arc::clone(file), metadata)
            }
            Some(_) if known.end > 0 => {
                return Err(self.now_replaced(&mut known, "another file has taken its name"));
            }
            _ => {
                let opened = File::open(&self.path).and_then(|file| file.metadata().map(|data| (file, data)));
                let (file, metadata) = opened.map_err(|source| self.unavailable("cannot open", source))?;
                let file = Arc::new(file);
                *known = Known { file: Some(Arc::clone(&file)), ..Known::default() };
                (file, metadata)
            }
        };
        let len = metadata.len();
        if len < known.end {
            let what = format!("the file has only {len} bytes");
            return Err(self.now_replaced(&mut known, &what));
        }
        Ok(Some(Sight {
            file,
            len,
            visible: durable.map_or(len, |durable| durable.min(len)),
            known_end: known.end,
            end_hint: known.end_hint,
            read_hint: known.read_hint,
        }))
    }

    fn now_replaced(&self, known: &mut Known, seen: &str) -> LogError {
        let what = format!("records up to offset {} were seen, but {seen}", known.end);
        known.replaced = Some(what.clone());
        self.replaced(what)
    }

    fn replaced_by(&self, seen: &str, from: Offset) -> LogError {
        self.replaced(format!("a read from offset {from} was asked for, but {seen}"))
    }

    fn replaced(&self, what: String) -> LogError {
        LogError::Replaced {
            log: format!("{}, partition {}", self.path.display(), self.partition),
            what,
            todo: "Files of a log may only be appended to; put the old file back, or drop the source and declare it anew".to_owned(),
        }
    }

    fn unavailable(&self, what: &str, source: io::Error) -> LogError {
        LogError::Unavailable { what: format!("{what} {}", self.path.display()), source: source.into() }
    }
}

fn same(file: &File, named: &Metadata) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}
