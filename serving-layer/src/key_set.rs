//! From a query's filters on group keys to the keys that the speed layer's states are looked up by.
//!
//! The set may name more keys than the filters leave, never fewer: the engine filters the rows again. So whatever is
//! not understood here leaves all keys.

use std::collections::BTreeSet;
use std::fmt;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Operator};
use datafusion::scalar::ScalarValue;
use stratus_sql::{KeyGrid, View};

use crate::domain::{Domain, Value, number};

/// More keys than this are not looked up one by one; all are paged.
pub(crate) const MOST_KEYS: usize = 10_000;
/// Alternatives that are told apart; of more, fewer filters are used.
const MOST_BOXES: usize = 1_000;

/// The keys that a query asks for, encoded as in [`stratus_seam::encoding`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySet {
    /// All there are.
    All,
    /// These, and no others.
    Keys(BTreeSet<String>),
}

impl KeySet {
    /// Whether every key of the other set is in this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Keys(_), Self::All) => false,
            (Self::Keys(keys), Self::Keys(others)) => keys.is_superset(others),
        }
    }

    /// What filters over the states of a view leave.
    pub(crate) fn of(filters: &[Expr], view: &View) -> Self {
        if !view.is_grouped() {
            // The one group of a view without GROUP BY.
            return Self::Keys(BTreeSet::from([UNGROUPED.to_owned()]));
        }
        let keys = view.descriptor().keys.iter().zip(view.key_grids());
        let keys: Vec<Key> = keys
            .map(|(column, grid)| Key { name: column.name.clone(), kind: column.data_type.clone(), grid })
            .collect();
        left_by(filters, &keys)
    }
}

/// The encoded key of a view without GROUP BY.
const UNGROUPED: &str = "[0]";

impl fmt::Display for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all keys"),
            Self::Keys(keys) if keys.len() == 1 => write!(f, "look-up of 1 key"),
            Self::Keys(keys) => write!(f, "look-up of {} keys", keys.len()),
        }
    }
}

/// A key column of the states.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: DataType,
    /// The values that it can have, if it is a bucket of time.
    pub(crate) grid: Option<KeyGrid>,
}

impl Key {
    /// The distance between two neighbouring values, and where they lie.
    fn step(&self) -> Option<(i128, i128)> {
        match (&self.kind, self.grid) {
            (DataType::Timestamp(..), grid) => grid.map(|grid| (grid.step.into(), grid.phase.into())),
            _ => Some((1, 0)),
        }
    }
}

/// What filters, all of which must hold, leave of the keys of some columns.
pub(crate) fn left_by(filters: &[Expr], keys: &[Key]) -> KeySet {
    let reader = Reader { keys };
    let mut left = vec![reader.any()];
    for filter in filters {
        left = both(left, reader.condition(filter));
    }
    let mut found = BTreeSet::new();
    for alternative in left {
        let lists: Option<Vec<Vec<String>>> =
            alternative.iter().zip(keys).map(|(domain, key)| domain.list(key.step(), MOST_KEYS)).collect();
        let Some(lists) = lists else { return KeySet::All };
        let count = lists.iter().try_fold(1_usize, |count, list| count.checked_mul(list.len()));
        if count.is_none_or(|count| count > MOST_KEYS) {
            return KeySet::All;
        }
        let mut texts = vec![String::from("[")];
        for (place, list) in lists.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let longer = |text: &String| list.iter().map(|value| format!("{text}{comma}{value}")).collect();
            texts = texts.iter().flat_map(|text| -> Vec<String> { longer(text) }).collect();
        }
        found.extend(texts.into_iter().map(|text| text + "]"));
        if found.len() > MOST_KEYS {
            return KeySet::All;
        }
    }
    KeySet::Keys(found)
}

/// One domain for each key column: a row lies in it if each of its values does.
type Alternative = Vec<Domain>;

/// The rows of either.
fn either(mut left: Vec<Alternative>, right: Vec<Alternative>, any: Alternative) -> Vec<Alternative> {
    for alternative in right {
        let joined = left.last_mut().is_some_and(|last| join(last, &alternative));
        if !joined {
            left.push(alternative);
        }
    }
    if left.len() > MOST_BOXES { vec![any] } else { left }
}

/// Adds to an alternative the values of another that differs from it in one column.
fn join(into: &mut Alternative, other: &Alternative) -> bool {
    let differ: Vec<usize> = (0..into.len()).filter(|&at| into.get(at) != other.get(at)).collect();
    match differ.as_slice() {
        [] => true,
        [at] => match (into.get_mut(*at), other.get(*at)) {
            (Some(Domain::Values(values)), Some(Domain::Values(more))) => {
                values.extend(more.iter().cloned());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// The rows of both.
fn both(left: Vec<Alternative>, right: Vec<Alternative>) -> Vec<Alternative> {
    if left.len().saturating_mul(right.len()) > MOST_BOXES {
        return left;
    }
    let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
    let met =
        pairs.map(|(left, right)| left.iter().zip(right).map(|(l, r)| l.and(r)).collect::<Alternative>());
    met.filter(|alternative| !alternative.iter().any(Domain::is_empty)).collect()
}

struct Reader<'a> {
    keys: &'a [Key],
}

impl Reader<'_> {
    fn any(&self) -> Alternative {
        vec![Domain::Any; self.keys.len()]
    }

    fn only(&self, at: usize, domain: Domain) -> Vec<Alternative> {
        let mut alternative = self.any();
        if let Some(column) = alternative.get_mut(at) {
            *column = domain;
        }
        vec![alternative]
    }

    fn values(&self, at: usize, values: impl IntoIterator<Item = Value>) -> Vec<Alternative> {
        self.only(at, Domain::Values(values.into_iter().collect()))
    }

    /// The rows on which a condition is true, or more.
    fn condition(&self, condition: &Expr) -> Vec<Alternative> {
        let understood = match condition {
            Expr::Alias(alias) => return self.condition(&alias.expr),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                return both(self.condition(left), self.condition(right));
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                return either(self.condition(left), self.condition(right), self.any());
            }
            Expr::IsTrue(inner) => return self.condition(inner),
            Expr::Literal(ScalarValue::Boolean(value), _) => {
                return if *value == Some(true) { vec![self.any()] } else { Vec::new() };
            }
            Expr::BinaryExpr(comparison) => self.comparison(comparison),
            Expr::InList(list) => self.listed(list),
            Expr::Between(between) => self.between(between),
            Expr::IsNull(column) => self.column(column).map(|at| self.values(at, [Value::Null])),
            Expr::IsUnknown(column) => self.boolean(column).map(|at| self.values(at, [Value::Null])),
            Expr::Not(column) | Expr::IsFalse(column) => {
                self.boolean(column).map(|at| self.values(at, [Value::boolean(false)]))
            }
            Expr::IsNotTrue(column) => {
                self.boolean(column).map(|at| self.values(at, [Value::boolean(false), Value::Null]))
            }
            Expr::IsNotFalse(column) => {
                self.boolean(column).map(|at| self.values(at, [Value::boolean(true), Value::Null]))
            }
            Expr::Column(_) => self.boolean(condition).map(|at| self.values(at, [Value::boolean(true)])),
            _ => None,
        };
        understood.unwrap_or_else(|| vec![self.any()])
    }

    fn comparison(&self, BinaryExpr { left, op, right }: &BinaryExpr) -> Option<Vec<Alternative>> {
        let (at, op, literal) = match (self.column(left), literal(right)) {
            (Some(at), Some(literal)) => (at, *op, literal),
            _ => (self.column(right)?, op.swap()?, literal(left)?),
        };
        if literal.is_null() && op != Operator::IsNotDistinctFrom {
            // Nothing is equal to NULL, below it or above it; what else may be done with it is another matter.
            let ordered =
                matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
            return ordered.then(Vec::new);
        }
        let kind = &self.keys.get(at)?.kind;
        match op {
            Operator::Eq | Operator::IsNotDistinctFrom => Some(self.values(at, [Value::of(literal, kind)?])),
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                let (number, exact) = number(literal, kind)?;
                let range = match op {
                    Operator::Lt if exact => Domain::Range(i128::MIN, number - 1),
                    Operator::Lt | Operator::LtEq => Domain::Range(i128::MIN, number),
                    Operator::Gt => Domain::Range(number + 1, i128::MAX),
                    _ => Domain::Range(number, i128::MAX),
                };
                Some(self.only(at, range))
            }
            _ => None,
        }
    }

    fn listed(&self, list: &InList) -> Option<Vec<Alternative>> {
        let at = self.column(&list.expr)?;
        if list.negated {
            return None;
        }
        let kind = &self.keys.get(at)?.kind;
        let mut values = BTreeSet::new();
        for item in &list.list {
            // Nothing is equal to a NULL in the list.
            let value = Value::of(literal(item)?, kind)?;
            if value != Value::Null {
                values.insert(value);
            }
        }
        Some(self.values(at, values))
    }

    fn between(&self, between: &Between) -> Option<Vec<Alternative>> {
        if between.negated {
            return None;
        }
        let side = |op, bound: &Expr| {
            let comparison = BinaryExpr::new(between.expr.clone(), op, Box::new(bound.clone()));
            self.comparison(&comparison).unwrap_or_else(|| vec![self.any()])
        };
        Some(both(side(Operator::GtEq, &between.low), side(Operator::LtEq, &between.high)))
    }

    /// The key column that an expression is, its values as they stand.
    fn column(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Alias(alias) => self.column(&alias.expr),
            Expr::Column(column) => self.keys.iter().position(|key| key.name == column.name),
            // The same moments, in a unit that tells no fewer of them apart.
            Expr::Cast(Cast { expr, field }) => {
                let at = self.column(expr)?;
                match (&self.keys.get(at)?.kind, field.data_type()) {
                    (DataType::Timestamp(_, of), DataType::Timestamp(unit, to)) => {
                        let fine = matches!(unit, TimeUnit::Microsecond | TimeUnit::Nanosecond);
                        (fine && of.is_some() == to.is_some()).then_some(at)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn boolean(&self, expr: &Expr) -> Option<usize> {
        self.column(expr).filter(|&at| self.keys.get(at).is_some_and(|key| key.kind == DataType::Boolean))
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Alias(alias) => literal(&alias.expr),
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
