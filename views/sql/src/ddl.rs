//! DDL: sources, dimension tables, views. Everything else passes through as it is.
//!
//! The statements are read token by token, because the SQL parser knows neither `REFRESH MATERIALIZED VIEW` nor
//! these types, and because a refused word should have its position.

mod create;
mod tokens;
mod types;

use std::collections::BTreeMap;

use stratus_seam::schema::Column;

use crate::error::SqlError;
use crate::position::slice;

use tokens::Tokens;

/// A statement of an input, with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What it is.
    pub statement: Statement,
    /// Its text, without the semicolon.
    pub text: String,
    /// How many characters of the input stand before it.
    pub offset: usize,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// CREATE TABLE of a source.
    CreateSource(CreateSource),
    /// CREATE TABLE of a dimension table (`connector = 'file'`).
    CreateDimension(CreateDimension),
    /// CREATE MATERIALIZED VIEW.
    CreateView(CreateView),
    /// DROP TABLE or DROP MATERIALIZED VIEW.
    Drop(Drop),
    /// REFRESH MATERIALIZED VIEW.
    Refresh {
        /// The view's name.
        view: String,
    },
    /// Anything else: a query, SET, SHOW ...
    Other,
}

/// CREATE TABLE of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSource {
    /// The source's name.
    pub name: String,
    /// The declared columns, at least one.
    pub columns: Vec<Column>,
    /// What stood in WITH, keys in lower case.
    pub options: BTreeMap<String, String>,
    /// Whether an existing source of that name is no error.
    pub if_not_exists: bool,
}

/// CREATE TABLE of a dimension table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDimension {
    /// The table's name.
    pub name: String,
    /// The declared columns, at least one.
    pub columns: Vec<Column>,
    /// What stood in WITH, keys in lower case.
    pub options: BTreeMap<String, String>,
    /// Whether an existing table of that name is no error.
    pub if_not_exists: bool,
}

/// CREATE MATERIALIZED VIEW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateView {
    /// The view's name.
    pub name: String,
    /// The query, as written.
    pub query_sql: String,
    /// How many characters of the input stand before the query: [`SqlError::shifted`] by it turns a position within
    /// the query into one within the input.
    pub query_position: usize,
    /// What stood in WITH, keys in lower case.
    pub options: BTreeMap<String, String>,
    /// Where the value of each option stands, in characters of the input from 1.
    pub option_positions: BTreeMap<String, usize>,
    /// Whether an existing view of that name is no error.
    pub if_not_exists: bool,
    /// Whether an existing view of that name is replaced.
    pub or_replace: bool,
}

/// DROP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    /// What kind of thing.
    pub kind: DropKind,
    /// Its name.
    pub name: String,
    /// Whether a missing one is no error.
    pub if_exists: bool,
}

/// What a DROP drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropKind {
    /// A source or a dimension table.
    Table,
    /// A view.
    MaterializedView,
}

/// The statements of an input, separated by semicolons. Positions in errors count characters of the input, from 1.
pub fn parse(sql: &str) -> Result<Vec<Parsed>, SqlError> {
    let mut parsed = Vec::new();
    for mut tokens in tokens::statements(sql)? {
        let Some((from, to)) = tokens.extent() else { continue };
        let statement = statement(&mut tokens, sql)?;
        parsed.push(Parsed { statement, text: slice(sql, from, to), offset: from });
    }
    Ok(parsed)
}

fn statement(tokens: &mut Tokens, sql: &str) -> Result<Statement, SqlError> {
    if tokens.take_words(&["create", "or", "replace", "materialized", "view"]) {
        return create::view(tokens, sql, true);
    }
    if tokens.take_words(&["create", "materialized", "view"]) {
        return create::view(tokens, sql, false);
    }
    if tokens.take_words(&["create", "table"]) {
        return create::table(tokens);
    }
    if tokens.starts_with(&["create", "or", "replace", "table"]) {
        return Err(SqlError::refused("a table cannot be replaced: its events and its views depend on it")
            .hint("create another one, or drop this one first")
            .at(tokens.position()));
    }
    if tokens.take_words(&["drop", "materialized", "view"]) {
        return drop_statement(tokens, DropKind::MaterializedView);
    }
    if tokens.take_words(&["drop", "table"]) {
        return drop_statement(tokens, DropKind::Table);
    }
    if tokens.take_words(&["refresh", "materialized", "view"]) {
        tokens.take_words(&["concurrently"]);
        let view = tokens.name("a view's name")?;
        tokens.end()?;
        return Ok(Statement::Refresh { view });
    }
    Ok(Statement::Other)
}

fn drop_statement(tokens: &mut Tokens, kind: DropKind) -> Result<Statement, SqlError> {
    let if_exists = tokens.take_words(&["if", "exists"]);
    let name = tokens.name("a name")?;
    if tokens.starts_with(&["cascade"]) {
        return Err(SqlError::refused("there is no DROP ... CASCADE")
            .hint("drop the views first")
            .at(tokens.position()));
    }
    tokens.take_words(&["restrict"]);
    tokens.end()?;
    Ok(Statement::Drop(Drop { kind, name, if_exists }))
}

#[cfg(test)]
mod tests;
