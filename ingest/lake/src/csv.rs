//! Delimited text as typed columns, with the line of whatever does not fit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use stratus_seam::schema::{Column, ColumnType, arrow_schema};

use crate::LakeError;

/// How a file is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Whether the first line names the columns.
    pub(crate) header: bool,
    /// Between two fields.
    pub(crate) delimiter: u8,
}

/// A file, for errors.
struct Place<'a> {
    file: &'a str,
    /// The line at which each row begins.
    lines: Vec<u64>,
}

impl Place<'_> {
    fn wrong(&self, row: usize, what: String) -> LakeError {
        let line = self.lines.get(row).copied().unwrap_or(0);
        LakeError::Line { file: self.file.to_owned(), line, what }
    }
}

/// Reads text as rows of the declared columns. With a header the columns are found by their names, in any order, and
/// further ones are passed over; without one they stand in the declared order. An empty field is NULL.
///
/// # Errors
/// [`LakeError::Line`] for the first field that is not of its column's type; [`LakeError::File`] if a column is
/// missing or cannot be written in delimited text.
pub(crate) fn read(
    text: &[u8],
    dialect: Dialect,
    columns: &[Column],
    file: &str,
) -> Result<RecordBatch, LakeError> {
    let wrong = |what: String| LakeError::File { file: file.to_owned(), what };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(dialect.header)
        .delimiter(dialect.delimiter)
        .from_reader(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
    let mut at: Vec<usize> = (0..columns.len()).collect();
    if dialect.header {
        let names = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
        for (column, at) in columns.iter().zip(&mut at) {
            *at = names.iter().position(|name| name == column.name).ok_or_else(|| {
                let found = names.iter().collect::<Vec<_>>().join(", ");
                wrong(format!("has no column {}; its header line names {found}", column.name))
            })?;
        }
    }
    let mut fields: Vec<StringBuilder> = columns.iter().map(|_| StringBuilder::new()).collect();
    let mut place = Place { file, lines: Vec::new() };
    let mut record = csv::StringRecord::new();
    loop {
        let more = reader.read_record(&mut record).map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            LakeError::Line { file: file.to_owned(), line, what: error.to_string() }
        })?;
        if !more {
            break;
        }
        place.lines.push(record.position().map_or(0, csv::Position::line));
        for (at, fields) in at.iter().zip(&mut fields) {
            match record.get(*at) {
                Some("") => fields.append_null(),
                Some(field) => fields.append_value(field),
                None => {
                    let (has, needs) = (record.len(), at + 1);
                    let what = format!("has {has} fields, but {needs} are needed");
                    return Err(place.wrong(place.lines.len() - 1, what));
                }
            }
        }
    }
    let schema: SchemaRef = arrow_schema(columns);
    let typed: Result<Vec<ArrayRef>, LakeError> = columns
        .iter()
        .zip(fields)
        .map(|(column, mut fields)| typed(column, &fields.finish(), &place))
        .collect();
    RecordBatch::try_new(schema, typed?).map_err(|error| wrong(error.to_string()))
}

/// Fields as values of their column's type.
fn typed(column: &Column, fields: &StringArray, place: &Place<'_>) -> Result<ArrayRef, LakeError> {
    let not = |row: usize| {
        let value = fields.value(row);
        place.wrong(row, format!("column {}: '{value}' is not a value of {}", column.name, column.kind))
    };
    if column.not_null
        && let Some(row) = (0..fields.len()).find(|row| fields.is_null(*row))
    {
        return Err(place.wrong(row, format!("column {}: is empty, but declared NOT NULL", column.name)));
    }
    let values: ArrayRef = match &column.kind {
        ColumnType::Struct(_) | ColumnType::List(_) => {
            return Err(LakeError::File {
                file: place.file.to_owned(),
                what: format!(
                    "column {} is {}, which delimited text cannot hold; use Parquet",
                    column.name, column.kind
                ),
            });
        }
        ColumnType::Bytea => {
            let mut bytes = BinaryBuilder::new();
            for (row, field) in fields.iter().enumerate() {
                let decoded = field.map(|field| {
                    let digits = field.strip_prefix("\\x").ok_or_else(|| not(row))?;
                    hex::decode(digits).map_err(|_| not(row))
                });
                bytes.append_option(decoded.transpose()?);
            }
            return Ok(Arc::new(bytes.finish()));
        }
        kind => {
            if matches!(kind, ColumnType::Timestamp | ColumnType::TimestampTz)
                && let Some(row) =
                    (0..fields.len()).find(|row| is_finer_than_microseconds(fields.value(*row)))
            {
                return Err(not(row));
            }
            let options = CastOptions { safe: true, ..CastOptions::default() };
            cast_with_options(fields, &kind.arrow(), &options).map_err(|error| LakeError::File {
                file: place.file.to_owned(),
                what: format!("column {}: {error}", column.name),
            })?
        }
    };
    match (0..fields.len()).find(|row| values.is_null(*row) && fields.is_valid(*row)) {
        Some(row) => Err(not(row)),
        None => Ok(values),
    }
}

/// Whether a timestamp's text has a digit other than 0 behind the microseconds, which a cast would cut off.
fn is_finer_than_microseconds(text: &str) -> bool {
    let Some((_, fraction)) = text.split_once('.') else { return false };
    fraction.bytes().take_while(u8::is_ascii_digit).skip(6).any(|digit| digit != b'0')
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    const COMMAS: Dialect = Dialect { header: true, delimiter: b',' };

    fn columns(kinds: &[(&str, ColumnType)]) -> Vec<Column> {
        kinds.iter().map(|(name, kind)| Column::new(*name, kind.clone())).collect()
    }

    fn error(text: &str, kinds: &[(&str, ColumnType)]) -> String {
        read(text.as_bytes(), COMMAS, &columns(kinds), "ads.csv").unwrap_err().to_string()
    }

    #[test]
    fn every_type_that_text_can_hold_is_read() {
        let kinds = [
            ("b", ColumnType::Boolean),
            ("s", ColumnType::SmallInt),
            ("i", ColumnType::Int),
            ("l", ColumnType::BigInt),
            ("r", ColumnType::Real),
            ("d", ColumnType::Double),
            ("n", ColumnType::Numeric(10, 2)),
            ("t", ColumnType::Text),
            ("y", ColumnType::Bytea),
            ("day", ColumnType::Date),
            ("ts", ColumnType::Timestamp),
            ("tz", ColumnType::TimestampTz),
        ];
        let text = "b,s,i,l,r,d,n,t,y,day,ts,tz\n\
            true,1,2,3,0.5,1e3,12.34,\"a, \"\"b\"\"\nc\",\\x00ff,2026-01-02,2026-01-02T03:04:05.123456,2026-01-02T03:04:05+01:00\n\
            ,,,,,,,,,,,\n";
        let batch = read(text.as_bytes(), COMMAS, &columns(&kinds), "f.csv").unwrap();
        let shown = pretty_format_batches(std::slice::from_ref(&batch)).unwrap().to_string();
        for value in ["true", "1000.0", "12.34", "00ff", "05.123456", "2026-01-02T02:04:05Z"] {
            assert!(shown.contains(value), "{value} is not in\n{shown}");
        }
        assert_eq!(batch.schema(), arrow_schema(&columns(&kinds)));
        assert!(batch.columns().iter().all(|column| column.is_null(1)));
    }

    #[test]
    fn a_wrong_field_is_named_by_its_line() {
        let kinds = [("id", ColumnType::Text), ("n", ColumnType::Int)];
        let wrong = error("id,n\na,1\n\"b\nb\",2\nc,x\n", &kinds);
        assert_eq!(wrong, "ads.csv:5: column n: 'x' is not a value of INT");
        assert!(error("id,n\na,1\nb\n", &kinds).starts_with("ads.csv:3: "));
        assert_eq!(error("id,m\n", &kinds), "ads.csv: has no column n; its header line names id, m");
        let finer = error("t\n2026-01-02T03:04:05.1234567\n", &[("t", ColumnType::Timestamp)]);
        assert!(finer.starts_with("ads.csv:2: "), "{finer}");
        let overflow = error("n\n123456789.00\n", &[("n", ColumnType::Numeric(10, 2))]);
        assert!(overflow.starts_with("ads.csv:2: "), "{overflow}");
    }

    #[test]
    fn without_a_header_columns_stand_in_their_order() {
        let kinds = columns(&[("a", ColumnType::Text), ("b", ColumnType::Int)]);
        let dialect = Dialect { header: false, delimiter: b';' };
        assert_eq!(read(b"x;1\ny;2\n", dialect, &kinds, "f").unwrap().num_rows(), 2);
        let short = read(b"x\n", dialect, &kinds, "f.csv").unwrap_err().to_string();
        assert_eq!(short, "f.csv:1: has 1 fields, but 2 are needed");
    }

    #[test]
    fn not_null_is_kept() {
        let kinds = [Column { not_null: true, ..Column::new("a", ColumnType::Int) }];
        let error = read(b"a\n1\n\"\"\n", COMMAS, &kinds, "f.csv").unwrap_err().to_string();
        assert_eq!(error, "f.csv:3: column a: is empty, but declared NOT NULL");
    }
}
