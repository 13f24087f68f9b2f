//! PostgreSQL's functions that say something of the session or of the server, as far as clients call them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int32Array, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    create_udf,
};
use pgwire::api::Type;

use super::catalog::OWNER;
use super::parameter::{SERVER_VERSION, accept};
use crate::service::{Client, Settings};

/// What `version()` says: it begins as drivers expect it to.
fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION} on {}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Functions with one answer for a session, whatever their arguments.
fn constants(client: &Client, database: &str) -> Vec<(&'static str, ScalarValue)> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let mut constants = vec![
        ("version", text(&version())),
        ("current_database", text(database)),
        ("session_user", text(&client.user)),
        ("pg_backend_pid", ScalarValue::Int32(Some(client.process_id))),
        ("pg_get_userbyid", text(OWNER)),
        ("pg_encoding_to_char", text("UTF8")),
        ("pg_client_encoding", text("UTF8")),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_is_other_temp_schema", ScalarValue::Boolean(Some(false))),
        ("pg_relation_is_updatable", ScalarValue::Int32(Some(0))),
        ("pg_relation_is_publishable", ScalarValue::Boolean(Some(false))),
    ];
    // Everything is visible: there is one schema that names are looked up in without saying so.
    constants.extend(VISIBLE.iter().map(|name| (*name, ScalarValue::Boolean(Some(true)))));
    // There are no files of tables that could have a size.
    for size in
        ["pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size", "pg_database_size"]
    {
        constants.push((size, ScalarValue::Int64(None)));
    }
    constants.extend(ABSENT.iter().map(|name| (*name, ScalarValue::Utf8(None))));
    constants
}

const VISIBLE: &[&str] = &[
    "pg_function_is_visible",
    "pg_type_is_visible",
    "pg_operator_is_visible",
    "pg_opclass_is_visible",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
];

/// Functions that describe what does not exist here: comments, sequences, indexes, rules, locks.
const ABSENT: &[&str] = &[
    "col_description",
    "obj_description",
    "shobj_description",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_describe_object",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_my_temp_schema",
    "pg_size_pretty",
    "pg_tablespace_location",
];

/// Whether a function of this name comes from here.
pub(crate) fn is_postgresql(name: &str) -> bool {
    ["version", "current_setting", "set_config", "to_regtype", "session_user"].contains(&name)
        || ABSENT.contains(&name)
}

/// The functions of one client's session.
pub(crate) fn of_session(client: &Client, database: &str) -> Vec<ScalarUDF> {
    let constants = constants(client, database);
    let mut functions: Vec<ScalarUDF> =
        constants.into_iter().map(|(name, value)| ScalarUDF::from(Constant::new(name, value))).collect();
    functions.push(ScalarUDF::from(CurrentSetting::new(Arc::clone(&client.settings))));
    let settings = Arc::clone(&client.settings);
    functions.push(create_udf(
        "set_config",
        vec![DataType::Utf8, DataType::Utf8, DataType::Boolean],
        DataType::Utf8,
        Volatility::Volatile,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let arguments = ColumnarValue::values_to_arrays(arguments)?;
            let texts = |at: usize| arguments.get(at).and_then(|column| column.as_string_opt::<i32>());
            let pairs = texts(0).into_iter().flatten().zip(texts(1).into_iter().flatten());
            let values =
                pairs.map(|(name, value)| set(&settings, name, value)).collect::<Result<StringArray, _>>()?;
            Ok(ColumnarValue::Array(Arc::new(values)))
        }),
    ));
    functions.push(create_udf(
        "to_regtype",
        vec![DataType::Utf8],
        DataType::Int32,
        Volatility::Stable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let names = ColumnarValue::values_to_arrays(arguments)?;
            let names = names.first().and_then(|names| names.as_string_opt::<i32>()).into_iter().flatten();
            let ids: Int32Array = names.map(|name| type_id(name?)).collect();
            Ok(ColumnarValue::Array(Arc::new(ids)))
        }),
    ));
    functions
}

/// Sets a parameter, under the rules of `SET`, and gives its value.
fn set(
    settings: &Settings,
    name: Option<&str>,
    value: Option<&str>,
) -> Result<Option<String>, DataFusionError> {
    let (Some(name), Some(value)) = (name, value) else { return Ok(None) };
    let name = name.to_ascii_lowercase();
    let (value, _) = accept(&name, value)?;
    settings.set(&name, value.clone());
    Ok(Some(value))
}

/// The id of a type by its name; none for a type that is not offered.
fn type_id(name: &str) -> Option<i32> {
    let name = name.trim().to_ascii_lowercase();
    let kind = match name.as_str() {
        "bool" | "boolean" => Type::BOOL,
        "int2" | "smallint" => Type::INT2,
        "int4" | "int" | "integer" => Type::INT4,
        "int8" | "bigint" => Type::INT8,
        "float4" | "real" => Type::FLOAT4,
        "float8" | "double precision" => Type::FLOAT8,
        "numeric" | "decimal" => Type::NUMERIC,
        "text" => Type::TEXT,
        "bytea" => Type::BYTEA,
        "date" => Type::DATE,
        "time" | "time without time zone" => Type::TIME,
        "timestamp" | "timestamp without time zone" => Type::TIMESTAMP,
        "timestamptz" | "timestamp with time zone" => Type::TIMESTAMPTZ,
        "interval" => Type::INTERVAL,
        "record" => Type::RECORD,
        _ => return None,
    };
    i32::try_from(kind.oid()).ok()
}

/// A function that has one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Self { name, value, signature: Signature::one_of(any, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `current_setting(name [, missing_ok])`
#[derive(Debug, Clone)]
struct CurrentSetting {
    settings: Arc<Settings>,
    signature: Signature,
}

impl CurrentSetting {
    fn new(settings: Arc<Settings>) -> Self {
        let forms = vec![
            TypeSignature::Exact(vec![DataType::Utf8]),
            TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
        ];
        Self { settings, signature: Signature::one_of(forms, Volatility::Stable) }
    }

    fn value(&self, name: &str, missing_ok: bool) -> Result<Option<String>, DataFusionError> {
        match self.settings.get(&name.to_ascii_lowercase()) {
            None if !missing_ok => {
                Err(DataFusionError::Execution(format!("unrecognized configuration parameter \"{name}\"")))
            }
            value => Ok(value),
        }
    }
}

impl PartialEq for CurrentSetting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.settings, &other.settings)
    }
}

impl Eq for CurrentSetting {}

impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.settings).hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let missing_ok =
            matches!(arguments.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        match arguments.args.first() {
            Some(ColumnarValue::Scalar(name)) => {
                let value = match name.try_as_str().flatten() {
                    Some(name) => self.value(name, missing_ok)?,
                    None => None,
                };
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
            }
            Some(ColumnarValue::Array(names)) => {
                let names = names.as_string_opt::<i32>().into_iter().flatten();
                let values = names.map(|name| name.map_or(Ok(None), |name| self.value(name, missing_ok)));
                let values = values.collect::<Result<StringArray, _>>()?;
                Ok(ColumnarValue::Array(Arc::new(values)))
            }
            None => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
        }
    }
}
