//! How much room there is on the disks that are written to.

use std::path::Path;

use super::finding::{Trouble, problem, warning};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// With less than this a write fails at any moment.
const FULL: u64 = 100 * MIB;
/// With less than this, or less than one part in twenty, it is time to look.
const SHORT: u64 = GIB;

/// The room on the file system of a folder that is there.
pub(super) fn room(folder: &Path) -> Result<String, Trouble> {
    let name = folder.display();
    let found = rustix::fs::statvfs(folder)
        .map_err(|error| warning(format!("{name}: the free space cannot be asked for: {error}"), ""))?;
    judge(&name.to_string(), found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
}

/// What so many bytes of room out of so many mean.
fn judge(name: &str, free: u64, of: u64) -> Result<String, Trouble> {
    let told = format!("{name} has {} free of {}", shown(free), shown(of));
    let todo = "make room, or name a folder on another disk: events that cannot be written are not accepted";
    if free < FULL {
        return Err(problem(told, todo));
    }
    if free < SHORT || free < of / 20 {
        return Err(warning(told, todo));
    }
    Ok(told)
}

fn shown(bytes: u64) -> String {
    if bytes < GIB { format!("{} MiB", bytes / MIB) } else { format!("{:.1} GiB", bytes as f64 / GIB as f64) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn little_room_is_told_before_there_is_none() {
        assert_eq!(judge("d", 60 * GIB, 100 * GIB).unwrap(), "d has 60.0 GiB free of 100.0 GiB");
        let verdict = |free, of| judge("d", free, of).unwrap_err().verdict;
        assert_eq!(verdict(4 * GIB, 100 * GIB), Verdict::Warning);
        assert_eq!(verdict(900 * MIB, 2 * GIB), Verdict::Warning);
        assert_eq!(verdict(99 * MIB, 2 * GIB), Verdict::Problem);
    }

    #[test]
    fn a_folder_has_room() {
        let told = room(&std::env::temp_dir()).unwrap_or_else(|trouble| trouble.what);
        assert!(told.contains("free of"), "{told}");
        assert!(room(Path::new("/nowhere/at/all")).is_err_and(|trouble| trouble.verdict == Verdict::Warning));
    }
}
