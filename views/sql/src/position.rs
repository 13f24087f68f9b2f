//! Where something stands in a text: lines and columns, as the SQL parser counts them, to characters.

use datafusion::sql::sqlparser::tokenizer::Location;

/// A text with the offsets of its lines, to turn a parser's line and column into a character offset.
#[derive(Debug)]
pub(crate) struct Text {
    line_starts: Vec<usize>,
    length: usize,
}

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        let mut line_starts = vec![0];
        let mut length = 0;
        for character in text.chars() {
            length += 1;
            if character == '\n' {
                line_starts.push(length);
            }
        }
        Self { line_starts, length }
    }

    /// The 0-based character offset of a location; `None` for the parser's empty location.
    pub(crate) fn offset(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        Some((self.line_starts.get(line)? + column).min(self.length))
    }

    /// The 1-based character position of a location, as the PostgreSQL protocol counts it.
    pub(crate) fn position(&self, location: Location) -> Option<usize> {
        self.offset(location).map(|offset| offset + 1)
    }
}

/// The part of a text between two character offsets.
pub(crate) fn slice(text: &str, from: usize, to: usize) -> String {
    text.chars().skip(from).take(to.saturating_sub(from)).collect()
}

/// The location that the SQL parser writes at the end of its messages, and the message without it.
pub(crate) fn split_parser_message(message: &str) -> (String, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else {
        return (message.to_owned(), None);
    };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
        Some(Location { line: line.trim().parse().ok()?, column: digits.parse().ok()? })
    });
    match location {
        Some(location) => (text.to_owned(), Some(location)),
        None => (message.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_not_bytes() {
        let text = Text::new("sélect\n  x");
        assert_eq!(text.position(Location { line: 2, column: 3 }), Some(10));
        assert_eq!(text.position(Location { line: 0, column: 0 }), None);
    }

    #[test]
    fn a_parser_message_gives_its_location() {
        let (text, location) =
            split_parser_message("Expected: an expression, found: EOF at Line: 3, Column: 12");
        assert_eq!(text, "Expected: an expression, found: EOF");
        assert_eq!(location, Some(Location { line: 3, column: 12 }));
    }
}
