//! CREATE TABLE and CREATE MATERIALIZED VIEW.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::Token;
use stratus_seam::schema::Column;

use crate::error::SqlError;
use crate::position::slice;

use super::tokens::Tokens;
use super::types::column_type;
use super::{CreateDimension, CreateSource, CreateView, Statement};

/// What the product itself appends to a name.
const SUFFIXES: [&str; 3] = ["_batch", "_speed", "_dead_letters"];

/// After CREATE TABLE.
pub(super) fn table(tokens: &mut Tokens) -> Result<Statement, SqlError> {
    let if_not_exists = tokens.take_words(&["if", "not", "exists"]);
    let name = new_name(tokens, "a table's name")?;
    if tokens.starts_with(&["as"]) || tokens.token() != Some(&Token::LParen) {
        return Err(SqlError::syntax(format!("declare the columns of \"{name}\""))
            .hint(format!("CREATE TABLE {name} (column type, ...) WITH (...)"))
            .at(tokens.position()));
    }
    let columns = columns(tokens)?;
    let (options, _) = options(tokens)?;
    tokens.end()?;
    Ok(if options.get("connector").is_some_and(|connector| connector == "file") {
        Statement::CreateDimension(CreateDimension { name, columns, options, if_not_exists })
    } else {
        Statement::CreateSource(CreateSource { name, columns, options, if_not_exists })
    })
}

/// After CREATE MATERIALIZED VIEW.
pub(super) fn view(tokens: &mut Tokens, sql: &str, or_replace: bool) -> Result<Statement, SqlError> {
    let if_not_exists = tokens.take_words(&["if", "not", "exists"]);
    if if_not_exists && or_replace {
        return Err(
            SqlError::syntax("OR REPLACE and IF NOT EXISTS exclude one another").at(tokens.position())
        );
    }
    let name = new_name(tokens, "a view's name")?;
    if tokens.token() == Some(&Token::LParen) {
        return Err(SqlError::refused("a view's columns are named in its query")
            .hint("name them with AS")
            .at(tokens.position()));
    }
    let (options, option_positions) = options(tokens)?;
    if !tokens.take_words(&["as"]) {
        return Err(tokens.unexpected("AS and a query"));
    }
    let Some((from, to)) = tokens.remainder() else {
        return Err(tokens.unexpected("a query"));
    };
    let query_sql = slice(sql, from, to);
    Ok(Statement::CreateView(CreateView {
        name,
        query_sql,
        query_position: from,
        options,
        option_positions,
        if_not_exists,
        or_replace,
    }))
}

/// A name for something new. Names that the product makes itself are not for users.
fn new_name(tokens: &mut Tokens, what: &str) -> Result<String, SqlError> {
    let position = tokens.position();
    let name = tokens.name(what)?;
    let reserved = |reason: String| {
        Err(SqlError::new("42939", format!("the name \"{name}\" is reserved: {reason}")).at(position))
    };
    if name.is_empty() {
        return Err(SqlError::new("42602", "a name cannot be empty").at(position));
    }
    if name.starts_with('_') {
        return reserved("names that begin with _ are the product's own".to_owned());
    }
    if name.starts_with("stratus") || name.starts_with("pg_") || name == "information_schema" {
        return reserved("it belongs to the system's own tables".to_owned());
    }
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| name.ends_with(**suffix)) {
        return reserved(format!("...{suffix} shows one layer of a view or the bad records of a source"));
    }
    if !name.chars().all(|character| character.is_alphanumeric() || character == '_') {
        return Err(SqlError::new(
            "42602",
            format!("the name \"{name}\" has characters other than letters, digits and _"),
        )
        .hint("it also names folders and keys")
        .at(position));
    }
    Ok(name)
}

fn columns(tokens: &mut Tokens) -> Result<Vec<Column>, SqlError> {
    tokens.expect(&Token::LParen)?;
    let mut columns: Vec<Column> = Vec::new();
    loop {
        let position = tokens.position();
        if is_constraint(tokens) {
            return Err(constraint_refused(tokens));
        }
        let name = tokens.ident("a column's name")?;
        if name.starts_with('_') {
            return Err(SqlError::new("42939", format!("the name \"{name}\" is reserved: columns that begin with _ tell where an event stands in its log"))
                .at(position));
        }
        if columns.iter().any(|column| column.name == name) {
            return Err(
                SqlError::new("42701", format!("column \"{name}\" occurs more than once")).at(position)
            );
        }
        let mut column = Column::new(name, column_type(tokens)?);
        loop {
            if tokens.take_words(&["not", "null"]) {
                column.not_null = true;
            } else if !tokens.take_words(&["null"]) {
                break;
            }
        }
        columns.push(column);
        if tokens.take(&Token::Comma) {
            continue;
        }
        if tokens.take(&Token::RParen) {
            return Ok(columns);
        }
        return Err(match tokens.token() {
            Some(Token::Word(_)) => constraint_refused(tokens),
            _ => tokens.unexpected("\",\" or \")\""),
        });
    }
}

/// Whether a table constraint stands here, and not a column whose name is such a word.
fn is_constraint(tokens: &Tokens) -> bool {
    let followed_by_paren = |words: &[&str]| {
        let mut ahead = tokens.clone();
        ahead.take_words(words) && ahead.token() == Some(&Token::LParen)
    };
    let named = || {
        let mut ahead = tokens.clone();
        let words = ["primary", "unique", "foreign", "check", "exclude"];
        ahead.take_words(&["constraint"])
            && ahead.advance().is_some()
            && words.iter().any(|word| ahead.starts_with(&[word]))
    };
    tokens.starts_with(&["primary", "key"])
        || tokens.starts_with(&["foreign", "key"])
        || tokens.starts_with(&["exclude", "using"])
        || followed_by_paren(&["unique"])
        || followed_by_paren(&["check"])
        || named()
}

fn constraint_refused(tokens: &Tokens) -> SqlError {
    let word = tokens.token().map_or_else(String::new, |token| token.to_string().to_uppercase());
    SqlError::refused(format!("{word}: of constraints, events have NOT NULL alone"))
        .hint("an event is checked by itself, when it is decoded: it cannot be compared with others")
        .at(tokens.position())
}

/// The values of options, and where each stands.
type Options = (BTreeMap<String, String>, BTreeMap<String, usize>);

/// WITH (key = value, ...), or nothing.
fn options(tokens: &mut Tokens) -> Result<Options, SqlError> {
    let (mut options, mut positions) = (BTreeMap::new(), BTreeMap::new());
    if !tokens.take_words(&["with"]) {
        return Ok((options, positions));
    }
    tokens.expect(&Token::LParen)?;
    loop {
        let position = tokens.position();
        let key = key(tokens)?;
        tokens.expect(&Token::Eq)?;
        if let Some(position) = tokens.position() {
            positions.insert(key.clone(), position);
        }
        let value = value(tokens)?;
        if options.insert(key.clone(), value).is_some() {
            return Err(SqlError::syntax(format!("option \"{key}\" occurs more than once")).at(position));
        }
        if !tokens.take(&Token::Comma) {
            break;
        }
    }
    tokens.expect(&Token::RParen)?;
    Ok((options, positions))
}

fn key(tokens: &mut Tokens) -> Result<String, SqlError> {
    if let Some(Token::SingleQuotedString(key)) = tokens.token().cloned() {
        tokens.advance();
        return Ok(key.to_lowercase());
    }
    let mut key = tokens.ident("an option's name")?.to_lowercase();
    while tokens.take(&Token::Period) {
        key.push('.');
        key.push_str(&tokens.ident("an option's name")?.to_lowercase());
    }
    Ok(key)
}

fn value(tokens: &mut Tokens) -> Result<String, SqlError> {
    let sign = if tokens.take(&Token::Minus) { "-" } else { "" };
    let value = match tokens.token() {
        Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) if sign.is_empty() => {
            text.clone()
        }
        Some(Token::DollarQuotedString(text)) if sign.is_empty() => text.value.clone(),
        Some(Token::Number(digits, _)) => format!("{sign}{digits}"),
        Some(Token::Word(word)) if sign.is_empty() => word.value.clone(),
        _ => return Err(tokens.unexpected("a value")),
    };
    tokens.advance();
    Ok(value)
}
