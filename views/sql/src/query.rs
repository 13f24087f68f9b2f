//! A view's query as text: what may be written, checked on the syntax tree, where every word has its position.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SetExpr, Spanned, Statement, TableFactor, Value, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::class::admit;
use crate::error::SqlError;
use crate::position::{Text, split_parser_message};
use crate::relations::{Relation, Relations};

/// A query that keeps to what views may have.
#[derive(Debug)]
pub(crate) struct CheckedQuery {
    pub(crate) statement: Statement,
    pub(crate) source: String,
    /// Dimension tables, in the order of their names.
    pub(crate) dimensions: Vec<String>,
    /// Aggregate calls as written: DataFusion's name, the text of the call, its position.
    pub(crate) aggregates: Vec<(String, String, Option<usize>)>,
    identifiers: Vec<(String, Option<usize>)>,
    pub(crate) ungrouped: bool,
}

impl CheckedQuery {
    /// Where a column of that name is written first.
    pub(crate) fn position_of(&self, name: &str) -> Option<usize> {
        self.identifiers.iter().find(|(identifier, _)| identifier == name).and_then(|(_, position)| *position)
    }

    /// Where the aggregate of that name is called: the call that is written like `text`, else the first.
    pub(crate) fn position_of_aggregate(&self, name: &str, text: &str) -> Option<usize> {
        let mut calls = self.aggregates.iter().filter(|(called, ..)| called == name);
        let first = calls.clone().next();
        calls.find(|(_, written, _)| written.eq_ignore_ascii_case(text)).or(first).and_then(|(_, _, at)| *at)
    }
}

/// Parses and checks a view's query.
pub(crate) fn check(
    sql: &str,
    relations: &Relations,
    state: &SessionState,
) -> Result<CheckedQuery, SqlError> {
    let text = Text::new(sql);
    let mut statements =
        Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| syntax(error, &text))?;
    let statement = match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => statement,
        (None, _) => return Err(SqlError::syntax("a view needs a query")),
        (Some(_), false) => return Err(SqlError::syntax("a view is one query")),
    };
    let Statement::Query(query) = &statement else {
        return Err(SqlError::syntax("a view is a SELECT").at(Some(1)));
    };
    let at = |span: Span| text.position(span.start);
    let select = shape(query, &at)?;
    let (source, dimensions) = tables(select, relations, &at)?;
    let mut words = Words { state, text: &text, depth: 0, aggregates: Vec::new(), identifiers: Vec::new() };
    if let ControlFlow::Break(error) = statement.visit(&mut words) {
        return Err(*error);
    }
    names(select, &at)?;
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    if ungrouped && words.aggregates.is_empty() {
        return Err(SqlError::refused("a view aggregates: this query has neither an aggregate nor GROUP BY")
            .hint("the events themselves can be queried under the source's name")
            .at(at(select.select_token.0.span)));
    }
    let Words { aggregates, identifiers, .. } = words;
    Ok(CheckedQuery { source, dimensions, aggregates, identifiers, ungrouped, statement })
}

fn syntax(error: ParserError, text: &Text) -> SqlError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return SqlError::new("54001", "the query is nested too deeply");
        }
    };
    let (message, location) = split_parser_message(&message);
    SqlError::syntax(message).at(location.and_then(|location| text.position(location)))
}

/// One plain SELECT, without what a view cannot have.
fn shape<'a>(query: &'a Query, at: &impl Fn(Span) -> Option<usize>) -> Result<&'a Select, SqlError> {
    let refused = |what: &str, hint: &str, span: Span| Err(SqlError::refused(what).hint(hint).at(at(span)));
    if let Some(with) = &query.with {
        return refused("a view has no WITH", "write the expressions out", with.with_token.0.span);
    }
    if let Some(order) = &query.order_by {
        return refused("a view has no ORDER BY", "put it into the query over the view", order.span());
    }
    if let Some(limit) = &query.limit_clause {
        return refused("a view has no LIMIT or OFFSET", "put it into the query over the view", limit.span());
    }
    if query.fetch.is_some() || !query.locks.is_empty() || query.for_clause.is_some() {
        return refused("a view has no FETCH or FOR", "put it into the query over the view", query.span());
    }
    if !query.pipe_operators.is_empty() || query.settings.is_some() || query.format_clause.is_some() {
        return refused("a view is a plain SELECT", "see docs/views.md", query.span());
    }
    let select = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::SetOperation { .. } => {
            return refused(
                "a view has no UNION, INTERSECT or EXCEPT",
                "write one view per part",
                query.span(),
            );
        }
        other => return refused("a view is a plain SELECT", "see docs/views.md", other.span()),
    };
    if select.distinct.is_some() {
        return refused("a view has no DISTINCT", "GROUP BY the columns instead", select.select_token.0.span);
    }
    if select.qualify.is_some() || !select.named_window.is_empty() {
        return refused(
            "a view has no window functions",
            "put them into the query over the view",
            select.select_token.0.span,
        );
    }
    let odd = select.top.is_some()
        || select.into.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.value_table_mode.is_some()
        || select.exclude.is_some();
    if odd {
        return refused("a view is a plain SELECT", "see docs/views.md", select.select_token.0.span);
    }
    match &select.group_by {
        GroupByExpr::All(_) => {
            refused("a view has no GROUP BY ALL", "name the group keys", select.select_token.0.span)
        }
        GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
            refused("a view has no grouping sets", "write one view per set", select.group_by.span())
        }
        GroupByExpr::Expressions(..) => Ok(select),
    }
}

/// The one source and the dimension tables of FROM.
fn tables(
    select: &Select,
    relations: &Relations,
    at: &impl Fn(Span) -> Option<usize>,
) -> Result<(String, Vec<String>), SqlError> {
    let [from] = select.from.as_slice() else {
        let second = select.from.get(1).map(Spanned::span);
        return Err(SqlError::refused("a view reads FROM one source, joined to dimension tables")
            .hint("write JOIN ... USING (...) or JOIN ... ON ... = ...")
            .at(second.or(Some(select.select_token.0.span)).and_then(at)));
    };
    let mut source: Option<String> = None;
    let mut dimensions = BTreeSet::new();
    let mut take = |factor: &TableFactor, joined: Option<&JoinOperator>| {
        let (name, position) = table(factor, at)?;
        match relations.get(&name) {
            None => {
                return Err(SqlError::new("42P01", format!("relation \"{name}\" does not exist"))
                    .hint(format!("there are: {}", known(relations)))
                    .at(position));
            }
            Some(Relation::Source { .. }) if source.is_some() => {
                return Err(SqlError::refused(format!("a view has one source, \"{name}\" is a second one"))
                    .hint("write one view per source and join them in the query")
                    .at(position));
            }
            Some(Relation::Source { .. }) => source = Some(name.clone()),
            Some(Relation::Dimension { .. }) => {
                if !dimensions.insert(name.clone()) {
                    return Err(SqlError::refused(format!("\"{name}\" is joined twice"))
                        .hint("declare the table a second time under another name")
                        .at(position));
                }
            }
        }
        let constraint = match joined {
            None => return Ok(()),
            Some(JoinOperator::Join(constraint) | JoinOperator::Inner(constraint)) => constraint,
            Some(JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint)) => {
                if source.as_ref() == Some(&name) {
                    return Err(SqlError::refused(format!(
                        "a source cannot be the right side of a LEFT JOIN: what \"{name}\" lacks today may come tomorrow"
                    ))
                    .hint("put the source first")
                    .at(position));
                }
                constraint
            }
            Some(_) => {
                return Err(SqlError::refused("a view joins with INNER JOIN or LEFT JOIN only")
                    .hint("put the source first, then LEFT JOIN the dimension table")
                    .at(position));
            }
        };
        match constraint {
            JoinConstraint::On(_) | JoinConstraint::Using(_) => Ok(()),
            JoinConstraint::Natural | JoinConstraint::None => {
                Err(SqlError::refused("a join needs ON or USING")
                    .hint("name the columns that are equal")
                    .at(position))
            }
        }
    };
    take(&from.relation, None)?;
    for join in &from.joins {
        take(&join.relation, Some(&join.join_operator))?;
    }
    match source {
        Some(source) => Ok((source, dimensions.into_iter().collect())),
        None => Err(SqlError::refused("a view reads one source, this one reads dimension tables alone")
            .hint("query the tables themselves")
            .at(at(from.span()))),
    }
}

fn known(relations: &Relations) -> String {
    let names: Vec<&str> = relations.iter().map(|(name, _)| name).collect();
    if names.is_empty() { "no tables yet".to_owned() } else { names.join(", ") }
}

fn table(
    factor: &TableFactor,
    at: &impl Fn(Span) -> Option<usize>,
) -> Result<(String, Option<usize>), SqlError> {
    let position = at(factor.span());
    let TableFactor::Table {
        name,
        args: None,
        version: None,
        sample: None,
        with_ordinality: false,
        alias,
        ..
    } = factor
    else {
        return Err(SqlError::refused("a view reads tables by name: no subqueries, no table functions")
            .hint("write the expressions out")
            .at(position));
    };
    if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return Err(SqlError::refused("a table's columns cannot be renamed in FROM").at(position));
    }
    Ok((table_name(name).map_err(|error| error.at(position))?, position))
}

/// The name without the schema `public`, folded as SQL folds it.
fn table_name(name: &ObjectName) -> Result<String, SqlError> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [table] | ["public", table] | ["stratus", "public", table] => Ok((*table).to_owned()),
        _ => Err(SqlError::new("42P01", format!("relation \"{name}\" does not exist"))),
    }
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Every item of the SELECT list needs a name of its own; DataFusion names unnamed expressions by their text.
fn names(select: &Select, at: &impl Fn(Span) -> Option<usize>) -> Result<(), SqlError> {
    let mut seen = BTreeSet::new();
    for item in &select.projection {
        let (name, span) = match item {
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), alias.span),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => (fold(ident), ident.span),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(idents)) => match idents.last() {
                Some(ident) => (fold(ident), item.span()),
                None => continue,
            },
            SelectItem::UnnamedExpr(expr) => (expr.to_string().to_lowercase(), item.span()),
            _ => {
                return Err(SqlError::refused("a view names its columns: no *")
                    .hint("list the group keys and the aggregates")
                    .at(at(item.span())));
            }
        };
        if !seen.insert(name.clone()) {
            return Err(SqlError::new("42701", format!("column \"{name}\" occurs more than once"))
                .hint("give it another name with AS")
                .at(at(span)));
        }
    }
    Ok(())
}

/// Walks over every word of the query.
struct Words<'a> {
    state: &'a SessionState,
    text: &'a Text,
    depth: usize,
    aggregates: Vec<(String, String, Option<usize>)>,
    identifiers: Vec<(String, Option<usize>)>,
}

impl Words<'_> {
    fn at(&self, span: Span) -> Option<usize> {
        self.text.position(span.start)
    }

    fn function(&mut self, function: &Function) -> Result<(), SqlError> {
        let position = self.at(function.name.span());
        let idents: Vec<String> =
            function.name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
        let [name] = idents.as_slice() else {
            return Err(
                SqlError::new("42883", format!("function {} does not exist", function.name)).at(position)
            );
        };
        if function.over.is_some() {
            return Err(SqlError::refused("a view has no window functions")
                .hint("put them into the query over the view")
                .at(position));
        }
        if let Some(aggregate) = self.state.aggregate_functions().get(name) {
            return self.aggregate(aggregate.name(), function, position);
        }
        if let Some(scalar) = self.state.scalar_functions().get(name) {
            return match scalar.signature().volatility {
                Volatility::Immutable => Ok(()),
                _ => Err(SqlError::refused(format!(
                    "{name}() gives another answer each time, so the layers could not agree"
                ))
                .hint("use it in the query over the view, or a column of the event such as its timestamp")
                .at(position)),
            };
        }
        if self.state.window_functions().contains_key(name) {
            return Err(SqlError::refused("a view has no window functions")
                .hint("put them into the query over the view")
                .at(position));
        }
        if self.state.higher_order_functions().contains_key(name) {
            return Ok(());
        }
        if function.args == FunctionArguments::None {
            // USER and its like: without parentheses, a column may be meant.
            self.identifiers.push((name.clone(), position));
            return Ok(());
        }
        Err(SqlError::new("42883", format!("function {name} does not exist")).at(position))
    }

    fn aggregate(
        &mut self,
        name: &str,
        function: &Function,
        position: Option<usize>,
    ) -> Result<(), SqlError> {
        let mut distinct = false;
        let mut argument = "x".to_owned();
        if let FunctionArguments::List(list) = &function.args {
            distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) = list.args.first() {
                argument = expr.to_string();
            }
            let ordered =
                list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
            let nulls = function.null_treatment.is_some()
                || list
                    .clauses
                    .iter()
                    .any(|clause| matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_)));
            if (ordered || nulls) && admit(name, distinct, &argument).is_ok() {
                let what = if ordered { "ORDER BY" } else { "IGNORE NULLS" };
                return Err(SqlError::refused(format!("{what} within {name} has no meaning in a view"))
                    .hint("leave it out")
                    .at(position));
            }
        }
        admit(name, distinct, &argument)
            .map_err(|refusal| SqlError::refused(refusal.reason).hint(refusal.hint).at(position))?;
        self.aggregates.push((name.to_owned(), function.to_string(), position));
        Ok(())
    }
}

impl Visitor for Words<'_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.depth += 1;
        if self.depth > 1 {
            return ControlFlow::Break(Box::new(
                SqlError::refused("a view has no subqueries")
                    .hint("join a dimension table, or put it into the query over the view")
                    .at(self.at(query.span())),
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let result = match expr {
            Expr::Function(function) => self.function(function),
            Expr::Identifier(ident) => {
                self.identifiers.push((fold(ident), self.at(ident.span)));
                Ok(())
            }
            Expr::CompoundIdentifier(idents) => {
                if let Some(last) = idents.last() {
                    self.identifiers.push((fold(last), self.at(expr.span())));
                }
                Ok(())
            }
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                Err(SqlError::refused("a view has no grouping sets")
                    .hint("write one view per set")
                    .at(self.at(expr.span())))
            }
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                Err(SqlError::new("42P02", "a view has no parameters").at(self.at(value.span)))
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}
