//! The growing end of one owned file: what is durable, and how it gets longer.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stratus_seam::crash;
use stratus_seam::offsets::Offset;

use super::AppendError;

/// What an appender needs of a file; a trait so that tests can make it fail.
pub(super) trait Storage: Send {
    /// The size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Writes all bytes at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file, durably.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl Storage for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // In debug builds in two steps, so that there is a moment to crash in with half a line written.
        let (half, rest) = bytes.split_at(if cfg!(debug_assertions) { bytes.len() / 2 } else { 0 });
        self.write_all(half)?;
        crash::point("append:half-written");
        self.write_all(rest)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.sync_data()
    }
}

/// The end of an owned file. Bytes before `durable` are acknowledged and never touched again.
#[derive(Debug)]
pub(super) struct Tail<S> {
    storage: S,
    name: Arc<str>,
    durable: Offset,
    poison: Option<Arc<str>>,
}

impl Tail<File> {
    /// Opens an owned file, cuts off a line that a crash left half written, and makes the rest durable.
    pub(super) fn open(path: &Path) -> Result<Self, AppendError> {
        let name: Arc<str> = path.display().to_string().into();
        let failed = |error| AppendError::io(format!("cannot open {name} to append"), error);
        // An owned file that is gone is an error: a new one would give its offsets a second meaning.
        let file = File::options().append(true).open(path).map_err(failed)?;
        let whole = super::torn::whole_lines(&File::open(path).map_err(failed)?).map_err(failed)?;
        Self::recover(file, Arc::clone(&name), whole)
    }
}

impl<S: Storage> Tail<S> {
    fn recover(mut storage: S, name: Arc<str>, whole: Offset) -> Result<Self, AppendError> {
        let len = storage.len().map_err(|error| AppendError::io(format!("cannot look at {name}"), error))?;
        let repaired = if len > whole {
            tracing::warn!(file = %name, bytes = len - whole, "cut off a line that was left half written");
            storage.truncate(whole)
        } else {
            storage.sync()
        };
        repaired.map_err(|error| AppendError::io(format!("cannot repair the end of {name}"), error))?;
        Ok(Self { storage, name, durable: whole, poison: None })
    }

    pub(super) fn durable(&self) -> Offset {
        self.durable
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// Appends texts of whole lines with one write and one sync. All of them are durable afterwards, or none is.
    pub(super) fn append(&mut self, texts: &[Bytes]) -> Result<(), AppendError> {
        if let Some(why) = &self.poison {
            return Err(self.poisoned(Arc::clone(why)));
        }
        let failed = |name: &str, error| AppendError::io(format!("cannot append to {name}"), error);
        let len = self.storage.len().map_err(|error| failed(&self.name, error))?;
        if len != self.durable {
            let durable = self.durable;
            return Err(self.now_poisoned(format!(
                "it has {len} bytes where the appender left {durable}: another program has changed a file that is not its own"
            )));
        }
        let joined;
        let bytes: &[u8] = match texts {
            [only] => only,
            several => {
                joined = several.concat();
                &joined
            }
        };
        if let Err(error) = self.storage.append(bytes) {
            // Half a line may be there; later good lines must not be glued to it.
            return Err(match self.storage.truncate(self.durable) {
                Ok(()) => failed(&self.name, error),
                Err(also) => {
                    self.now_poisoned(format!("a write failed ({error}) and could not be undone ({also})"))
                }
            });
        }
        if let Err(error) = self.storage.sync() {
            // After a failed sync nobody knows which pages are on disk, and a second sync would claim success.
            let undone = match self.storage.truncate(self.durable) {
                Ok(()) => "undone".to_owned(),
                Err(also) => format!("not undone: {also}"),
            };
            return Err(
                self.now_poisoned(format!("its last write could not be made durable ({error}); {undone}"))
            );
        }
        self.durable += bytes.len() as u64;
        Ok(())
    }

    fn now_poisoned(&mut self, why: String) -> AppendError {
        let why: Arc<str> = why.into();
        tracing::error!(file = %self.name, why = %why, "the appender gives up a partition");
        self.poison = Some(Arc::clone(&why));
        self.poisoned(why)
    }

    fn poisoned(&self, why: Arc<str>) -> AppendError {
        AppendError::Poisoned { file: Arc::clone(&self.name), why }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A file in memory whose n-th operation fails.
    #[derive(Debug, Default)]
    struct Faulty {
        bytes: Vec<u8>,
        countdown: Option<u32>,
        /// How much of a failing write gets through.
        through: usize,
        only_once: bool,
    }

    impl Faulty {
        fn fails(&mut self) -> bool {
            match &mut self.countdown {
                Some(0) => {
                    if self.only_once {
                        self.countdown = None;
                    }
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        }
    }

    impl Storage for Faulty {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            if self.fails() {
                self.bytes.extend_from_slice(&bytes[..self.through.min(bytes.len())]);
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.fails() { Err(io::Error::other("sync")) } else { Ok(()) }
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            if self.fails() {
                return Err(io::Error::other("truncate"));
            }
            self.bytes.truncate(len as usize);
            Ok(())
        }
    }

    fn tail(storage: Faulty) -> Tail<Faulty> {
        Tail { storage, name: "0.jsonl".into(), durable: 0, poison: None }
    }

    #[test]
    fn a_failed_write_leaves_no_torn_line() {
        for through in 0..8 {
            let mut tail = tail(Faulty { countdown: Some(2), through, only_once: true, ..Faulty::default() });
            tail.append(&["{}\n".into()]).unwrap();
            assert!(matches!(tail.append(&["{1}\n".into(), "{2}\n".into()]), Err(AppendError::Io { .. })));
            tail.append(&["{3}\n".into()]).unwrap();
            assert_eq!(tail.storage.bytes, b"{}\n{3}\n");
        }
    }

    #[test]
    fn what_cannot_be_undone_ends_the_appending() {
        let mut tail = tail(Faulty { countdown: Some(2), through: 1, ..Faulty::default() });
        tail.append(&["{}\n".into()]).unwrap();
        assert!(matches!(tail.append(&["{1}\n".into()]), Err(AppendError::Poisoned { .. })));
        tail.storage.countdown = None;
        assert!(matches!(tail.append(&["{2}\n".into()]), Err(AppendError::Poisoned { .. })));
        assert!(tail.storage.bytes.starts_with(b"{}\n"));
    }

    #[test]
    fn a_failed_sync_acknowledges_nothing_ever_after() {
        let mut tail = tail(Faulty { countdown: Some(1), only_once: true, ..Faulty::default() });
        assert!(matches!(tail.append(&["{}\n".into()]), Err(AppendError::Poisoned { .. })));
        assert!(matches!(tail.append(&["{}\n".into()]), Err(AppendError::Poisoned { .. })));
        assert!(tail.storage.bytes.is_empty());
    }

    #[test]
    fn a_foreign_write_is_noticed() {
        let mut tail = tail(Faulty::default());
        tail.append(&["{}\n".into()]).unwrap();
        tail.storage.bytes.extend_from_slice(b"{\"foreign\":");
        assert!(matches!(tail.append(&["{}\n".into()]), Err(AppendError::Poisoned { .. })));
    }
}
