//! `log.json`: the identity of a directory log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// More partitions than this are taken for a mistake: the log asks each of them for its end.
pub(crate) const MAX_PARTITIONS: u32 = 4096;

/// What `log.json` says. Other fields that a user puts there are left alone, as the file is never written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Tells this log from another one in the same folder.
    pub(super) id: Uuid,
    /// At least so many partitions; files with higher numbers add to them.
    pub(super) partitions: u32,
}

/// What tells one state of a small file from the next without reading it.
pub(super) type Stamp = (u64, u64, i64, i64, u64);

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("log.json")
}

pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

impl Manifest {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let manifest: Self = serde_json::from_slice(&fs::read(path(dir))?)?;
        if manifest.partitions > MAX_PARTITIONS {
            return Err(io::Error::other(format!(
                "{} partitions; at most {MAX_PARTITIONS} are possible",
                manifest.partitions
            )));
        }
        Ok(manifest)
    }

    /// Writes a new log's identity durably, unless the folder has one already; that one stays.
    pub(super) fn create(dir: &Path, partitions: u32) -> io::Result<()> {
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(io::Error::other(format!(
                "a log with {partitions} partitions; 1 to {MAX_PARTITIONS} are possible"
            )));
        }
        fs::create_dir_all(dir)?;
        let target = path(dir);
        if target.try_exists()? {
            return Ok(());
        }
        let id = Uuid::new_v4();
        let mut text = serde_json::to_vec(&Self { id, partitions })?;
        text.push(b'\n');
        let draft = dir.join(format!("log.json.{id}"));
        let mut file = File::create_new(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        // A link, as a rename would overwrite what somebody else has put there meanwhile.
        let linked = fs::hard_link(&draft, &target);
        let removed = fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => removed?,
        }
        sync_directory(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => Ok(()),
        }
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The file of a partition.
pub(crate) fn partition_path(dir: &Path, partition: u32) -> PathBuf {
    dir.join(format!("{partition}.jsonl"))
}

/// One more than the highest number of a partition's file; 0 if there is none.
pub(crate) fn partitions_by_name(dir: &Path) -> io::Result<u32> {
    let mut partitions = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(partition_of) {
            if number >= MAX_PARTITIONS {
                return Err(io::Error::other(format!(
                    "{number}.jsonl: partitions are numbered below {MAX_PARTITIONS}"
                )));
            }
            partitions = partitions.max(number + 1);
        }
    }
    Ok(partitions)
}

/// The `.jsonl` files that are no partitions, for a warning: somebody may expect them to be read.
pub(super) fn strangers(dir: &Path) -> io::Result<Vec<String>> {
    let mut strangers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jsonl") && partition_of(&name).is_none() {
            strangers.push(name);
        }
    }
    Ok(strangers)
}

/// The partition whose file has this name: a number as it is usually written, so that no two names mean one.
fn partition_of(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".jsonl")?;
    let number: u32 = stem.parse().ok()?;
    (number.to_string() == stem).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_name_partitions() {
        assert_eq!(partition_of("0.jsonl"), Some(0));
        assert_eq!(partition_of("17.jsonl"), Some(17));
        for name in ["00.jsonl", "+1.jsonl", "-1.jsonl", "events.jsonl", ".jsonl", "1.json", "1.jsonl.gz"] {
            assert_eq!(partition_of(name), None, "{name}");
        }
    }
}
