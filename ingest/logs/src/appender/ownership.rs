//! Which partition files the appender may write to, and that there is only one appender.
//!
//! A file has at most one writer that may cut a torn tail off it. The appender claims only files that do not exist
//! yet: a file that is there, even an empty one, may be somebody else's. The claim is written before the file is
//! made, and again once it has been made by us; a claim that was cut short by a crash is given up, so that at worst
//! an empty partition stays behind.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stratus_seam::offsets::Partition;

use crate::directory::{MAX_PARTITIONS, partition_path, sync_directory};

/// What an `.owner` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Claiming,
    Owned,
}

/// Takes the lock that one appender per log holds; none if another one has it.
pub(super) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(lock_path(dir))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("appender.lock")
}

/// The partitions that are the appender's, after giving up claims that a crash has cut short.
pub(super) fn owned(dir: &Path) -> io::Result<Vec<Partition>> {
    let mut owned = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(partition) = name.to_str().and_then(|name| name.strip_suffix(".owner")?.parse().ok()) else {
            continue;
        };
        let marker: Marker = serde_json::from_slice(&fs::read(entry.path())?).map_err(|error| {
            io::Error::other(format!(
                "{}: {error}; it says who may write to a partition",
                entry.path().display()
            ))
        })?;
        match marker.state {
            State::Owned => owned.push(partition),
            State::Claiming => fs::remove_file(entry.path())?,
        }
    }
    owned.sort_unstable();
    Ok(owned)
}

/// Claims all partitions below `declared` whose files do not exist; if `owned` is empty then and there was none, the
/// first higher number that is free.
pub(super) fn claim_free(dir: &Path, declared: u32, owned: &[Partition]) -> io::Result<Vec<Partition>> {
    let mut claimed = Vec::new();
    for partition in 0..MAX_PARTITIONS {
        if partition >= declared && !(owned.is_empty() && claimed.is_empty()) {
            break;
        }
        if !owned.contains(&partition) && claim(dir, partition)? {
            claimed.push(partition);
        }
    }
    if owned.is_empty() && claimed.is_empty() {
        return Err(io::Error::other(format!("all {MAX_PARTITIONS} partitions belong to other programs")));
    }
    Ok(claimed)
}

/// Makes a partition's file and claims it, durably; false if the file is there already.
fn claim(dir: &Path, partition: Partition) -> io::Result<bool> {
    let path = partition_path(dir, partition);
    if path.try_exists()? {
        return Ok(false);
    }
    mark(dir, partition, State::Claiming)?;
    match File::create_new(&path) {
        Ok(file) => {
            file.sync_all()?;
            sync_directory(dir)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(marker_path(dir, partition))?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    mark(dir, partition, State::Owned)?;
    Ok(true)
}

fn marker_path(dir: &Path, partition: Partition) -> PathBuf {
    dir.join(format!("{partition}.owner"))
}

fn mark(dir: &Path, partition: Partition, state: State) -> io::Result<()> {
    let draft = dir.join(format!("{partition}.owner.draft"));
    let mut text = serde_json::to_vec(&Marker { state })?;
    text.push(b'\n');
    let mut file = File::create(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&draft, marker_path(dir, partition))?;
    sync_directory(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_files_that_do_not_exist_are_claimed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0.jsonl"), "").unwrap();
        fs::write(dir.path().join("2.jsonl"), "{}\n").unwrap();
        assert_eq!(claim_free(dir.path(), 3, &[]).unwrap(), [1]);
        assert_eq!(owned(dir.path()).unwrap(), [1]);
        assert_eq!(claim_free(dir.path(), 3, &[1]).unwrap(), [0; 0]);
        assert_eq!(claim_free(dir.path(), 5, &[1]).unwrap(), [3, 4]);
    }

    #[test]
    fn a_free_number_is_found_above_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0.jsonl"), "{}\n").unwrap();
        assert_eq!(claim_free(dir.path(), 1, &[]).unwrap(), [1]);
    }

    #[test]
    fn a_claim_that_was_cut_short_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        mark(dir.path(), 0, State::Claiming).unwrap();
        fs::write(dir.path().join("0.jsonl"), "{\"half\":").unwrap();
        assert_eq!(owned(dir.path()).unwrap(), [0; 0]);
        assert!(!marker_path(dir.path(), 0).exists());
    }

    #[test]
    fn one_lock_per_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(dir.path()).unwrap().is_none());
        drop(first);
        assert!(lock(dir.path()).unwrap().is_some());
    }
}
