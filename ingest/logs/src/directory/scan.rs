//! Finding records in a partition's file. Nothing here remembers anything but hints, which are checked before
//! they can change what is delivered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use stratus_seam::log::RecordSpan;
use stratus_seam::offsets::Offset;

use crate::line;

/// The block size of scans that keep nothing.
const BLOCK: u64 = 1 << 20;
/// The block size of the backward scan, which mostly ends in its first block.
const TAIL_BLOCK: u64 = 64 << 10;
/// The longest buffer of one read, whatever was asked for.
const MAX_BUFFER: usize = 256 << 20;

/// A stretch without a newline at the end of a file: a long line that is still being written. Saves scanning it
/// again each time the file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfinished {
    start: Offset,
    scanned: Offset,
}

/// What one read asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) from: Offset,
    pub(super) until: Option<Offset>,
    pub(super) max_bytes: usize,
    /// Longer payloads are cut one byte above this.
    pub(super) max_record_bytes: usize,
    /// How much of the file may be read.
    pub(super) len: Offset,
    pub(super) hint: Option<Unfinished>,
}

/// What one read found.
#[derive(Debug)]
pub(super) enum Found {
    /// Records, and the offset after the last of them.
    Records { bytes: Bytes, records: Vec<RecordSpan>, to: Offset },
    /// No whole record yet.
    Nothing { hint: Option<Unfinished> },
    /// `from` is not where a line begins, so it was not this file that was read up to there.
    NotALine,
}

/// Reads the whole records from an offset on.
pub(super) fn records(file: &File, request: Request) -> io::Result<Found> {
    let Request { from, until, max_bytes, max_record_bytes, len, hint } = request;
    if from > 0 {
        let mut before = [0];
        if from > len || file.read_at(&mut before, from - 1)? != 1 || before[0] != b'\n' {
            return Ok(Found::NotALine);
        }
    }
    // From so many bytes without a newline on, a line is too long whether or not it ends in '\r'.
    let decisive = max_record_bytes.saturating_add(3);
    let mut size = max_bytes.clamp(1, MAX_BUFFER);
    let mut position = from;
    while position < len && until.is_none_or(|until| position < until) {
        let buffer = block(file, position, size as u64, len)?;
        let at_end = position + buffer.len() as u64 >= len || buffer.len() < size;
        let (records, next, scanned) = split(&buffer, &request, position);
        if !records.is_empty() {
            return Ok(Found::Records { bytes: buffer.into(), records, to: position + next as u64 });
        }
        if scanned > 0 {
            // Blank lines only.
            position += scanned as u64;
        } else if at_end {
            return Ok(Found::Nothing { hint: None });
        } else if buffer.len() < decisive {
            size = size.saturating_mul(4).min(decisive).max(size + 1).min(MAX_BUFFER.max(decisive));
        } else {
            let scanned = match hint {
                Some(hint) if hint.start == position => hint.scanned,
                _ => position + buffer.len() as u64,
            };
            drop(buffer);
            match too_long(file, position, scanned, len, max_record_bytes)? {
                TooLong::Blank(end) => position = end,
                TooLong::Record(head, end) => {
                    let span =
                        RecordSpan { offset: position, start: 0, end: head.len() as u32, timestamp: None };
                    return Ok(Found::Records { bytes: head.into(), records: vec![span], to: end });
                }
                TooLong::Unfinished => {
                    return Ok(Found::Nothing { hint: Some(Unfinished { start: position, scanned: len }) });
                }
            }
        }
    }
    Ok(Found::Nothing { hint: None })
}

/// The records of a buffer that begins at `position`; where the last of them ends, and where the first line that
/// is not whole, or not wanted, begins.
fn split(buffer: &[u8], request: &Request, position: Offset) -> (Vec<RecordSpan>, usize, usize) {
    let most = request.max_record_bytes.saturating_add(1);
    let mut records = Vec::with_capacity(buffer.len() / 128);
    let (mut start, mut next) = (0, 0);
    for newline in memchr::memchr_iter(b'\n', buffer) {
        let offset = position + start as u64;
        // A buffer is larger than was asked for if the first line did not fit into a smaller one.
        if request.until.is_some_and(|until| offset >= until) || (start >= request.max_bytes && start > 0) {
            break;
        }
        if let Some(payload) = line::payload(&buffer[start..newline]) {
            let end = start + payload.len().min(most);
            records.push(RecordSpan { offset, start: start as u32, end: end as u32, timestamp: None });
            next = newline + 1;
        }
        start = newline + 1;
    }
    (records, next, start)
}

/// A line that is longer than any record may be.
enum TooLong {
    /// It has not ended yet.
    Unfinished,
    /// It is white space, up to here.
    Blank(Offset),
    /// Its first bytes, and where it ends.
    Record(Vec<u8>, Offset),
}

/// Finds the end of a line that begins at `start` and has none before `scanned`.
fn too_long(
    file: &File,
    start: Offset,
    scanned: Offset,
    len: Offset,
    max_record_bytes: usize,
) -> io::Result<TooLong> {
    if newline(file, scanned, len)?.is_none() {
        return Ok(TooLong::Unfinished);
    }
    // What was seen of a line without its end may have been taken back and written anew since: look at it again.
    let Some(end) = newline(file, start, len)? else {
        return Ok(TooLong::Unfinished);
    };
    let mut blank_to = start;
    while blank_to < end {
        let bytes = block(file, blank_to, BLOCK, end)?;
        if bytes.is_empty() || !line::is_blank(&bytes) {
            let head = block(file, start, max_record_bytes as u64 + 1, end)?;
            return Ok(TooLong::Record(head, end + 1));
        }
        blank_to += bytes.len() as u64;
    }
    Ok(TooLong::Blank(end + 1))
}

/// The first newline in a part of a file.
fn newline(file: &File, from: Offset, to: Offset) -> io::Result<Option<Offset>> {
    let mut position = from;
    while position < to {
        let bytes = block(file, position, BLOCK, to)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(found) = memchr::memchr(b'\n', &bytes) {
            return Ok(Some(position + found as u64));
        }
        position += bytes.len() as u64;
    }
    Ok(None)
}

/// The offset after the last whole record in `from..len`, or `from`, which is where a line begins; and the hint for
/// the next time.
pub(super) fn last_end(
    file: &File,
    from: Offset,
    len: Offset,
    hint: Option<Unfinished>,
) -> io::Result<(Offset, Option<Unfinished>)> {
    if let Some(Unfinished { start, scanned }) = hint
        && start == from
        && scanned <= len
        && newline(file, scanned, len)?.is_none()
    {
        return Ok((from, Some(Unfinished { start, scanned: len })));
    }
    // Backwards: to the last newline, then over blank lines to the last byte of a record. The newline that ends its
    // line is the lowest one that was passed.
    let mut lowest_newline = None;
    let mut high = len;
    while high > from {
        let low = high.saturating_sub(TAIL_BLOCK).max(from);
        let bytes = block(file, low, high - low, high)?;
        let mut rest = &bytes[..];
        if lowest_newline.is_none() {
            match memchr::memrchr(b'\n', rest) {
                Some(found) => rest = &rest[..=found],
                None => rest = &[],
            }
        }
        while let Some(found) = rest.iter().rposition(|byte| !line::is_space(*byte)) {
            match (rest[found], lowest_newline) {
                (b'\n', _) => lowest_newline = Some(low + found as u64),
                (_, Some(newline)) => return Ok((newline + 1, None)),
                // Not possible: only bytes before a newline are looked at.
                (_, None) => break,
            }
            rest = &rest[..found];
        }
        high = low;
    }
    let hint = lowest_newline.is_none() && len - from > BLOCK;
    Ok((from, hint.then_some(Unfinished { start: from, scanned: len })))
}

/// Bytes of a file from `position` on: `size` of them, or as many as there are before `len`.
fn block(file: &File, position: Offset, size: u64, len: Offset) -> io::Result<Vec<u8>> {
    let size = size.min(len.saturating_sub(position));
    let mut bytes = vec![0; size as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
