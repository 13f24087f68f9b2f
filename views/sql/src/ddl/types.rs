//! Types of columns, as SQL spells them, to canonical ones.

use datafusion::sql::sqlparser::tokenizer::Token;
use stratus_seam::schema::{Column, ColumnType};

use crate::error::SqlError;

use super::tokens::Tokens;

const TYPES: &str = "there are: BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE PRECISION, NUMERIC(p, s), TEXT, BYTEA, \
                     DATE, TIMESTAMP, TIMESTAMPTZ, STRUCT<name type, ...>, type[]";

/// How deep types may be nested.
const DEPTH: usize = 16;

/// A type.
pub(super) fn column_type(tokens: &mut Tokens) -> Result<ColumnType, SqlError> {
    nested(tokens, DEPTH)
}

fn nested(tokens: &mut Tokens, depth: usize) -> Result<ColumnType, SqlError> {
    let position = tokens.position();
    if depth == 0 {
        return Err(SqlError::new("54001", "the type is nested too deeply").at(position));
    }
    let name = tokens.ident("a type")?;
    let unknown = || {
        SqlError::new("42704", format!("type \"{name}\" does not exist for events")).hint(TYPES).at(position)
    };
    let mut kind = match name.as_str() {
        "boolean" | "bool" => ColumnType::Boolean,
        "smallint" | "int2" => ColumnType::SmallInt,
        "int" | "integer" | "int4" => ColumnType::Int,
        "bigint" | "int8" => ColumnType::BigInt,
        "real" | "float4" => ColumnType::Real,
        "float" | "float8" => ColumnType::Double,
        "double" => {
            tokens.take_words(&["precision"]);
            ColumnType::Double
        }
        "numeric" | "decimal" => numeric(tokens, position)?,
        "text" | "varchar" | "string" => text(tokens)?,
        "character" if tokens.take_words(&["varying"]) => text(tokens)?,
        "bytea" => ColumnType::Bytea,
        "date" => ColumnType::Date,
        "timestamptz" => {
            precision(tokens)?;
            ColumnType::TimestampTz
        }
        "timestamp" => {
            precision(tokens)?;
            if tokens.take_words(&["with", "time", "zone"]) {
                ColumnType::TimestampTz
            } else {
                tokens.take_words(&["without", "time", "zone"]);
                ColumnType::Timestamp
            }
        }
        "struct" => structure(tokens, depth)?,
        "array" => {
            tokens.expect(&Token::Lt)?;
            let item = nested(tokens, depth - 1)?;
            close(tokens)?;
            ColumnType::List(Box::new(item))
        }
        _ => return Err(unknown()),
    };
    loop {
        if tokens.take(&Token::LBracket) {
            tokens.expect(&Token::RBracket)?;
        } else if !tokens.take_words(&["array"]) {
            return Ok(kind);
        }
        kind = ColumnType::List(Box::new(kind));
    }
}

fn text(tokens: &mut Tokens) -> Result<ColumnType, SqlError> {
    if tokens.token() == Some(&Token::LParen) {
        return Err(SqlError::refused("the length of a text is not limited")
            .hint("write TEXT")
            .at(tokens.position()));
    }
    Ok(ColumnType::Text)
}

fn numeric(tokens: &mut Tokens, position: Option<usize>) -> Result<ColumnType, SqlError> {
    if !tokens.take(&Token::LParen) {
        return Err(SqlError::refused("NUMERIC needs a precision and a scale")
            .hint("write NUMERIC(38, 9), or what the values need")
            .at(position));
    }
    let precision = tokens.number()?;
    let scale = if tokens.take(&Token::Comma) { tokens.number()? } else { 0 };
    tokens.expect(&Token::RParen)?;
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale))
            if (1..=38).contains(&precision) && u64::from(precision) >= u64::from(scale.unsigned_abs()) =>
        {
            Ok(ColumnType::Numeric(precision, scale))
        }
        _ => Err(SqlError::new("22023", format!("NUMERIC({precision}, {scale}) is out of range"))
            .hint("the precision is 1 to 38, the scale 0 to the precision")
            .at(position)),
    }
}

/// TIMESTAMP(6) is what a TIMESTAMP is anyway.
fn precision(tokens: &mut Tokens) -> Result<(), SqlError> {
    let position = tokens.position();
    if !tokens.take(&Token::LParen) {
        return Ok(());
    }
    let digits = tokens.number()?;
    tokens.expect(&Token::RParen)?;
    if digits == 6 {
        return Ok(());
    }
    Err(SqlError::refused(format!("times have microseconds, not {digits} digits"))
        .hint("leave the precision out")
        .at(position))
}

fn structure(tokens: &mut Tokens, depth: usize) -> Result<ColumnType, SqlError> {
    tokens.expect(&Token::Lt)?;
    let mut columns: Vec<Column> = Vec::new();
    loop {
        let position = tokens.position();
        let name = tokens.ident("a field's name")?;
        if columns.iter().any(|column| column.name == name) {
            return Err(
                SqlError::new("42701", format!("field \"{name}\" occurs more than once")).at(position)
            );
        }
        let kind = nested(tokens, depth - 1)?;
        let mut column = Column::new(name, kind);
        column.not_null = tokens.take_words(&["not", "null"]);
        columns.push(column);
        if !tokens.take(&Token::Comma) {
            break;
        }
    }
    close(tokens)?;
    Ok(ColumnType::Struct(columns))
}

/// A `>`, which may be the first half of a `>>`.
fn close(tokens: &mut Tokens) -> Result<(), SqlError> {
    if tokens.token() == Some(&Token::ShiftRight) {
        tokens.replace(Token::Gt);
        return Ok(());
    }
    tokens.expect(&Token::Gt)
}
