//! Rows as a table of text, as psql draws it.

use std::fmt;

/// What stands for NULL.
const NULL: &str = "NULL";
/// How wide the head of a last column of text is drawn at most.
const LAST_WIDTH: usize = 60;

/// Rows of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    names: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        Self { names: names.collect(), rows: Vec::new() }
    }

    /// Appends a row with as many cells as there are columns.
    pub(crate) fn push(&mut self, row: Vec<Option<String>>) {
        self.rows.push(row);
    }

    /// The rows.
    pub(crate) fn rows(&self) -> &[Vec<Option<String>>] {
        &self.rows
    }

    /// The cell in the first row; none for NULL, or if there is none.
    pub(crate) fn first(&self, column: usize) -> Option<&str> {
        self.rows.first()?.get(column)?.as_deref()
    }

    /// Whether every value of a column is a number, and there is one.
    fn is_numeric(&self, column: usize) -> bool {
        let mut values = self.rows.iter().filter_map(|row| row.get(column)?.as_deref()).peekable();
        values.peek().is_some() && values.all(|value| value.parse::<f64>().is_ok())
    }
}

fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |row: &[Option<String>], column: usize| -> String {
            row.get(column).cloned().flatten().unwrap_or_else(|| NULL.to_owned())
        };
        let columns = self.names.len();
        let numeric: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&cell(row, column))).max().unwrap_or_default();
                // Nothing has to be aligned after the last column: a plan may be as wide as it is.
                let last = column + 1 == columns && !numeric[column];
                let cells = if last { cells.min(LAST_WIDTH) } else { cells };
                cells.max(width(&self.names[column]))
            })
            .collect();
        let head: Vec<String> =
            self.names.iter().zip(&widths).map(|(name, width)| format!(" {name:^width$} ")).collect();
        writeln!(f, "{}", head.join("|").trim_end())?;
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(f, "{}", rule.join("+"))?;
        for row in &self.rows {
            let cells: Vec<String> = (0..columns).map(|column| cell(row, column)).collect();
            let height = cells.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
            for line in 0..height {
                let parts = cells.iter().enumerate().map(|(column, cell)| {
                    let (text, width) = (cell.lines().nth(line).unwrap_or_default(), widths[column]);
                    // As psql does it: a plus says that the cell goes on.
                    let goes_on = column + 1 < columns && line + 1 < cell.lines().count();
                    let end = if goes_on { '+' } else { ' ' };
                    if numeric[column] {
                        format!(" {text:>width$}{end}")
                    } else {
                        format!(" {text:<width$}{end}")
                    }
                });
                writeln!(f, "{}", parts.collect::<Vec<_>>().join("|").trim_end())?;
            }
        }
        match self.rows.len() {
            1 => writeln!(f, "(1 row)"),
            rows => writeln!(f, "({rows} rows)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], rows: &[&[Option<&str>]]) -> String {
        let mut table = Table::new(names.iter().map(ToString::to_string));
        for row in rows {
            table.push(row.iter().map(|cell| cell.map(str::to_owned)).collect());
        }
        table.to_string()
    }

    #[test]
    fn numbers_stand_right_and_texts_left() {
        assert_eq!(
            table(&["page", "views"], &[&[Some("/"), Some("10")], &[Some("/about"), None]]),
            "  page  | views\n--------+-------\n /      |    10\n /about |  NULL\n(2 rows)\n"
        );
    }

    #[test]
    fn a_wide_last_column_is_not_padded() {
        let wide = "x".repeat(LAST_WIDTH * 2);
        let shown = table(&["a", "plan"], &[&[Some("1"), Some(&wide)], &[Some("2"), Some("one\ntwo")]]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].len(), "---+".len() + LAST_WIDTH + 2);
        assert_eq!(lines[2], format!(" 1 | {wide}"));
        assert_eq!(lines[3..5], [" 2 | one", "   | two"]);
    }

    #[test]
    fn a_cell_may_have_lines() {
        assert_eq!(
            table(&["plan", "x"], &[&[Some("one\n  two"), Some("y")]]),
            " plan  | x\n-------+---\n one  +| y\n   two |\n(1 row)\n"
        );
    }
}
