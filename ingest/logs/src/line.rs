//! What a line is, to the log that reads it, the appender that writes it, and whoever counts them in between.

/// The records of a text of lines: its lines without `\n` or `\r\n`, leaving out those that are blank. The last one
/// needs no `\n`.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = &rest[(end + 1).min(rest.len())..];
            if let Some(record) = payload(line) {
                return Some(record);
            }
        }
        None
    })
}

/// The record of a line that stands without its `\n`; none if the line is blank.
#[inline]
pub(crate) fn payload(line: &[u8]) -> Option<&[u8]> {
    if is_blank(line) { None } else { Some(line.strip_suffix(b"\r").unwrap_or(line)) }
}

/// Whether bytes are nothing but the white space that JSON knows within a line.
#[inline]
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| is_space(*byte))
}

#[inline]
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_records() {
        let body = b"\n{\"a\":1}\r\n \t\r\n\r\n{}\n\nlast";
        assert_eq!(lines(body).collect::<Vec<_>>(), [&b"{\"a\":1}"[..], b"{}", b"last"]);
        assert_eq!(lines(b"").count() + lines(b"\n\n").count() + lines(b" ").count(), 0);
    }
}
