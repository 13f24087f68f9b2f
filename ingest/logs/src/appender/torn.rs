//! Where the whole lines of a file end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 << 10;

/// The position after the last newline of a file.
pub(super) fn whole_lines(file: &File) -> io::Result<u64> {
    let mut high = file.metadata()?.len();
    let mut buffer = vec![0; BLOCK as usize];
    while high > 0 {
        let low = high.saturating_sub(BLOCK);
        let block = &mut buffer[..(high - low) as usize];
        file.read_exact_at(block, low)?;
        if let Some(found) = memchr::memrchr(b'\n', block) {
            return Ok(low + found as u64 + 1);
        }
        high = low;
    }
    Ok(0)
}
