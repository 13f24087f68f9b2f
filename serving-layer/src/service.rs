//! What a front door asks of the engine: a session per connection, which describes and runs one statement at a
//! time. The doors (the PostgreSQL protocol, Flight SQL, HTTP) know nothing of views, and the engine nothing of
//! wires.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use stratus_sql::{SqlError, sqlstate_of};

/// The engine, as a front door sees it.
#[async_trait]
pub trait SqlService: Send + Sync {
    /// Opens a session for a client. An error refuses the connection with that error.
    async fn session(&self, client: Client) -> Result<Box<dyn SqlSession>, SqlError>;
}

/// One client's session. Several statements of a session may be under way at once (suspended portals).
///
/// A statement is stopped by dropping what it returned: the future of [`run`](Self::run), or the stream of rows.
#[async_trait]
pub trait SqlSession: Send + Sync {
    /// The types of the parameters (`$1`, ...) and the columns of the answer, without running the statement.
    /// `hints` are the types that the client has declared, from `$1` on; it may declare none or only some.
    async fn describe(&self, statement: &str, hints: &[Option<DataType>]) -> Result<Described, SqlError>;

    /// Runs one statement. `parameters` has a value for each parameter that `describe` named, of that type.
    async fn run(&self, statement: &str, parameters: Vec<ScalarValue>) -> Result<Answer, SqlError>;
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// The name that the client gave itself; nobody has checked it.
    pub user: String,
    /// A number that no other open connection of this front door has.
    pub process_id: i32,
    /// The session's parameters, as the client sets them.
    pub settings: Arc<Settings>,
}

impl Client {
    /// A client without settings of its own, for front doors that keep no session.
    pub fn local(user: impl Into<String>) -> Self {
        Self { user: user.into(), process_id: 0, settings: Arc::new(Settings::default()) }
    }
}

/// The parameters of one session, which the front door writes (`SET`) and the engine reads.
///
/// Names are lower case. Which names and values are allowed is the front door's business.
#[derive(Debug, Default)]
pub struct Settings {
    values: RwLock<BTreeMap<String, String>>,
}

impl Settings {
    /// The value of a parameter, if the session has one.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Gives a parameter a value.
    pub fn set(&self, name: &str, value: impl Into<String>) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values.insert(name.to_ascii_lowercase(), value.into());
    }

    /// All parameters and their values, in the order of their names.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.values.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces every parameter at once.
    pub fn replace(&self, values: BTreeMap<String, String>) {
        *self.values.write().unwrap_or_else(PoisonError::into_inner) = values;
    }
}

/// What a statement takes and gives.
#[derive(Debug, Clone)]
pub struct Described {
    /// The type of each parameter, from `$1` on.
    pub parameters: Vec<DataType>,
    /// The columns of the answer; `None` for a statement that answers with no rows at all.
    pub columns: Option<SchemaRef>,
}

impl Described {
    /// What a query's logical plan takes and gives. A parameter whose type neither the plan nor the client tells
    /// is TEXT, as in PostgreSQL.
    ///
    /// # Errors
    /// A placeholder that is no `$n` from `$1` on (42P02), or a plan that holds a parameter with two types (42P08).
    pub fn of_plan(plan: &LogicalPlan, hints: &[Option<DataType>]) -> Result<Self, SqlError> {
        let found = plan
            .get_parameter_fields()
            .map_err(|error| SqlError { sqlstate: "42P08", ..sqlstate_of(&error) })?;
        let mut numbered = BTreeMap::new();
        for (name, field) in found {
            let number = name.strip_prefix('$').and_then(|n| n.parse::<u16>().ok()).filter(|n| *n > 0);
            let Some(number) = number else {
                return Err(SqlError {
                    sqlstate: "42P02",
                    message: format!("there is no parameter {name}: parameters are $1, $2, ..."),
                    detail: None,
                    hint: None,
                    position: None,
                });
            };
            numbered.insert(usize::from(number), field.map(|field| field.data_type().clone()));
        }
        let count = numbered.keys().last().copied().unwrap_or(0).max(hints.len());
        let parameters: Vec<DataType> = (1..=count)
            .map(|number| {
                let declared = hints.get(number - 1).cloned().flatten();
                let inferred = numbered.get(&number).cloned().flatten();
                declared.or(inferred).filter(|kind| *kind != DataType::Null).unwrap_or(DataType::Utf8)
            })
            .collect();
        // The columns depend on the parameters' types, so they are those of the plan with typed values put in.
        let typed = if numbered.is_empty() { None } else { Some(typed_nulls(&parameters, plan)?) };
        let schema = typed.as_ref().unwrap_or(plan).schema();
        Ok(Self { parameters, columns: Some(Arc::new(schema.as_arrow().clone())) })
    }
}

fn typed_nulls(parameters: &[DataType], plan: &LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let nulls = parameters.iter().map(ScalarValue::try_new_null).collect::<Result<Vec<_>, _>>();
    nulls.and_then(|nulls| plan.clone().with_param_values(nulls)).map_err(|error| sqlstate_of(&error))
}

/// What a statement gave.
pub enum Answer {
    /// Rows, which are computed while they are read.
    Rows {
        /// The rows.
        rows: SendableRecordBatchStream,
        /// What the client should be told first.
        notices: Vec<Notice>,
    },
    /// A command was carried out.
    Done {
        /// The command's name as PostgreSQL spells it in its completion, such as `CREATE TABLE`.
        tag: String,
        /// What the client should be told first.
        notices: Vec<Notice>,
    },
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows { rows, notices } => {
                f.debug_struct("Rows").field("schema", &rows.schema()).field("notices", notices).finish()
            }
            Self::Done { tag, notices } => {
                f.debug_struct("Done").field("tag", tag).field("notices", notices).finish()
            }
        }
    }
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something to know.
    Info,
    /// Something that a client usually shows.
    Notice,
    /// Something that is probably not what was meant.
    Warning,
}

/// Something to tell the client beside the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// Five characters, `00000` for a plain notice and `01...` for a warning.
    pub sqlstate: &'static str,
    /// What there is to tell.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Notice {
    /// A plain notice.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Notice,
            sqlstate: "00000",
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// A warning with its SQLSTATE.
    pub fn warning(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, sqlstate, message: message.into(), detail: None, hint: None }
    }
}
