//! SQL text cut into statements, the way psql cuts it: at semicolons outside of quotes and comments.

/// A statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// Its text, without the semicolon, beginning where something other than space and comments begins.
    pub(crate) text: &'a str,
    /// The line of the whole text on which it begins, from 1.
    pub(crate) line: usize,
}

/// A text, cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut<'a> {
    /// The statements that a semicolon ends.
    pub(crate) ended: Vec<Statement<'a>>,
    /// What follows the last semicolon, if it is more than space and comments.
    pub(crate) rest: Option<Statement<'a>>,
}

impl<'a> Cut<'a> {
    /// All statements; the last one needs no semicolon.
    pub(crate) fn all(self) -> Vec<Statement<'a>> {
        self.ended.into_iter().chain(self.rest).collect()
    }
}

/// Cuts a text.
pub(crate) fn cut(text: &str) -> Cut<'_> {
    let mut ended = Vec::new();
    let mut begin = None;
    let mut at = 0;
    while let Some(next) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or_default();
        let length = match next {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            space if space.is_whitespace() => space.len_utf8(),
            ';' => {
                ended.extend(begin.take().map(|from| statement(text, from, at)));
                1
            }
            _ => {
                begin.get_or_insert(at);
                token(rest, next)
            }
        };
        at += length.max(1);
    }
    let rest = begin.map(|from| statement(text, from, text.len()));
    Cut { ended, rest }
}

fn statement(text: &str, from: usize, to: usize) -> Statement<'_> {
    let before = text.get(..from).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Statement { text: text.get(from..to).unwrap_or_default().trim_end(), line }
}

/// The bytes of what begins here: a quoted text, a word, or one character.
fn token(rest: &str, first: char) -> usize {
    match first {
        '\'' => quoted(rest, '\'', false),
        '"' => quoted(rest, '"', false),
        'e' | 'E' if rest.get(1..2) == Some("'") => 1 + quoted(rest.get(1..).unwrap_or_default(), '\'', true),
        '$' => dollar_quoted(rest),
        // A whole word, so that neither its E nor its $ begins a quotation.
        letter if letter.is_alphanumeric() || letter == '_' => {
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len())
        }
        other => other.len_utf8(),
    }
}

/// The bytes up to and with the closing quote; a doubled quote begins a new quotation, which comes to the same.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// `$tag$ ... $tag$`, or just a dollar.
fn dollar_quoted(rest: &str) -> usize {
    let after = rest.get(1..).unwrap_or_default();
    let Some(end) = after.find('$') else { return 1 };
    let tag = after.get(..end).unwrap_or_default();
    let is_tag =
        tag.chars().all(|c| c.is_alphanumeric() || c == '_') && !tag.starts_with(|c: char| c.is_numeric());
    if !is_tag {
        return 1;
    }
    let opening = end + 2;
    let delimiter = rest.get(..opening).unwrap_or_default();
    let body = rest.get(opening..).unwrap_or_default();
    body.find(delimiter).map_or(rest.len(), |at| opening + at + opening)
}

/// The bytes of a comment, which may hold others.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, usize)> {
        cut(text).all().into_iter().map(|statement| (statement.text, statement.line)).collect()
    }

    #[test]
    fn semicolons_cut_and_lines_are_counted() {
        let text =
            "-- first; not a statement\nSELECT 1;\n\n/* a; /* b; */ c; */ SELECT\n 2 ;; SELECT 3 -- end;\n";
        assert_eq!(texts(text), [("SELECT 1", 2), ("SELECT\n 2", 4), ("SELECT 3 -- end;", 5)]);
        assert_eq!(cut("SELECT 1; -- done\n").rest, None);
        assert_eq!(cut("SELECT").rest.map(|rest| rest.text), Some("SELECT"));
    }

    #[test]
    fn quotes_hide_semicolons() {
        for whole in [
            "SELECT ';', 'it''s; fine', \"a;\"\"b\"",
            r"SELECT E'\';', 1",
            r"SELECT 'a\' ",
            "SELECT $$;$$, $x$ $y$ ; $$ $x$",
            "SELECT $1, a$b$c",
            "SELECT \u{e9}\u{1f600}, '\u{e9};'",
        ] {
            let text = format!("{whole};next");
            assert_eq!(texts(&text), [(whole.trim_end(), 1), ("next", 1)], "{whole}");
        }
        assert_eq!(texts("SELECT 'open; "), [("SELECT 'open;", 1)]);
        assert_eq!(texts("/* open; "), []);
    }
}
